"""The worker process: results, limits, crashes, and what it leaves behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gradlint.error import InputError, LimitError
from gradlint.load.sandbox import Sandbox

ROOT = Path(__file__).parent.parent
PATHS = os.pathsep.join([".", str(ROOT), str(ROOT / "rules")])
LOOP = "    while True: pass\n"
JOBS = """
import os, signal, sys, time
from gradlint.error import InputError
from gradlint.graph.ir import Span

def twice(x):
    return 2 * x

def count(n):
    for i in range(n):
        yield i
    if n == 3:
        os._exit(7)

def fails(kind):
    if kind == "known":
        raise InputError("no inputs", "give them", Span("model.py", 3))
    raise KeyError("unknown")

def prints(text):
    print(text)
    os.write(2, b"raw")
    return sorted(m for m in sys.modules if m.startswith("gradlint.load"))

def meets(paths):
    own, other = paths
    open(own, "w").close()
    end = time.monotonic() + 20
    while not os.path.exists(other) and time.monotonic() < end:
        time.sleep(0.01)
    return os.path.exists(other)

def sleeps(seconds):
    time.sleep(seconds)
    return os.getpid()

def remembers(x):
    seen = getattr(sys, "seen_before", None)
    sys.seen_before = x
    return seen
"""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "sandbox_jobs.py").write_text(JOBS)
    sys.path.insert(0, str(folder))
    with Sandbox(jobs=2, preload=()) as sandbox:
        yield sandbox
    sys.path.remove(str(folder))


@pytest.fixture
def run(sandbox):
    def run(function, *payloads, **limits):
        outcomes = dict(sandbox.run(f"sandbox_jobs:{function}", payloads, **limits))
        return [outcomes[i] for i in range(len(payloads))]

    return run


def test_results_come_back_for_every_payload(run):
    assert [o.results for o in run("twice", 1, "ab", 2.5)] == [(2,), ("abab",), (5.0,)]


def test_a_generators_results_survive_the_death_of_its_process(run):
    (done, died) = run("count", 2, 3)
    assert (done.results, done.error) == ((0, 1), None)
    assert died.results == (0, 1, 2)
    assert isinstance(died.error, LimitError)
    assert "exit code 7" in died.error.message


def test_errors_arrive_as_they_were_raised(run):
    known, unknown = run("fails", "known", "unknown")
    assert isinstance(known.error, InputError)
    assert (known.error.message, known.error.hint, known.error.span.line) == ("no inputs", "give them", 3)
    assert unknown.error.kind == "internal"
    assert "KeyError" in unknown.trace


def test_what_user_code_prints_is_kept_apart(run, capfd):
    (outcome,) = run("prints", "hello")
    assert "hello" in outcome.output
    assert "raw" in outcome.output
    assert capfd.readouterr() == ("", "")


def test_one_job_cannot_see_what_another_left_in_the_process(run):
    assert [o.results for o in run("remembers", 1, 2, 3)] == [(None,), (None,), (None,)]


def test_a_job_that_takes_too_long_costs_itself_only(run):
    slow, fast = run("sleeps", 60, 0, timeout=1)
    assert "took longer than 1 s and was stopped at sandbox_jobs.py:" in slow.error.message
    assert fast.error is None


def test_jobs_run_side_by_side(run, tmp_path):
    """Each waits for the other, which one after the other they could not."""
    both = run("meets", [str(tmp_path / "a"), str(tmp_path / "b")], [str(tmp_path / "b"), str(tmp_path / "a")])
    assert [outcome.results for outcome in both] == [(True,), (True,)]


def test_closing_ends_a_running_job(sandbox, tmp_path):
    with Sandbox(preload=()) as other:
        running = other.run("sandbox_jobs:sleeps", [600])
        running_since = time.monotonic()
        other._submit("sandbox_jobs:sleeps", 0, 600, 600, None)
        while not other._active[1].pid and time.monotonic() - running_since < 20:
            other._wait()
        pid = other._active[1].pid
        running.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()


def test_a_parent_that_is_killed_leaves_nothing_running(tmp_path):
    """SIGKILL, as an impatient CI sends it, gives the parent no time to end its worker."""
    (tmp_path / "endless.py").write_text(
        f"import os\ndef run(path):\n    open(path, 'w').write(str(os.getpid()))\n{LOOP}"
    )
    run = f"Sandbox(preload=()).run('endless:run', [{str(tmp_path / 'pid')!r}])"
    code = f"from gradlint.load.sandbox import Sandbox\nlist({run})"
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": PATHS})
    pid = int(_soon(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text()))
    parent.kill()
    parent.wait()
    assert _soon(lambda: not _alive(pid))


def test_the_parent_never_imports_torch():
    code = (
        "import sys; import gradlint.session, gradlint.load, gradlint.load.sandbox; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], check=True, timeout=60)


def _soon(condition, seconds=20.0):
    """What the condition gives as soon as it is true, or False after so many seconds."""
    end = time.monotonic() + seconds
    while not (result := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return result


def _alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
