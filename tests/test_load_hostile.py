"""Whatever a file does, it costs that file only: one clear message, in time, and the others are still reported."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradlint import session
from gradlint.config import Settings

HOSTILE = Path(__file__).parent / "hostile"
GIB = 2**30

# What is hostile in these is no part of the model, or harms nobody: the model is analysed.
SURVIVED = [
    "healthy",
    "exits_when_run",
    "loops_when_run",
    "trains_when_run",
    "needs_options",
    "uses_a_missing_library",
    "changes_directory",
    "prints",
    "starts_children",
    "leaves_a_thread",
    "ignores_signals",
    "with_a_byte_order_mark",
    "in_declared_latin_1",
]

# file → (kind of the error, what its message says)
FAILED = {
    "exits": ("load", "SystemExit"),
    "exits_in_forward": ("load", "exits"),
    "exits_at_once": ("limit", "ended without an answer"),
    "loops": ("limit", "took longer than 8 s and was stopped at loops.py:"),
    "sleeps_in_forward": ("limit", "took longer than 8 s and was stopped at sleeps_in_forward.py:"),
    "allocates": ("limit", "GiB of memory"),
    "crashes": ("limit", "SIGSEGV"),
    "aborts": ("limit", "SIGABRT"),
    "forks": ("limit", "processes"),
    "recurses": ("load", "RecursionError"),
    "raises": ("load", "ValueError: größe 形 🔥 passt nicht"),
    "raises_in_forward": ("", "not today"),
    "interrupts": ("load", "KeyboardInterrupt"),
    "reads_input": ("load", "EOFError"),
    "closes_files": ("limit", "ended without an answer"),
    "derives_from_a_missing_library": ("load", "a_library_that_is_not_installed"),
    "syntax_error": ("load", "syntax error"),
    "in_latin_1": ("load", "cannot decode"),
    "binary": ("load", "null bytes"),
    "empty": ("load", "no model found"),
    "no_model": ("load", "no model found"),
    "nested_too_deeply": ("load", "nested"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run over every hostile file, and the folder it was started from."""
    pids = tmp_path_factory.mktemp("hostile") / "pids"
    os.environ["HOSTILE_PIDS"] = str(pids)
    started, folder = time.monotonic(), Path.cwd()
    files = [str(HOSTILE / f"{name}.py") for name in (*FAILED, *SURVIVED)]
    report = session.run(files, Settings(timeout=8, memory=GIB, jobs=2, probe=False, cache=False))
    del os.environ["HOSTILE_PIDS"]
    assert Path.cwd() == folder
    targets = {Path(t.path).stem: t for t in report.targets}
    return targets, time.monotonic() - started, pids


def test_every_file_is_covered():
    assert {p.stem for p in HOSTILE.glob("*.py")} == {*FAILED, *SURVIVED}


@pytest.mark.parametrize("name", SURVIVED)
def test_the_model_is_analysed(run, name):
    target = run[0][name]
    assert target.status == "analysed", target.error


@pytest.mark.parametrize("name", FAILED)
def test_the_message_says_what_happened(run, name):
    error = run[0][name].error
    kind, message = FAILED[name]
    assert error is not None
    assert message in error.message
    assert kind in ("", error.kind)
    assert "\n" not in error.message and "Traceback" not in error.message


@pytest.mark.parametrize("name", ["exits", "raises", "recurses", "reads_input", "crashes", "loops", "syntax_error"])
def test_the_message_names_the_users_line(run, name):
    error = run[0][name].error
    assert Path(error.path).stem == name
    assert error.line > 1


def test_nothing_takes_much_longer_than_its_limit(run):
    assert run[1] < 60


def test_no_process_is_left_behind(run):
    pids = [int(line) for line in run[2].read_text().split()]
    assert pids
    assert [pid for pid in pids if alive(pid)] == []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_command_line_prints_valid_json_and_exits_with_2(tmp_path):
    files = [str(HOSTILE / f"{name}.py") for name in ("prints", "exits", "syntax_error")]
    command = [sys.executable, "-m", "gradlint", *files, "--output-format", "json", "--no-probe"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path, check=False, env=env())
    assert [t["status"] for t in json.loads(done.stdout)["targets"]] == ["analysed", "failed", "failed"]
    assert done.returncode == 2
    assert {p.name for p in tmp_path.iterdir()} <= {".gradlint_cache"}


def env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
