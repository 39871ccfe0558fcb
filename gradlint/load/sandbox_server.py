"""The worker process: imports torch once, then forks for every job, so that what user code does ends with its fork."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import inspect
import os
import select
import signal
import socket
import sys
import traceback
import types
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from gradlint.error import GradlintError
from gradlint.load.sandbox_processes import children
from gradlint.load.sandbox_wire import Answer, Notice, Request, Wrong, packed, receive_with

# Libraries that are worth importing once for all later forks, when forks keep importing them.
SHARED = {
    "torch",
    "transformers",
    "timm",
    "torchvision",
    "torchaudio",
    "lightning",
    "pytorch_lightning",
    "numpy",
    "scipy",
    "einops",
}
SHARED |= {"sympy", "networkx", "torch_geometric", "safetensors", "pandas", "sklearn", "tokenizers", "huggingface_hub"}

PR_SET_CHILD_SUBREAPER = 36


class Server:
    """Serves one parent over `control` until it goes away."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.jobs: dict[int, int] = {}  # pid → job
        self.wake, wake_end = os.pipe()
        os.set_blocking(wake_end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)

    def serve(self, preload: Iterable[str]) -> None:
        """Import `preload`, then run jobs; returns when the parent closes its end."""
        try:
            for name in preload:
                importlib.import_module(name)
        except Exception as error:  # noqa: BLE001  a broken installation of torch may raise anything; the parent reports it
            self._tell(Notice("fatal", message=f"{type(error).__name__}: {error}"))
            return
        gc.freeze()
        self._tell(Notice("ready", pid=os.getpid()))
        while True:
            ready: list[int] = select.select([self.control.fileno(), self.wake], [], [])[0]
            if self.wake in ready:
                os.read(self.wake, 4096)
                self._reap()
            if self.control.fileno() in ready and not self._accept():
                return

    def _accept(self) -> bool:
        received = receive_with(self.control, 2)
        if received is None:
            return False
        request, (answers, output) = received
        for name in request.preload:
            with contextlib.suppress(Exception):  # whoever needs it will raise it again, in a fork
                importlib.import_module(name)
        pid = os.fork()
        if pid == 0:
            self._become(request, answers, output)
        self.jobs[pid] = request.job
        os.close(answers)
        os.close(output)
        self._tell(Notice("started", request.job, pid))
        return True

    def end(self) -> None:
        """Stop what is still running: the parent is gone, and may have been killed before it could say so."""
        for pid in self.jobs:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def _become(self, request: Request, answers: int, output: int) -> NoReturn:
        """The fork's whole life."""
        try:
            self.control.close()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            isolate(output)
            with socket.socket(fileno=answers) as channel:
                work(request, channel)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(0)

    def _reap(self) -> None:
        """Report ended forks, and end whatever they left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            job = self.jobs.pop(pid, None)
            if job is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                self._tell(Notice("ended", job, pid, status))
            self._end_strays()

    def _end_strays(self) -> None:
        """Processes of a dead fork that left its process group are ours now (subreaper): end them."""
        for pid in children(os.getpid()):
            if pid not in self.jobs:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)

    def _tell(self, notice: Notice) -> None:
        self.control.sendall(packed(notice))


def isolate(output: int) -> None:
    """Make this process its own group, its output the given pipe, and itself the first to go when memory runs out."""
    os.setsid()
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    faulthandler.enable(2, all_threads=False)
    faulthandler.register(signal.SIGUSR1, 2, all_threads=False)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def work(request: Request, channel: socket.socket) -> None:
    """Run the job and send every result as it comes, then what was imported and the end."""
    before = set(sys.modules)
    try:
        if request.threads and "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(request.threads)
        module, _, name = request.function.partition(":")
        found = getattr(importlib.import_module(module), name)(request.payload)
        for result in found if inspect.isgenerator(found) else [found]:
            channel.sendall(packed(Answer("result", result)))
    except BaseException as error:  # noqa: BLE001  also SystemExit from a model's forward: the parent turns it into a report
        channel.sendall(packed(Answer("error", error=wrong(error))))
    new = sorted(n for n in set(sys.modules) - before if n.split(".")[0] in SHARED and _importable(sys.modules[n]))
    channel.sendall(packed(Answer("modules", new)))
    channel.sendall(packed(Answer("end")))


def wrong(error: BaseException) -> Wrong:
    """An exception in the form in which it travels."""
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, GradlintError):
        return Wrong(error.kind, error.message, error.hint, error.span, trace)
    if isinstance(error, MemoryError):
        return Wrong("limit", "out of memory", "raise --memory, or name a smaller model", None, trace)
    if isinstance(error, SystemExit):
        return Wrong("load", f"the model's code exits (sys.exit({error.code!r}))", "", None, trace)
    if not isinstance(error, Exception):
        return Wrong("load", f"the model's code raised {type(error).__name__}", "", None, trace)
    return Wrong(
        "internal", f"{type(error).__name__}: {error}", "this is a bug of gradlint; --debug shows where", None, trace
    )


def _importable(module: types.ModuleType) -> bool:
    return getattr(module, "__spec__", None) is not None and "site-packages" in (
        getattr(module, "__file__", None) or ""
    )


def main(descriptor: int, preload: list[str]) -> None:
    """Serve on an inherited socket."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with socket.socket(fileno=descriptor) as control:
        server = Server(control)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            server.serve(preload)
        server.end()
    os._exit(0)
