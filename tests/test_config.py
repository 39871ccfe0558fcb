"""The configuration file: where it is found, what it may say, and how precisely it is refused."""

import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import jsonschema
import pytest

from gradlint import config_rules, config_schema
from gradlint.config import OUTSIDE, Ignore, Model, Settings
from gradlint.config_file import find, load, locate, merge, nearest, resolve, start
from gradlint.config_keys import KEYS, memory
from gradlint.error import UsageError

EVERY_KEY = """
[project]
name = "x"

[tool.gradlint]
select = ["vanishing", "GL201"]
ignore = "missing-skip"
inputs = ["x=float32[8,3]"]
init = { num_classes = 10, name = "a" }
loss = "mypkg.losses:focal"
device = "cuda:0"
seed = 3
seeds = 2
dtype = "fp16"
optimizer = "adam"
data = "mypkg.data:batches"
steps = 20
rate = 0.01
probe = false
try-fixes = false
prove = true
fail-on = "error"
output-format = "json"
output = ["r.json", "github=g.txt"]
timeout = 60
memory = "4G"
jobs = 2
weights = "w.pt"
all-classes = true
color = "never"
exclude = ["legacy/"]
respect-gitignore = false
cache = false
cache-dir = "c"
baseline = "b.json"
severity = { missing-skip = "error" }
per-path-ignores = { "old/**" = ["vanishing"], "a.py" = { dead-units = "on purpose" } }
per-module-ignores = { "encoder.*" = "init" }
rules = { dead-units = { share = 0.5 } }
model = [{ target = "m.py:Net", inputs = { x = "float32[2]" }, init = ["n=1"], loss = "ce", ignore = ["output"] }]
"""


def write(folder, text, name="pyproject.toml"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_every_key_sets_its_field(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, EVERY_KEY)
    assert all(f"\n{key} = " in EVERY_KEY for key in KEYS)
    assert resolve({}, file=path) == Settings(
        select=("vanishing", "GL201"),
        ignore=("missing-skip",),
        inputs=("x=float32[8,3]",),
        inputs_from="config",
        init=("num_classes=10", "name='a'"),
        loss="mypkg.losses:focal",
        device="cuda:0",
        seed=3,
        seeds=2,
        dtype="fp16",
        optimizer="adam",
        data="mypkg.data:batches",
        steps=20,
        rate=0.01,
        probe=False,
        fix=False,
        prove=True,
        fail_on="error",
        output_format="json",
        output=("r.json", "github=g.txt"),
        timeout=60,
        memory=4 * 2**30,
        jobs=2,
        weights="w.pt",
        all_classes=True,
        color="never",
        root=str(tmp_path),
        exclude=("legacy/",),
        gitignore=False,
        cache=False,
        cache_dir="c",
        baseline="b.json",
        severities={"missing-skip": "error"},
        ignores=(
            Ignore("vanishing", path="old/**"),
            Ignore("dead-units", "on purpose", path="a.py"),
            Ignore("init", module="encoder.*"),
        ),
        options={"dead-units": {"share": 0.5}},
        models=(
            Model("m.py:Net", {"inputs": ("x=float32[2]",), "init": ("n=1",), "loss": "ce", "ignores": {"output": ""}}),
        ),
    )


def test_keys_name_fields_of_settings_and_so_do_those_that_change_no_result():
    names = {field.name for field in fields(Settings)}
    assert {key.field for key in KEYS.values()} | OUTSIDE <= names


def test_paths_of_the_file_count_from_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "sub", "baseline = 'b.json'\noutput = ['sarif=out/r']\n", "gradlint.toml")
    settings = resolve({}, file=path)
    assert (settings.baseline, settings.output) == ("sub/b.json", ("sarif=sub/out/r",))


def test_what_the_command_line_tells_wins_over_model_tables(tmp_path):
    text = "[[tool.gradlint.model]]\ntarget = 'm.py'\nloss = 'ce'\ninputs = ['float32[2]']\n"
    settings = resolve({"loss": "mse"}, file=write(tmp_path, text))
    assert settings.models == (Model("m.py", {"inputs": ("float32[2]",)}),)


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path):
    path = write(tmp_path, "[tool.gradlint]\nseed = 3\nprobe = false\n")
    settings = resolve({"seed": 7, "probe": None}, file=path)
    assert (settings.seed, settings.probe, settings.seeds) == (7, False, 5)


