"""The page and the notebook fragment: self-contained, safe, readable at 400 layers, alive in a browser."""

import io
import itertools
import math
import re
import shutil
import subprocess
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from gradlint.config import Settings
from gradlint.finding import Size, Suppression, Trained
from gradlint.report import chart, losses_svg, render, ribbon
from gradlint.report.notebook import fragment
from gradlint.report.reproduce import command
from gradlint.report.source import Sources
from gradlint.result import Layer, Report
from tests.formats.samples import CHAIN, HEALTHY, ILL, REPORTS, SETTINGS, SOURCES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>alert(1)</script>"


def page(report):
    stream = io.StringIO()
    render(report, "html", stream, sources=Sources(SOURCES))
    return stream.getvalue()


def deep(layers):
    made = tuple(
        Layer(
            f"stage{i // 100}.block{i // 10 % 10}.fc{i % 10}",
            "linear",
            "linear",
            "n.py",
            i,
            1.0,
            10.0 ** (-i / 50),
            10.0 ** (-i / 49),
            1.0,
            i,
        )
        for i in range(layers)
    )
    fix = replace(CHAIN.fixes[0], layers=tuple(Size(i, 0.9, 0.03) for i in range(layers)))
    return replace(ILL, layers=made, findings=(replace(CHAIN, ops=tuple(range(50, 90)), factors=(), fixes=(fix,)),))


@pytest.mark.parametrize("name", REPORTS)
def test_the_page_needs_no_network_and_runs_no_script(name):
    text = page(REPORTS[name])
    assert text.startswith("<!doctype html>")
    assert not re.search(r"<script|https?://|\bon\w+=|@import|url\(", text)


def test_the_page_says_it_all():
    text = page(REPORTS["many"])
    for said in (
        *(
            "1 error, 1 warning, 1 target not analysed",
            "saturating-chain",
            "confirmed by probe",
            "<mark>nn.Sigmoid()</mark>",
        ),
        *("× 6.3e-18", "× 0.49", "replace Sigmoid by ReLU, kaiming init", "16 more layers", "refuted by probe"),
        *("cannot import name", "gradients reach all 60 layers", "130 GB", "gradlint models/deep_sigmoid.py"),
    ):
        assert said in re.sub(r"&#39;", "'", text)


def test_a_number_that_only_a_fix_has_is_shown_with_what_it_was_before():
    fix = replace(CHAIN.fixes[0], measured_before={"health": "error"}, measured_after={"health": "healthy"})
    text = page(Report((replace(ILL, findings=(replace(CHAIN, fixes=(fix,)),)),), "0.1.0", settings=SETTINGS))
    assert re.search(r"<td>whole model</td><td[^>]*></td><td[^>]*>error</td><td[^>]*>healthy</td>", text)


def test_links_of_the_layer_table_lead_to_findings():
    text = page(REPORTS["ill"])
    targets = set(re.findall(r'id="([^"]+)"', text))
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert "GL101-1-1" in links and links <= targets


def test_the_pages_parts_are_neither_repeated_nor_too_large():
    text = page(Report((deep(400),), "0.1.0", settings=SETTINGS))
    identifiers = re.findall(r' id="([^"]+)"', text)
    assert len(identifiers) == len(set(identifiers))
    assert len(text) < 1_000_000


@pytest.mark.parametrize("write", [page, fragment])
def test_text_of_the_user_is_never_markup(write):
    hostile = replace(
        CHAIN,
        message=HOSTILE,
        module=HOSTILE,
        folded=(HOSTILE,),
        fixes=(replace(CHAIN.fixes[0], title=HOSTILE, price=HOSTILE),),
    )
    layer = replace(ILL.layers[0], module=HOSTILE, op=HOSTILE)
    target = replace(
        ILL, target=HOSTILE, findings=(hostile,), layers=(layer,), notes=(HOSTILE,), unknown=((HOSTILE, 1),)
    )
    assert "<script" not in write(Report((target,), HOSTILE, settings={"loss": HOSTILE}))


def test_the_notebook_fragment_styles_itself_alone():
    text = fragment(REPORTS["ill"], Sources(SOURCES))
    assert text.strip().startswith('<div class="gl"><style>') and text.strip().endswith("</div>")
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    selectors = [part.strip() for block in re.findall(r"([^{}]+)\{", style) for part in block.split(",")]
    assert all(selector.startswith((".gl ", ".gl-", ".gl{")) or selector == ".gl" for selector in selectors)
    assert "<mark>nn.Sigmoid()</mark>" in text


