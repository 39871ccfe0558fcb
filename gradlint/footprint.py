"""The worker's entry that also tells which files an analysis read: its result holds until one of them changes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

WRITING = os.O_WRONLY | os.O_RDWR
LARGEST = 64 * 2**20  # bytes of a file that are read for its digest; a larger one is known by its size and time
SYSTEM = ("/proc", "/sys", "/dev")


def work(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What `gradlint.analysis.work` yields, each as {"report"}, then {"files": path → digest} of what was read."""
    from gradlint.analysis import work as analysed

    yield from _watched(analysed, job)


def static_work(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same with `gradlint.static.work`, which imports no torch."""
    from gradlint.static import work as analysed

    yield from _watched(analysed, job)


def _watched(analysed: Callable[[dict[str, Any]], Iterator[Any]], job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with watch() as opened:
        for report in analysed(job):
            yield {"report": report}
    yield {"files": {path: mark for path in sorted(read_only(opened)) if (mark := digest(path))}}


class Opened:
    """The paths that were opened, for reading and for writing."""

    def __init__(self) -> None:
        self.watching = True
        self.read: set[str] = set()
        self.written: set[str] = set()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """An audit hook (PEP 578): notes each `open`, and for a module's bytecode its source."""
        if event != "open" or not self.watching or not args or not isinstance(args[0], (str, bytes, os.PathLike)):
            return
        path, mode, flags = os.fsdecode(args[0]), args[1], args[2] if len(args) > 2 else 0
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool((flags or 0) & WRITING)
        (self.written if writes else self.read).add(str(Path(path).absolute()))


@contextlib.contextmanager
def watch() -> Iterator[Opened]:
    """Note what is opened meanwhile. The hook then sleeps: Python has no way to take one off."""
    opened = Opened()
    sys.addaudithook(opened)
    try:
        yield opened
    finally:
        opened.watching = False


def read_only(opened: Opened) -> set[str]:
    """The project's own files that were read and not written: what lies in no library and in no part of Python."""
    libraries = _libraries()
    sources = {_source(path) for path in opened.read} - opened.written
    return {path for path in sources if not path.startswith(libraries)}


def digest(path: str) -> str | None:
    """What tells whether a file is still the same; None for what is no file (any more)."""
    try:
        about = Path(path).stat()
        if not stat.S_ISREG(about.st_mode):
            return None
        if about.st_size > LARGEST:
            return f"{about.st_size}:{about.st_mtime_ns}"
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None


def _libraries() -> tuple[str, ...]:
    """Prefixes of the paths that versions stand for: Python, its libraries, gradlint itself and its rules."""
    own = [str(Path(__file__).parent)]
    rules = importlib.util.find_spec("gradlint_rules")
    own += list(rules.submodule_search_locations or ()) if rules else []
    folders = [sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values(), *SYSTEM, *own]
    return tuple(f"{Path(folder).absolute()}{os.sep}" for folder in dict.fromkeys(folders) if folder != "/")


def _source(path: str) -> str:
    """A module's source for its bytecode, any other path as it is."""
    if not path.endswith(".pyc"):
        return path
    try:
        return importlib.util.source_from_cache(path)
    except ValueError:
        return path