# -- finding the file --------------------------------------------------------------------------------------------------


def test_the_nearest_file_with_our_table_counts(tmp_path):
    far = write(tmp_path, "[tool.gradlint]\nseed = 1\n")
    write(tmp_path / "a", "[tool.other]\n")
    assert nearest(tmp_path / "a") == far
    own = write(tmp_path / "a", "seed = 2\n", "gradlint.toml")
    assert nearest(tmp_path / "a" / "b") == own
    assert load(own).fields["seed"] == 2


def test_the_search_begins_at_the_targets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("p/a.py", "p/b/c.py"):
        write(tmp_path, "", name)
    assert start(["p/a.py:Net(1)", "p/b"]) == tmp_path / "p"
    assert start(["p/b/c.py"]) == tmp_path / "p" / "b"
    assert start(["torchvision.models:resnet18"]) == tmp_path
    write(tmp_path / "p", "seed = 9\n", "gradlint.toml")
    assert resolve({}, ["p/b/c.py"]).seed == 9
    assert resolve({}, ["p/b/c.py"], isolated=True).seed == 0


# -- refusing it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint", "line"),
    [
        ("[tool.gradlint]\n\nsedes = 3\n", "unknown key 'sedes' in [tool.gradlint]", "did you mean seeds?", 3),
        ("[tool.gradlint]\nxyz = 3\n", "unknown key 'xyz'", "known: select, ignore", 2),
        ("[tool.gradlint.sedes]\na = 3\n", "unknown key 'sedes'", "did you mean seeds?", 1),
        ("[tool.gradlint]\nseed = '3'\n", 'seed in [tool.gradlint] is an integer of at least 0, not "3"', "", 2),
        ("[tool.gradlint]\nseed = true\n", "not true", "", 2),
        ("[tool.gradlint]\nseeds = 0\n", "seeds in [tool.gradlint] is an integer of at least 1", "", 2),
        ("[tool.gradlint]\nselect = [1]\n", "is a list of strings", "", 2),
        ("[tool.gradlint]\nprobe = 1\n", "is true or false", "", 2),
        ("[tool.gradlint]\nfail-on = 'fatal'\n", 'is one of error, warning, info, never, not "fatal"', "", 2),
        ("[tool.gradlint]\nfail-on = 'eror'\n", 'not "eror"', "did you mean error?", 2),
        ("[tool.gradlint]\nfail-on = ['error']\n", "is one of error, warning, info, never", "", 2),
        ("[tool.gradlint]\nloss = 'bce_logit'\n", "is one of ce, nll", "did you mean bce_logits?", 2),
        ("[tool.gradlint]\ndevice = 'gpu'\n", "is auto, cpu, cuda", "", 2),
        ("[tool.gradlint]\nmemory = 'much'\n", 'is a size such as "4G"', "", 2),
        ("[tool.gradlint]\ninit = ['10']\n", "is a table of arguments", "", 2),
        ("[tool.other]\nseed = 'x'\n[tool.gradlint]\nseed = 'y'\n", 'not "y"', "", 4),
        ("[tool]\ngradlint = 3\n", "[tool.gradlint] is a table", "", 2),
        ("[tool.gradlint]\nseed = \n", "is not valid TOML", "", 2),
        ("[tool.gradlint.severity]\n\ndead-units = 'fatal'\n", 'is one of error, warning, info, not "fatal"', "", 3),
        ("[tool.gradlint.severity]\ndead-units = 'warn'\n", 'not "warn"', "did you mean warning?", 2),
        ("[tool.gradlint.per-path-ignores]\n'a.py' = [1]\n", "a.py is a list of rules, or a table", "", 2),
        (
            "[tool.gradlint.rules]\ndead-units = 3\n",
            "dead-units is a table of options, not 3 in [tool.gradlint.rules]",
            "",
            2,
        ),
        ("[[tool.gradlint.model]]\nloss = 'ce'\n", "a model has a target", "", 1),
        (
            "[[tool.gradlint.model]]\ntarget = 'a.py'\n[[tool.gradlint.model]]\ntarget = 'b.py'\nlos = 'ce'\n",
            "unknown key 'los' of a model",
            "did you mean loss?",
            5,
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, text, message, hint, line):
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load(path)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert (caught.value.span.path, caught.value.span.line) == (str(path), line)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load(tmp_path / "none.toml")
    path = tmp_path / "gradlint.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="cannot read"):
        load(path)


@pytest.mark.parametrize(
    ("text", "size"), [("4G", 4 * 2**30), ("512 MiB", 2**29), ("1.5k", 1536), (4096, 4096), ("7b", 7)]
)
def test_sizes(text, size):
    assert memory(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "4X", True])