# -- the ribbon --------------------------------------------------------------------------------------------------------


def drawing(target):
    return ElementTree.fromstring(ribbon.svg(target))


def test_every_layer_can_be_reached_by_pointer_and_keyboard_and_names_its_numbers():
    columns = drawing(ILL).findall("g[@class='layer']")
    assert len(columns) == len(ILL.layers)
    assert all(column.get("tabindex") == "0" for column in columns)
    assert columns[0].get("aria-label") == (
        "hidden.0 linear — on the lossy stretch: gradient measured 3.4e-19, predicted 4.4e-19, after the fix 0.03; "
        "activation measured 0.4, predicted 0.4, after the fix 0.9"
    )


def lines(target):
    """The style of each line of the drawing → its points, without the legend's."""
    paths = [path for path in drawing(target).findall("path") if "h22" not in path.get("d")]
    return {path.get("class"): path.get("d") for path in paths}


def test_the_layers_before_and_after_the_fix_are_drawn_on_one_axis():
    drawn = lines(ILL)
    assert list(drawn) == ["act guess", "grad guess", "act", "grad", "act after", "grad after"]
    first = {style: float(re.match(r"M[\d.]+ ([\d.]+)", path)[1]) for style, path in drawn.items()}
    assert first["grad after"] < first["grad"] - 100  # higher up
    assert "replace Sigmoid by ReLU, kaiming init”" in page(Report((ILL,), "0.1.0", settings=SETTINGS))


@pytest.mark.parametrize("change", [{"severity": "warning"}, {"suppression": Suppression("comment")}, {"fixes": ()}])
def test_the_fix_that_is_drawn_is_that_of_the_worst_finding_that_stands(change):
    other = replace(CHAIN, rule="other", fixes=(replace(CHAIN.fixes[0], title="another"),))
    assert chart.remedy(replace(ILL, findings=(CHAIN, other)))[1] == CHAIN.fixes[0]
    assert chart.remedy(replace(ILL, findings=(replace(CHAIN, **change), other)))[1].title == "another"


def test_without_a_fix_nothing_is_drawn_of_one():
    plain = replace(ILL, findings=(replace(CHAIN, fixes=()),))
    assert not any("after" in style for style in lines(plain))
    assert "after the fix" not in page(Report((plain,), "0.1.0", settings=SETTINGS))


def test_the_lossy_stretch_is_shaded_and_nothing_else():
    (band,) = drawing(deep(400)).findall("rect[@class='lossy']")
    room = (ribbon.WIDTH - ribbon.LEFT - ribbon.RIGHT) / 400
    assert float(band.get("width")) == pytest.approx(40 * room, abs=0.5)
    assert not drawing(HEALTHY).findall("rect[@class='lossy']")


def test_four_hundred_layers_get_lines_without_dots_and_labels_that_do_not_touch():
    image = drawing(deep(400))
    assert not image.findall("circle")
    labels = [
        text
        for text in image.findall("text")
        if float(text.get("y")) > ribbon.HEIGHT - ribbon.BOTTOM and not text.get("text-anchor")
    ]
    assert [text.text for text in labels] == ["stage0", "stage1", "stage2", "stage3"]
    starts = [float(text.get("x")) for text in labels]
    assert all(b - a > 6.6 * len("stage0") for a, b in itertools.pairwise(starts))


def test_many_layers_of_one_list_are_named_by_some_of_its_parts():
    layers = [Layer(f"blocks.{i // 5}.fc{i % 5}", "x", "linear", None, None, None, None, None) for i in range(400)]
    named = ribbon.marks([*layers, Layer("head", "x", "linear", None, None, None, None, None)])
    assert named[0] == ("blocks.0", 0, 5) and [name for name, _, _ in named[:3]] == [
        "blocks.0",
        "blocks.6",
        "blocks.12",
    ]
    assert len(named) <= ribbon.MOST_GROUPS
    assert [name for name, _, _ in ribbon.groups(layers)] == ["blocks"]


def test_functional_operations_between_layers_do_not_cut_the_axis():
    modules = ["layers.0", "", "layers.1", "", "block", "block.act", "block", "head"]
    layers = [Layer(module, "x", "linear", None, None, None, None, None) for module in modules]
    assert ribbon.groups(layers) == [
        ("layers.0", 0, 2),
        ("layers.1", 2, 4),
        ("block", 4, 5),
        ("block.act", 5, 7),
        ("head", 7, 8),
    ]
    assert ribbon.groups(layers * 20)[0] == ("layers", 0, 4)


