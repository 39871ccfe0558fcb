"""Every format is a pure function of the report: the golden files under formats/ are what users see."""

import io
import json
import math
from dataclasses import replace
from importlib import resources

import jsonschema
import pytest

from gradlint import config
from gradlint.error import UsageError
from gradlint.finding import Factor, Fix, Suppression
from gradlint.graph.ir import Span
from gradlint.report import FORMATS, chain, chart, colored, number, outcome, output, render, sarif
from gradlint.report.json import document
from gradlint.report.snippet import Mark, SourceLine, clipped, snippets
from gradlint.report.source import Sources
from gradlint.report.wording import effects, headline, prices
from gradlint.result import Layer, Report
from tests.formats.samples import CHAIN, HEALTHY, ILL, REFUTED, REPORTS, SETTINGS, SOURCES, UNPROBED, WARNING

SUFFIX = {
    "full": ".txt",
    "concise": ".txt",
    "json": "",
    "json-lines": "",
    "sarif": "",
    "github": ".txt",
    "gitlab": ".json",
    "junit": ".xml",
    "markdown": ".md",
    "html": "",
}


@pytest.fixture(autouse=True)
def same_everywhere(monkeypatch):
    """Neither the CI system that runs the tests nor the wording of a rule's page shows in a golden output."""
    for name in ("GITHUB_WORKSPACE", "CI_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sarif, "page", lambda name: f"# {name}\n\n## What it does\n\nFinds it. And more.\n\n## Why\n")


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Latin(io.StringIO):
    encoding = "latin-1"


def shown(report, format="full", stream=None, **options):
    stream = stream or io.StringIO()
    render(report, format, stream, sources=Sources(SOURCES), **options)
    return stream.getvalue()


def report_of(*findings, **changes):
    return Report((replace(ILL, findings=findings, **changes),), "0.1.0", settings=SETTINGS)


@pytest.mark.parametrize(
    ("format", "name"),
    [
        *(("full", name) for name in ("ill", "healthy", "stepped", "failed", "many", "usage")),
        *((format, name) for format in SUFFIX for name in ("small",) if format != "full"),
    ],
)
def test_output(format, name, golden):
    golden(f"{name}.{format}{SUFFIX[format]}", shown(REPORTS[name], format))


def test_every_format_has_a_golden_output_and_can_be_configured():
    assert set(FORMATS) == set(SUFFIX) == set(config.FORMATS)


# -- full --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REPORTS)
def test_without_a_terminal_nothing_is_coloured_and_no_line_is_longer_than_120_columns(name):
    text = shown(REPORTS[name])
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_long_line_of_source_is_cut_around_what_it_points_at():
    text = f"        x = {'a + ' * 40}nn.Sigmoid()(x){' + b' * 40}"
    start = text.index("nn.Sigmoid()")
    line = SourceLine(3, text, (Mark(start, start + 12, "slope", primary=True),))
    cut = clipped(line, 4, 60)
    (mark,) = cut.marks
    assert len(cut.text) == 60 and cut.text[0] == cut.text[-1] == "…"
    assert cut.text[mark.start : mark.end] == "nn.Sigmoid()"
    assert clipped(line, 4, 1000).text == text[4:]


def test_evidence_is_a_table_with_predicted_beside_measured_and_then_the_verdict():
    lines = [line.split("=", 1)[-1].split() for line in shown(report_of(CHAIN)).splitlines()]
    at = lines.index(["evidence:", "predicted", "measured"])
    assert lines[at + 1 : at + 4] == [
        ["gradient", "passed", "back", "×", "5.0e-18", "×", "6.3e-18"],
        ["seeds", "–", "5"],
        ["verdict:", "confirmed", "by", "probe"],
    ]


def test_a_fix_is_told_by_the_number_of_the_claim_and_the_health_of_the_model():
    before = {"activation-change": 2.0, "gradient-change": -17.2, "health": "error"}
    fix = Fix("x", before, {"activation-change": 0.0, "gradient-change": -0.31, "health": "healthy"})
    assert [(e.label, e.before, e.after) for e in effects(CHAIN, fix)] == [
        ("gradient passed back", "× 6.3e-18", "× 0.49"),
        ("whole model", "error", "healthy"),
    ]
    same = replace(fix, measured_after={**before, "gradient-change": -17.2001})
    assert effects(CHAIN, same) == []
    poked = replace(fix, measured_before={"finite": False, **before}, measured_after={"finite": True, **before})
    assert [effect.label for effect in effects(CHAIN, poked)] == ["every number finite"]


def test_what_every_fix_costs_is_said_once():
    fixes = [Fix("a", {}, {}, "new weights; slower"), Fix("b", {}, {}, "slower"), Fix("c", {}, {}, "more; slower")]
    assert prices(fixes) == (["new weights", "", "more"], "slower")
    assert prices(fixes[:1]) == (["new weights; slower"], "")
    assert shown(report_of(replace(CHAIN, fixes=tuple(fixes)))).count("slower") == 1


def test_the_reason_of_the_loss_is_said_where_the_loss_is_and_not_in_a_note():
    text = shown(report_of(notes=("loss ce: logits over 10 classes", "another")))
    assert "loss ce 2.31 (logits over 10 classes)" in text
    assert [line for line in text.splitlines() if line.startswith("note:")] == ["note: another"]


FADED = replace(HEALTHY.layers[0], gradient_rms=1e-29)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ((HEALTHY,), "gradients reach every layer"),
        ((replace(HEALTHY, layers=(HEALTHY.layers[0], FADED, *HEALTHY.layers[1:])),), "nothing found"),
        ((HEALTHY, UNPROBED), "1 warning"),
        ((HEALTHY, replace(UNPROBED, findings=())), "nothing found; not every model was measured"),
        ((replace(ILL, findings=(replace(CHAIN, suppression=Suppression("comment")),)),), "nothing left to report"),
        ((replace(HEALTHY, status="skipped"),), "no model found"),
        ((), "nothing analysed"),
    ],
)
def test_the_headline_claims_nothing_that_was_not_measured(targets, said):
    assert headline(Report(targets, "0.1.0")).startswith(said)


