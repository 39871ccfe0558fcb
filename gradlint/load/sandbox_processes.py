"""A process's descendants and the memory they hold, by /proc. Where there is none (macOS), nothing is known."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

SHARE = 0.9  # of what is left, a job may take


def resident(pid: int) -> tuple[int, int]:
    """(resident bytes, number of processes) of a process and its descendants; shared pages are counted once."""
    family = descendants(pid)
    return _resident(pid) + sum(_own(p) for p in family), 1 + len(family)


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on."""
    pending, found = [pid], list[int]()
    while pending:
        more = children(pending.pop())
        found += more
        pending += more
    return found


def children(pid: int) -> list[int]:
    """The direct children of a process."""
    lists = list(Path(f"/proc/{pid}/task").glob("*/children"))
    if not lists:  # a kernel without CONFIG_PROC_CHILDREN
        return [child for child, parent in _parents() if parent == pid]
    found: list[int] = []
    for path in lists:
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def _parents() -> Iterator[tuple[int, int]]:
    """(process, its parent) for every process of the machine."""
    for entry in os.scandir("/proc") if Path("/proc").is_dir() else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = Path(entry.path, "stat").read_bytes()
                yield int(entry.name), int(stat[stat.rindex(b")") + 2 :].split()[1])


def available() -> int | None:
    """Bytes that a job may take on this machine, by the container's limit too; None when unknown."""
    limits = [_memory_available(), _container()]
    known = [limit for limit in limits if limit is not None]
    return int(SHARE * min(known)) if known else None


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _own(pid: int) -> int:
    """The resident bytes that are not shared with files or forks."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Private_Dirty:"):
                return int(line.split()[1]) * 1024
    return 0


def _memory_available() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _container() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = Path("/sys/fs/cgroup/memory.current").read_text().strip()
        return None if limit == "max" else int(limit) - int(used)
    return None