def test_zero_and_unknown_gradients_are_drawn_as_such():
    layers = tuple(
        Layer(f"m{i}", "linear", "linear", None, None, None, rms, None, index=i)
        for i, rms in enumerate([1e-3, 0.0, None, math.inf, 1e-2])
    )
    image = drawing(replace(ILL, layers=layers, findings=()))
    assert len(image.findall("circle[@class='zero']")) == 1
    (line,) = (
        path
        for path in image.findall("path")
        if path.get("class") == "grad" and path.get("d").count("M") > 0 and "h22" not in path.get("d")
    )
    assert line.get("d").count("M") == 2
    assert ribbon.svg(replace(ILL, layers=())) == ""


# -- the loss of a model and of the same with a fix --------------------------------------------------------------------


def test_the_losses_without_and_with_a_fix_are_drawn_on_one_axis_and_end_where_the_run_did():
    run = Trained("sgd", 0.01, "made up", (2.0, 2.0, 2.0, 2.0, 2.0), (4.0, 1.0, math.nan))
    image = ElementTree.fromstring(losses_svg.svg(run))
    drawn = {path.get("class"): path.get("d") for path in image.findall("path") if "h20" not in path.get("d")}
    ends = {style: [float(x) for x in re.findall(r"[ML]([\d.]+)", path)][-1] for style, path in drawn.items()}
    room = losses_svg.WIDTH - losses_svg.LEFT - losses_svg.RIGHT
    assert ends == {"before": losses_svg.LEFT + room, "mended": losses_svg.LEFT + room / 4}  # its second step of five
    assert "log axis" in "".join(image.itertext()) and "5 steps of sgd at 0.01" in image.get("aria-label")
    assert losses_svg.svg(Trained("sgd", 0.01, "made up", (math.nan,), ())) == ""
    flat = losses_svg.svg(Trained("adam", 1e-3, "given", (0.0, 0.0), (0.0, 0.0)))
    assert "log axis" not in flat and "nan" not in flat


def test_what_training_showed_of_a_fix_is_told_and_drawn():
    text = page(REPORTS["ill"])
    assert "sgd at 0.01: loss 2.31" in text and text.count('class="gl-loss"') == 2


# -- how to do it again ------------------------------------------------------------------------------------------------


def test_the_command_repeats_what_was_asked():
    settings = vars(Settings(inputs=("x=float32[8,64]~N(0,1)",), loss="ce", probe=False, seed=3, output_format="html"))
    report = Report((ILL, ILL), "0.1.0", settings=settings)
    assert (
        command(report)
        == "gradlint models/deep_sigmoid.py --input 'x=float32[8,64]~N(0,1)' --loss ce --seed 3 --no-probe"
    )


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("scheme", [0, 1])
def test_a_browser_draws_the_ribbon_shows_numbers_on_focus_and_has_contrast(scheme, tmp_path):
    """`scheme` 0 is dark, 1 light (Blink's preferredColorScheme)."""
    script = """<script>
      const layers = document.querySelectorAll('.layer'), tip = layers[7].querySelector('.tip');
      const before = getComputedStyle(tip).visibility; layers[7].focus();
      const light = c => c.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3;
      const body = getComputedStyle(document.body), wide = document.documentElement.scrollWidth <= innerWidth;
      document.title = ['RESULT', layers.length, before, getComputedStyle(tip).visibility,
        document.querySelector('.gl-ribbon').getBoundingClientRect().width > 700, wide,
        light(body.backgroundColor) > 128, Math.abs(light(body.color) - light(body.backgroundColor)) > 120].join(' ');
    </script></body>"""
    path = tmp_path / "page.html"
    path.write_text(page(Report((deep(400),), "0.1.0", settings=SETTINGS)).replace("</body>", script), encoding="utf-8")
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--blink-settings=preferredColorScheme={scheme}",
        "--window-size=1000,800",
    ]
    done = subprocess.run([CHROMIUM, *options, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=60)
    (result,) = re.findall(r"<title>RESULT (.*)</title>", done.stdout)
    assert result == f"400 hidden visible true true {str(scheme == 1).lower()} true"