def test_units_are_explained_where_they_are_used():
    assert "a decade is a factor of 10" in shown(report_of(CHAIN))
    assert "decade" not in shown(report_of(replace(WARNING, fixes=()), layers=()))


def test_a_terminal_gets_colour_links_and_lines_that_fit(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = shown(REPORTS["ill"], stream=Terminal(), width=80)
    assert "\x1b[1;31merror[saturating-chain]" in text
    assert "\x1b]8;" in text and "file://" in text
    plain = shown(REPORTS["ill"], stream=Terminal(), width=80, color="never")
    labels = "   |"  # an underline's label is not broken
    assert max(len(line) for line in plain.splitlines() if not line.startswith(labels)) <= 80


def test_a_stream_without_unicode_gets_ascii():
    shown(REPORTS["many"], stream=(stream := Latin()))
    text = stream.getvalue()
    text.encode("ascii")
    assert "x 5.0e-18" in text


def test_refuted_and_info_findings_are_one_line_unless_verbose():
    info = replace(REFUTED, verdict="confirmed", reason="")
    assert "info[missing-skip]" in (brief := shown(report_of(info)))
    assert "gradlint rule missing-skip" not in brief
    assert "gradlint rule missing-skip" in shown(report_of(info), verbose=True)


def test_quiet_hides_what_is_below_the_threshold_and_the_chart():
    text = shown(report_of(CHAIN, replace(WARNING, severity="info")), threshold="warning")
    assert "saturating-chain" in text and "dead-units" not in text and "each layer" not in text


def test_a_missing_source_file_costs_the_lines_alone():
    stream = io.StringIO()
    render(REPORTS["ill"], "full", stream, sources=Sources(dict.fromkeys(SOURCES, "")))
    assert "--> models/deep_sigmoid.py:12:27" in stream.getvalue()
    assert "^^^" not in stream.getvalue()


def test_markup_in_a_message_is_text():
    text = shown(report_of(replace(CHAIN, message="[bold]x[/bold] of type [link=a]")))
    assert "[bold]x[/bold] of type [link=a]" in text


# -- colour ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("color", "environment", "stream", "expected"),
    [
        ("auto", {"TERM": "xterm"}, Terminal(), True),
        ("auto", {"TERM": "dumb"}, Terminal(), False),
        ("auto", {"TERM": "xterm", "NO_COLOR": "1"}, Terminal(), False),
        ("auto", {"FORCE_COLOR": "1"}, io.StringIO(), True),
        ("auto", {}, io.StringIO(), False),
        ("always", {"NO_COLOR": "1"}, io.StringIO(), True),
        ("never", {"FORCE_COLOR": "1"}, Terminal(), False),
    ],
)
def test_colour_follows_the_option_then_the_environment_then_the_terminal(
    color, environment, stream, expected, monkeypatch
):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert colored(color, stream) is expected