def test_what_is_no_size(text):
    with pytest.raises(ValueError):
        memory(text)


def test_reading_settings_imports_no_torch(tmp_path):
    path = write(tmp_path, EVERY_KEY)
    code = (
        "import sys, pathlib; from gradlint.config_file import resolve; resolve({}, file=pathlib.Path(sys.argv[1])); "
        + ("sys.exit('torch' in sys.modules)")
    )
    assert subprocess.run([sys.executable, "-c", code, path], cwd=Path(__file__).parents[1]).returncode == 0


# -- rules of the file -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint", "line"),
    [
        ("select = ['vanishing', 'initt']\n", "no rule, code or family is called 'initt'", "did you mean init?", 1),
        ("[severity]\ndead-unit = 'error'\n", "is called 'dead-unit'", "did you mean dead-units?", 2),
        ("[rules.dead-units]\nshare = 0.5\nlimit = 3\n", "rule dead-units has no option 'limit'", "share", 3),
        ("[rules.dead-units]\nshare = 'x'\n", "option share of rule dead-units takes a float", "", 2),
        ("[per-path-ignores]\n'a.py' = ['dead']\n", "is called 'dead'", "", 2),
        ("[per-module-ignores]\n'a.b' = { dead = 'x' }\n", "is called 'dead'", "", 2),
        ("[[model]]\ntarget = 'a.py'\nignore = ['dead']\n", "is called 'dead'", "", 3),
    ],
)
def test_rules_and_options_that_do_not_exist_are_refused_on_their_line(tmp_path, text, message, hint, line):
    configuration = find(file=write(tmp_path, text, "gradlint.toml"))
    with pytest.raises(UsageError) as caught:
        config_rules.check(merge(configuration, {}), configuration)
    assert message in caught.value.message and hint in caught.value.hint
    assert caught.value.span.line == line


def test_a_rule_of_the_command_line_has_no_line(tmp_path):
    configuration = find(file=write(tmp_path, "seed = 1\n", "gradlint.toml"))
    with pytest.raises(UsageError) as caught:
        config_rules.check(merge(configuration, {"select": ("initt",)}), configuration)
    assert caught.value.span is None


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (("a",), 2),
        (("a", "b"), 3),
        (("x",), 1),
        (("t", 1, "k"), 7),
        (("t", 0), 4),
        (("q.r", "s"), 9),
        (("in", "z"), 10),
    ],
)
def test_a_key_is_located_in_tables_arrays_of_tables_and_inline_tables(keys, line):
    text = "# x = 1\n[a]\nb = 1\n[[t]]\nk = 1\n[[t]]\nk = 2\n['q.r']\ns = 1\n[in]\n"
    assert locate(text, keys) == line


# -- the schema --------------------------------------------------------------------------------------------------------


def test_the_committed_schema_is_fresh(request):
    path = Path(config_schema.__file__).with_name(config_schema.FILE)
    if request.config.getoption("--update"):
        path.write_text(config_schema.text(), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == config_schema.text()


def test_the_schema_accepts_what_the_reader_accepts_and_refuses_what_it_refuses():
    schema = config_schema.tool_schema("gradlint")
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(tomllib.loads(EVERY_KEY)["tool"]["gradlint"], schema)
    for wrong in ({"sedes": 1}, {"seed": "3"}, {"model": [{"loss": "ce"}]}, {"rules": {"dead-units": {"share": "x"}}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
