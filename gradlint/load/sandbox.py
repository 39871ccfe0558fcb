"""Run jobs on user code in a worker process, each with a time and a memory limit. Never imports torch itself."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from gradlint.error import ForwardError, GradlintError, InputError, LimitError, LoadError, ProbeError, UsageError
from gradlint.graph.ir import Span
from gradlint.load.sandbox_processes import available, resident
from gradlint.load.sandbox_wire import Answer, Buffer, Notice, Request, Wrong, send_with

TICK = 0.05  # seconds between looks at the clock and the memory
TAIL = 16_384  # bytes of a job's output that are kept
# No files beside the user's; scripted functions stay Python, so that the recorder sees inside them.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "PYTORCH_JIT": "0"}
GRACE = 0.3  # seconds a job that ran out of time has to say where it is
KINDS = {k.kind: k for k in (UsageError, LoadError, InputError, ForwardError, ProbeError, LimitError, GradlintError)}
PROCESSES = 64  # more than this many processes of one job is a runaway

_FRAME = re.compile(r'^  File "(?P<path>[^"\n]+)", line (?P<line>\d+) in ', re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """What became of one job: its results, and the error that ended it, if one did."""

    results: tuple[Any, ...] = ()
    error: GradlintError | None = None
    seconds: float = 0.0
    output: str = ""  # the end of what user code printed
    trace: str = ""  # the traceback of the error, for --debug


@dataclass
class _Job:
    serial: int
    index: int
    answers: socket.socket
    output: int
    limit: float  # seconds
    memory: int | None  # bytes
    started: float = 0.0
    pid: int = 0
    buffer: Buffer = field(default_factory=Buffer)
    results: list[Any] = field(default_factory=list)
    error: GradlintError | None = None
    trace: str = ""
    tail: bytes = b""
    ended: bool = False
    killed: float = 0.0  # when, 0 for not


class Sandbox:
    """A pool of forks of one warm worker process, which starts at once and imports torch while the caller goes on."""

    def __init__(self, *, jobs: int = 1, verbose: bool = False, preload: Sequence[str] = ("torch",)) -> None:
        self.jobs = max(1, jobs)
        self.verbose = verbose
        self.preload = list(preload)
        self._seen: Counter[str] = Counter()
        self._shared: set[str] = set()
        self._active: dict[int, _Job] = {}  # by serial number
        self._serial = 0
        self._start()

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def run(
        self, function: str, payloads: Sequence[Any], *, timeout: float = 120.0, memory: int | None = None
    ) -> Iterator[tuple[int, Outcome]]:
        """Run `function` ("module:name") on every payload in a fork of the worker, `jobs` at a time.

        A generator function's results arrive as they are yielded. Gives (index, outcome) in order of completion.
        `timeout` is in seconds a job, `memory` in bytes a job (None: what the machine has left).
        """
        waiting = deque(enumerate(payloads))
        try:
            while waiting or self._active:
                while waiting and len(self._active) < self.jobs:
                    self._submit(function, *waiting.popleft(), timeout, memory)
                self._wait()
                self._police()
                for job in [j for j in self._active.values() if j.ended]:
                    yield job.index, self._finish(job)
        finally:
            self._abandon()

    def close(self) -> None:
        """End the worker and everything it started."""
        self._abandon()
        self._control.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    # -- the worker

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._control, selectors.EVENT_READ, None)
        self._notices = Buffer()
        code = f"import sys; sys.path[:] = {sys.path!r}; from gradlint.load.sandbox_server import main; "
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"{code}main({theirs.fileno()}, {self.preload!r})"],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=None if self.verbose else subprocess.DEVNULL,
                stderr=None if self.verbose else subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **ENVIRONMENT},
            )

    def _restart(self, reason: str) -> None:
        """The worker itself is gone: its jobs are lost, a new one takes the rest."""
        for job in self._active.values():
            self._fail(job, LimitError(reason, "the machine may be out of memory"))
        self._control.close()
        self._selector.close()
        self._process.kill()
        self._process.wait()
        self._start()

    def _submit(self, function: str, index: int, payload: Any, timeout: float, memory: int | None) -> None:
        answers, theirs = socket.socketpair()
        output, output_end = os.pipe()
        cores = os.cpu_count() or 1
        threads = max(1, cores // self.jobs) if self.jobs > 1 else 0
        wanted = {n for n, count in self._seen.items() if count > 1} - self._shared
        self._serial += 1  # not the index: an earlier run's job of that index may still be ending
        request = Request(self._serial, function, payload, threads, tuple(sorted(wanted)))
        self._shared |= wanted
        with theirs:
            try:
                send_with(self._control, request, [theirs.fileno(), output_end])
            except OSError:
                self._restart("the worker process died")
                send_with(self._control, request, [theirs.fileno(), output_end])
        os.close(output_end)
        held = memory if memory is not None else available()
        job = self._active[self._serial] = _Job(self._serial, index, answers, output, timeout, held)
        for channel in (answers, output):
            self._selector.register(channel, selectors.EVENT_READ, job)

    def _wait(self) -> None:
        for key, _ in self._selector.select(TICK):
            job: _Job | None = key.data
            if job is None:
                self._notified()
                return  # a restart may have replaced the selector
            if key.fileobj is job.answers:
                self._answered(job)
            else:
                self._printed(job)

    def _notified(self) -> None:
        data = self._control.recv(65_536)
        if not data:
            self._restart("the worker process died")
            return
        for notice in self._notices.feed(data):
            self._note(notice)

    def _note(self, notice: Notice) -> None:
        if notice.kind == "fatal":
            raise GradlintError(
                f"cannot import torch: {notice.message}", "install it in the environment gradlint runs in"
            )
        job = self._active.get(notice.job)
        if job is None:
            return
        if notice.kind == "started":
            job.pid, job.started = notice.pid, time.monotonic()
        elif notice.kind == "ended":
            self._drain(job)
            if not job.ended:
                self._fail(job, self._died(job, notice.status))

    def _answered(self, job: _Job) -> None:
        data = _received(job.answers)
        if not data:
            self._selector.unregister(job.answers)
            return
        for answer in job.buffer.feed(data):
            self._take(job, answer)

    def _take(self, job: _Job, answer: Answer) -> None:
        if answer.kind == "result":
            job.results.append(answer.value)
        elif answer.kind == "modules":
            self._seen.update(answer.value)
        elif answer.kind == "error" and answer.error is not None:
            job.error, job.trace = restored(answer.error), answer.error.trace
        job.ended = job.ended or answer.kind == "end"

    def _printed(self, job: _Job) -> None:
        data = os.read(job.output, 65_536)
        if not data:
            self._selector.unregister(job.output)
            return
        job.tail = (job.tail + data)[-TAIL:]
        if self.verbose:
            sys.stderr.buffer.write(data)
            sys.stderr.flush()

    def _drain(self, job: _Job) -> None:
        """Take in what a fork sent before it ended."""
        registered = self._selector.get_map()
        while job.answers.fileno() in registered and _readable(job.answers.fileno()):
            self._answered(job)
        while job.output in registered and _readable(job.output):
            self._printed(job)

    # -- limits

    def _police(self) -> None:
        now = time.monotonic()
        for job in self._active.values():
            if job.ended or not job.pid:
                continue
            if job.killed:
                self._stop(job, now)
            elif now - job.started > job.limit:
                _signal(job.pid, signal.SIGUSR1, group=False)  # faulthandler prints where it is
                job.killed = now
            else:
                self._weigh(job)

    def _weigh(self, job: _Job) -> None:
        used, processes = resident(job.pid)
        if processes > PROCESSES:
            self._fail(job, LimitError(f"started more than {PROCESSES} processes and was stopped"))
        elif job.memory is not None and used > job.memory:
            hint = "raise --memory, or name a smaller model, such as model.py:'Net(depth=2)'"
            self._fail(
                job, LimitError(f"needed more than {job.memory / 2**30:.1f} GiB of memory and was stopped", hint)
            )

    def _stop(self, job: _Job, now: float) -> None:
        """End a job that ran out of time, once it has said where it is."""
        place = where(job.tail)
        if place or now - job.killed > GRACE:
            at = f" at {Path(place.path).name}:{place.line}" if place else ""
            hint = "raise --timeout, or name a smaller model, such as model.py:'Net(depth=2)'"
            self._fail(job, LimitError(f"took longer than {job.limit:g} s and was stopped{at}", hint, place))

    def _fail(self, job: _Job, error: GradlintError) -> None:
        job.error, job.ended = error, True

    def _died(self, job: _Job, status: int) -> LimitError:
        place = where(job.tail)
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            name = signal.Signals(number).name if number in signal.Signals._value2member_map_ else str(number)
            what = f"the process was killed by signal {name}"
            hint = (
                "out of memory? try --memory"
                if number == signal.SIGKILL
                else "native code of the model or a library crashed"
            )
            return LimitError(what, hint, place)
        code = os.WEXITSTATUS(status)
        return LimitError(
            f"the process ended without an answer (exit code {code})", "the file may call os._exit", place
        )

    def _finish(self, job: _Job) -> Outcome:
        del self._active[job.serial]
        if job.pid:
            _signal(job.pid, signal.SIGKILL, group=True)
        registered = self._selector.get_map()
        self._drain(job)
        for channel in (job.answers.fileno(), job.output):
            if channel in registered:
                self._selector.unregister(channel)
        job.answers.close()
        os.close(job.output)
        seconds = time.monotonic() - job.started if job.started else 0.0
        return Outcome(tuple(job.results), job.error, seconds, job.tail.decode(errors="replace"), job.trace)

    def _abandon(self) -> None:
        for job in list(self._active.values()):
            self._finish(job)


def restored(wrong: Wrong) -> GradlintError:
    """The exception that a worker reported."""
    return KINDS.get(wrong.kind, GradlintError)(wrong.message, wrong.hint, wrong.span)


def where(output: bytes) -> Span | None:
    """The innermost line of user code in the last traceback that faulthandler printed."""
    text = output.decode(errors="replace")
    start = text.rfind("(most recent call first):")
    if start < 0:
        return None
    own = (
        str(Path(__file__).parents[1]),
        *(sysconfig.get_path(n) for n in ("stdlib", "platstdlib", "purelib", "platlib")),
    )
    for match in _FRAME.finditer(text, start):
        if not match["path"].startswith((*own, "<")):
            return Span(match["path"], int(match["line"]))
    return None


def _received(channel: socket.socket) -> bytes:
    try:
        return channel.recv(1 << 20)
    except ConnectionResetError:
        return b""


def _readable(descriptor: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        return bool(selector.select(0))


def _signal(pid: int, number: signal.Signals, *, group: bool) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, number)