# -- json --------------------------------------------------------------------------------------------------------------


def schema(strict=False):
    content = json.loads(resources.files("gradlint.report").joinpath("schema.json").read_text())
    return _closed(content) if strict else content


def _closed(node):
    """The schema with every object closed: no key is emitted that it does not describe."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(item) for key, item in node.items()}
    return {**closed, "additionalProperties": False} if "properties" in node and "type" in node else closed


@pytest.mark.parametrize("name", REPORTS)
def test_json_is_what_its_schema_says_and_no_more(name):
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(json.loads(shown(REPORTS[name], "json")), schema(strict=True))


def test_the_schema_refuses_what_the_contract_forbids():
    wrong = json.loads(shown(REPORTS["ill"], "json"))
    wrong["targets"][0]["findings"][0]["verdict"] = "maybe"
    with pytest.raises(jsonschema.ValidationError, match="maybe"):
        jsonschema.validate(wrong, schema())


def test_the_keys_of_the_contract_come_first_and_in_its_order():
    data = document(REPORTS["ill"])
    assert list(data)[:4] == ["schema", "tool", "targets", "summary"]
    (target,) = data["targets"]
    assert list(target)[:10] == [
        *("target", "path", "line", "status", "error", "inputs", "capture", "probe", "findings", "layers")
    ]
    assert list(target["findings"][0])[:12] == [
        *("code", "rule", "family", "severity", "verdict", "message", "module", "path", "line"),
        *("predicted", "measured", "fixes"),
    ]
    assert list(target["layers"][0])[:7] == [
        *("module", "op", "path", "line", "activation_rms", "gradient_rms", "predicted_gradient_rms")
    ]


def test_numbers_that_are_not_finite_are_null_and_text_is_unicode():
    finding = replace(
        CHAIN,
        message="a path \udcff",
        predicted={"a": math.nan, "b": math.inf},
        measured={"c": -math.inf},
        factors=(Factor(0, "m", "W", -math.inf),),
    )
    layer = Layer("m", "linear", "linear", None, None, math.inf, math.nan, 1e300)
    text = shown(report_of(finding, layers=(layer,)), "json")

    def refuse(constant):
        raise AssertionError(constant)

    data = json.loads(text, parse_constant=refuse)
    (target,) = data["targets"]
    (found,) = target["findings"]
    assert (found["predicted"], found["measured"]) == ({"a": None, "b": None}, {"c": None})
    assert found["factors"][0]["decades"] is None
    assert target["layers"][0]["activation_rms"] is None
    assert "?" in found["message"] and text.isascii()


def test_what_has_no_json_form_is_an_error():
    with pytest.raises(TypeError, match="object"):
        document(replace(REPORTS["ill"], settings={"x": object()}))


# -- the exit status ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "fail_on", "expected"),
    [
        (REPORTS["healthy"], "info", 0),
        (REPORTS["ill"], "warning", 1),
        (REPORTS["ill"], "never", 0),
        (report_of(WARNING), "error", 0),
        (report_of(WARNING), "warning", 1),
        (report_of(replace(CHAIN, verdict="refuted")), "info", 0),
        (REPORTS["many"], "never", 2),
        (REPORTS["failed"], "error", 2),
        (REPORTS["usage"], "error", 2),
        (Report((), "0.1.0"), "error", 2),
        (Report((replace(HEALTHY, status="skipped"),), "0.1.0"), "error", 2),
    ],
)
def test_exit_status(report, fail_on, expected):
    assert outcome.exit_code(report, fail_on) == expected


# -- the parts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *(
            (0.0, "0"),
            (1.0, "1"),
            (0.236, "0.236"),
            (999.6, "1000"),
            (9999.0, "9999"),
            (1e4, "1.0e+04"),
            (2.84e-8, "2.8e-08"),
        ),
        *(
            (math.inf, "inf"),
            (-math.inf, "-inf"),
            (math.nan, "nan"),
            (None, "unknown"),
            (True, "yes"),
            (3, "3"),
            ("ce", "ce"),
        ),
    ],
)
def test_numbers(value, expected):
    assert number.number(value) == expected


@pytest.mark.parametrize(
    ("decades", "expected"),
    [(-17.3, "5.0e-18"), (0.0, "1"), (-400.5, "3.2e-401"), (400.5, "3.2e+400"), (-math.inf, "0"), (math.inf, "inf")],
)
def test_powers_beyond_float64_stay_right(decades, expected):
    assert number.power(decades) == expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("gradient-change", -2.0, "gradient passed back × 0.01"),
        ("dead-share", 0.613, "units that are 0 for every sample 61.3 %"),
        ("layers_in_row", 20, "layers in row 20"),
        ("loss", "ce", "loss ce"),
        ("output-spread", None, "spread of the output between samples (std) unknown"),
    ],
)
def test_quantities_carry_their_label_and_unit(key, value, expected):
    assert number.quantity(key, value) == expected


def test_a_chain_lays_open_each_layer_and_folds_a_deep_middle():
    laid_open = chain.chain(CHAIN.factors)
    assert [row.module for row in (*laid_open.head, *laid_open.tail)] == [
        "hidden.38",
        "hidden.36",
        "hidden.2",
        "hidden.0",
    ]
    assert laid_open.folded == 16
    assert laid_open.total.layers == 20
    assert laid_open.total.decades == pytest.approx(sum(f.decades for f in CHAIN.factors))
    assert [label for label, _ in laid_open.head[0].factors] == ["σ′", "W"]


def test_a_short_chain_is_not_folded():
    laid_open = chain.chain(CHAIN.factors[:8])
    assert len(laid_open.head) == 4 and not laid_open.tail and not laid_open.folded
    assert chain.chain(()) is None


def test_the_chart_folds_a_deep_net_and_keeps_its_extremes():
    rows = chart.bars(HEALTHY, 30)
    assert len(rows) == 30 and sum(row.layers for row in rows) == 60
    sizes = [layer.gradient_rms for layer in HEALTHY.layers]
    assert min(row.measured[0] for row in rows) == pytest.approx(math.log10(min(sizes)))
    assert max(row.measured[2] for row in rows) == pytest.approx(math.log10(max(sizes)))


def test_the_chart_marks_the_stretch_of_standing_findings_alone():
    assert [row.lossy for row in chart.bars(ILL, 30)] == [True] * 20 + [False]
    calm = replace(ILL, findings=(replace(CHAIN, verdict="refuted"), replace(CHAIN, severity="info")))
    assert not any(row.lossy for row in chart.bars(calm, 30))


def test_layers_without_an_index_are_marked_by_module():
    target = replace(ILL, layers=tuple(replace(layer, index=None) for layer in ILL.layers))
    assert [row.lossy for row in chart.bars(target, 30)] == [True] * 20 + [False]


def test_the_axis_holds_every_value_on_whole_decades():
    rows = chart.bars(ILL, 30)
    axis = chart.axis(rows)
    assert (axis.low, axis.high) == (-19, -1)
    assert axis.place(-19, 50) == 0 and axis.place(-1, 50) == 49
    assert axis.place(-math.inf, 50) == 0
    assert 2 <= len(axis.ticks) <= 6


def test_a_gradient_that_is_zero_or_unknown_has_a_row():
    layers = (
        Layer("a", "linear", "linear", None, None, None, 0.0, None),
        Layer("b", "linear", "linear", None, None, None, None, 1e-3),
    )
    text = shown(report_of(CHAIN, layers=layers))
    assert "◂" in text and "0.0e+00" not in text
    assert [line.split()[-2:] for line in text.splitlines() if line.lstrip("▌ ").startswith(("a ", "b "))] == [
        ["0", "–"],
        ["–", "1.0e-03"],
    ]


def test_source_lines_carry_the_primary_mark_and_the_labels():
    (snippet,), left = snippets(CHAIN.span, CHAIN.related, Sources(SOURCES))
    assert [line.number for line in snippet.lines] == [11, 12]
    (mark,) = snippet.lines[1].marks
    assert snippet.lines[1].text[mark.start : mark.end] == "nn.Sigmoid()"
    assert mark.primary and mark.label == "slope ≤ 0.25, repeated 20 times"
    assert snippet.lines[0].marks[0].label == "gain 0.58 with default init (20 times)"
    assert left == 0


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [
        (2, 4, "é"),
        (2, 9, "f(g(x), 2)"),
        (2, 11, "g(x)"),
        (2, 0, "f(g(x), 2).y"),
        (2, 99, "f(g(x), 2).y"),
        (3, 0, "nn.ReLU()"),
        (4, 0, "x.mean(0) + 1"),
        (5, 0, "nn.Sequential("),
        (6, 0, "nn.ReLU(),"),
        (8, 0, "print(x)"),
    ],
)
def test_an_underline_is_the_call_or_the_value_of_the_line_and_columns_are_utf8_bytes(line, column, expected):
    text = """\
