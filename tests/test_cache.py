"""A result is reused until a file that it read, a setting or a version changes."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from gradlint import cache, footprint
from gradlint.config import Settings
from gradlint.source.target import parse
from tests.formats.samples import ILL

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'rules'}"}


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("x = 1\n")
    return cache.Cache(tmp_path / ".gradlint_cache")


def put(store, settings, *files):
    store.put(parse("net.py"), settings, [ILL], {file: footprint.digest(file) for file in files})


def test_what_was_put_is_got(store):
    put(store, Settings(), "net.py")
    assert repr(store.get(parse("net.py"), Settings())) == repr((ILL,))  # a loss in it is NaN, unequal to itself


@pytest.mark.parametrize("change", [{"seed": 1}, {"inputs": ("float32[2]",)}, {"select": ("init",)}, {"probe": False}])
def test_a_setting_that_matters_changes_the_entry(store, change):
    put(store, Settings(), "net.py")
    assert store.get(parse("net.py"), Settings(**change)) is None


def test_a_setting_that_only_shows_does_not(store):
    put(store, Settings(), "net.py")
    assert store.get(parse("net.py"), Settings(fail_on="error", output_format="json", jobs=3, verbose=True)) is not None


@pytest.mark.parametrize("after", ["x = 2\n", None])
def test_a_file_that_changed_or_is_gone_ends_the_entry(store, after):
    Path("blocks.py").write_text("x = 1\n")
    put(store, Settings(), "net.py", "blocks.py")
    Path("blocks.py").unlink() if after is None else Path("blocks.py").write_text(after)
    assert store.get(parse("net.py"), Settings()) is None


def test_another_version_of_anything_ends_the_entry(store, monkeypatch):
    put(store, Settings(), "net.py")
    monkeypatch.setattr(cache, "stamp", lambda: "another")
    assert store.get(parse("net.py"), Settings()) is None


def test_a_damaged_entry_is_none(store):
    put(store, Settings(), "net.py")
    (entry,) = store.folder.glob("*.json")
    for text in ("{", "[]", "{}"):
        entry.write_text(text)
        assert store.get(parse("net.py"), Settings()) is None


def test_the_folder_keeps_itself_out_of_git_and_backups(store):
    put(store, Settings(), "net.py")
    assert "*" in (store.folder / ".gitignore").read_text().splitlines()
    assert (store.folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55")


def test_the_oldest_entries_go(store, monkeypatch):
    monkeypatch.setattr(cache, "MOST", 2)
    for seed in range(4):
        put(store, Settings(seed=seed), "net.py")
        newest = max(store.folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        os.utime(newest, (seed, seed))
    assert len(list(store.folder.glob("*.json"))) == 2
    assert store.get(parse("net.py"), Settings(seed=3)) is not None


# -- which files an analysis read --------------------------------------------------------------------------------------


def test_modules_and_data_files_that_were_read_are_noted_and_libraries_and_own_files_are_not(tmp_path):
    (tmp_path / "helper.py").write_text("import json.tool\nVALUE = open('data.yaml').read()\n")
    (tmp_path / "data.yaml").write_text("a")
    code = textwrap.dedent("""
        import sys
        sys.path.insert(0, ".")
        from gradlint.footprint import read_only, watch
        with watch() as opened:
            import helper
            open("made.txt", "w").close()
            open("made.txt").close()
        open("later.txt", "w").close()
        open("later.txt").close()
        print(sorted(path.rpartition("/")[2] for path in read_only(opened)))
    """)
    for _ in range(2):  # the second time, the module comes from its bytecode
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.stdout == "['data.yaml', 'helper.py']\n", done.stderr


def test_a_large_file_is_known_by_its_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(footprint, "LARGEST", 3)
    path = tmp_path / "weights.pt"
    path.write_bytes(b"12345")
    assert footprint.digest(str(path)).startswith("5:")
    assert footprint.digest(str(tmp_path)) is None


# -- the whole way -----------------------------------------------------------------------------------------------------

NET = """\
import torch
from torch import nn

from blocks import WIDTH


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(WIDTH, WIDTH), nn.Sigmoid())])
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.head(self.net(x))
"""


def test_a_warm_run_prints_the_same_report_without_torch_and_an_edit_ends_it(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text("WIDTH = 16\n")
    code = textwrap.dedent("""
        import json, sys
        from gradlint import load
        from gradlint.load import sandbox
        from gradlint.cli import main
        started = []
        begin = sandbox.Sandbox._start
        sandbox.Sandbox._start = lambda self: (started.append(1), begin(self))[1]
        try:
            main(["net.py", "-o", "r.json"])
        finally:
            heavy = sorted({"torch", "libcst", "numpy"} & set(sys.modules))
            print(json.dumps({"workers": len(started), "heavy": heavy}), file=sys.stderr)
    """)

    def run():
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
        )
        report = done.stdout.rpartition(" in ")[0]
        return done.returncode, report, json.loads(done.stderr.splitlines()[-1]), (tmp_path / "r.json").read_text()

    cold, warm = run(), run()
    assert cold[0] == warm[0] == 1 and "saturating-chain" in cold[1]
    assert cold[2]["workers"] == 1 and "torch" not in cold[2]["heavy"]
    assert warm[2] == {"workers": 0, "heavy": []}
    assert json.loads(warm[3])["targets"][0]["findings"][0]["fixes"][0]["applicable"] == "unsafe"
    assert warm[1] == cold[1]
    assert json.loads(warm[3])["targets"] == json.loads(cold[3])["targets"]
    (tmp_path / "blocks.py").write_text("WIDTH = 17\n")
    assert run()[2]["workers"] == 1
