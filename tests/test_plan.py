"""What a run lints: folders walked as git does, and the models of the configuration."""

from pathlib import Path

import pytest

from gradlint.config import Model, Settings
from gradlint.error import UsageError
from gradlint.plan import Job, plan
from gradlint.source.walk import model_files

NET = (
    "from torch import nn\n\n\nclass Net(nn.Module):\n    def forward(self, x):\n        return x\n\n\nmodel = Net()\n"
)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """tree(path=text, …) writes files below the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def walked(folder=".", **options):
    return [path.as_posix() for path in model_files(Path(folder), **options)]


def test_a_folder_is_walked_as_git_does(tree):
    tree(
        {
            ".git/info/exclude": "secret.py\n",
            ".gitignore": "gen/\n*_pb2.py\n!keep_pb2.py\n",
            "pkg/.gitignore": "/local.py\n",
        }
    )
    kept = ["a.py", "keep_pb2.py", "pkg/local/b.py", "pkg/sub/local.py"]
    tree(dict.fromkeys([*kept, "gen/c.py", "x_pb2.py", "secret.py", "pkg/local.py", "pkg/gen/d.py"], ""))
    tree(dict.fromkeys([".hidden/e.py", "venv2/pyvenv.cfg", "venv2/f.py", "node_modules/g.py", "notes.txt"], ""))
    assert walked() == kept
    assert walked("pkg") == ["pkg/local/b.py", "pkg/sub/local.py"]
    assert "gen/c.py" in walked(gitignore=False)


def test_a_folder_that_git_ignores_is_walked_when_it_is_named(tree):
    tree({".git/HEAD": "", ".gitignore": "gen/\n", "gen/c.py": ""})
    assert walked("gen") == ["gen/c.py"]


def test_excluded_patterns_count_from_the_configuration(tree):
    tree(dict.fromkeys(["a/legacy/x.py", "a/y.py", "legacy/z.py"], ""))
    assert walked(exclude=["/a/legacy"], root=Path()) == ["a/y.py", "legacy/z.py"]
    assert walked("a", exclude=["legacy/"], root=Path()) == ["a/y.py"]


def test_files_without_a_model_are_skipped_in_folders_and_where_they_may_be_named(tree):
    tree({"net.py": NET, "plain.py": "x = 1\n"})
    assert [getattr(entry, "status", "job") for entry in plan(["."], Settings())] == ["job", "skipped"]
    (failed,) = plan(["plain.py"], Settings())
    (skipped,) = plan(["plain.py"], Settings(skip_modelless=True))
    assert (failed.status, skipped.status) == ("failed", "skipped")


def jobs(texts, *models, **options):
    entries = plan(texts, Settings(models=models, **options))
    assert all(isinstance(entry, Job) for entry in entries), entries
    return [(entry.target.text, entry.settings) for entry in entries]


def test_without_targets_the_configured_models_are_linted(tree, tmp_path):
    tree({"sub/net.py": NET})
    models = (Model("net.py:Net()", {"loss": "ce"}), Model("net.py:model"))
    (first, second) = jobs([], *models, root=str(tmp_path / "sub"))
    assert (first[0], first[1].loss) == ("sub/net.py:Net()", "ce")
    assert (second[0], second[1].loss) == ("sub/net.py:model", None)
    with pytest.raises(UsageError, match="nothing to lint"):
        plan([], Settings())


def test_a_file_whose_models_have_tables_is_linted_as_they_say(tree):
    tree({"net.py": NET})
    tables = (
        Model("net.py", {"inputs": ("float32[2]",)}),
        Model("net.py:Net()", {"loss": "mse", "ignores": {"init": "why"}}),
    )
    ((text, settings),) = jobs(["net.py"], *tables)
    assert (text, settings.loss, settings.inputs) == ("net.py:Net()", "mse", ("float32[2]",))
    assert settings.inputs_from == "config"
    assert [(ignore.rule, ignore.reason) for ignore in settings.ignores] == [("init", "why")]


@pytest.mark.parametrize(
    ("table", "target", "holds"),
    [
        ("net.py:Net", "net.py:Net( )", True),
        ("net.py:Net()", "net.py:Net( )", True),
        ("net.py:Net()", "net.py:model", False),
        ("net.py", "net.py:model", True),
        ("other.py:model", "net.py:model", False),
    ],
)
def test_a_table_holds_for_its_expression_however_it_is_spelt(tree, table, target, holds):
    tree({"net.py": NET, "other.py": NET})
    ((_, settings),) = jobs([target], Model(table, {"loss": "mse"}))
    assert (settings.loss == "mse") is holds


@pytest.mark.parametrize(
    ("expression", "hint"),
    [
        ("GPTT", "did you mean GPT?"),
        ("Other(n=3)", "it defines GPT, make"),
        ("Other.load()[0]", "it defines GPT, make"),
        ("make()", None),
        ("inner", None),
        ("GPT(nn.ReLU)", None),
        ("list(map(GPT, [1]))[0]", None),
    ],
)
def test_a_name_that_the_file_does_not_have_is_told_without_building_anything(tmp_path, monkeypatch, expression, hint):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(
        "from torch import nn\n\n\nclass GPT(nn.Module): ...\n\n\ndef make():\n    inner = GPT()\n    return inner\n"
    )
    (entry,) = plan([f"net.py:{expression}"], Settings())
    if hint is None:
        assert isinstance(entry, Job)
    else:
        assert entry.error.hint == hint and "in net.py" in entry.error.message


def test_a_star_import_may_bring_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("import torch\nfrom blocks import *\n")
    (entry,) = plan(["net.py:Net"], Settings())
    assert isinstance(entry, Job)