if x:
    é = f(g(x), 2).y
    layers.append(nn.ReLU())
    return x.mean(0) + 1
    self.net = nn.Sequential(
        nn.ReLU(),
    )
    print(x)
"""
    sources = Sources({"net.py": text})
    start, end = sources.underline(Span("net.py", line, column))
    assert sources.line("net.py", line)[start:end] == expected
    assert sources.column(Span("net.py", line, column)) == start + 1


def test_a_file_with_a_syntax_error_still_shows_its_lines():
    sources = Sources({"net.py": "def f(:\n    return 1\n"})
    assert sources.underline(Span("net.py", 1, 0)) == (0, 7)


@pytest.mark.parametrize(
    ("option", "format", "path"),
    [
        ("a.json", "json", "a.json"),
        ("out/b.txt", "full", "out/b.txt"),
        ("c.sarif", "sarif", "c.sarif"),
        ("d.sarif.json", "json", "d.sarif.json"),
        ("gitlab=e.json", "gitlab", "e.json"),
        ("x=e.md", "markdown", "x=e.md"),
    ],
)
def test_a_suffix_or_a_prefix_names_the_format_of_a_file(option, format, path):
    assert output(option) == (format, path)


def test_an_unknown_suffix_or_format_is_refused():
    with pytest.raises(UsageError, match=r"report\.docx"):
        output("report.docx")
    with pytest.raises(UsageError, match="word"):
        render(REPORTS["ill"], "word", io.StringIO())
