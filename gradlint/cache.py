"""Results of earlier runs, kept in `.gradlint_cache` until a file, a setting or a version changes. Without torch."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from gradlint import registry
from gradlint.config import OUTSIDE, Settings
from gradlint.footprint import digest
from gradlint.result import TargetReport
from gradlint.serialise import from_data, to_data
from gradlint.source.target import Target
from gradlint.version import __version__

FOLDER = ".gradlint_cache"
FORM = 2  # of an entry; raised whenever older ones cannot be read any more
MOST = 2000  # entries that are kept
INFO = (".dist-info", ".egg-info")  # of the folders that say which distributions are installed
VARIABLES = ("PYTHONPATH", "CUDA_VISIBLE_DEVICES")
TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of gradlint; see https://bford.info/cachedir/\n"
DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/kfd")


@dataclass(frozen=True)
class Cache:
    """A folder with one file for each target and the settings that it was analysed under."""

    folder: Path

    def get(self, target: Target, settings: Settings) -> tuple[TargetReport, ...] | None:
        """What an earlier run found, when nothing that it depended on has changed since."""
        entry = _read(self._file(target, settings))
        if entry is None or entry.get("stamp") != stamp():
            return None
        if any(digest(path) != mark for path, mark in entry["files"].items()):
            return None
        return tuple(from_data(TargetReport, data) for data in entry["reports"])

    def put(
        self, target: Target, settings: Settings, reports: Sequence[TargetReport], files: Mapping[str, str]
    ) -> None:
        """Keep what was found. Raises OSError when the folder cannot be written."""
        self._prepare()
        file = self._file(target, settings)
        data = {"stamp": stamp(), "files": dict(files), "reports": [to_data(report) for report in reports]}
        fresh = file.with_suffix(f".{os.getpid()}.new")
        fresh.write_text(json.dumps(data), encoding="utf-8")
        fresh.replace(file)

    def _file(self, target: Target, settings: Settings) -> Path:
        return self.folder / f"{key(target, settings)}.json"

    def _prepare(self) -> None:
        """Make the folder, with the files that keep it out of git and backups, and drop the oldest entries."""
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True)
            (self.folder / ".gitignore").write_text("# made by gradlint\n*\n", encoding="utf-8")
            (self.folder / "CACHEDIR.TAG").write_text(TAG, encoding="utf-8")
        entries = list(self.folder.glob("*.json"))
        if len(entries) >= MOST:
            for old in sorted(entries, key=_age)[: len(entries) - MOST + 1]:
                old.unlink(missing_ok=True)


def at(settings: Settings) -> Cache | None:
    """The cache that the settings ask for; None for none."""
    if not settings.cache:
        return None
    return Cache(Path(settings.cache_dir or Path(settings.root or ".") / FOLDER))


def key(target: Target, settings: Settings) -> str:
    """The name of the entry: the target as it was named, and what the settings say of its analysis."""
    relevant = {f.name: to_data(getattr(settings, f.name)) for f in fields(Settings) if f.name not in OUTSIDE}
    named = [str(target.path.resolve()), target.expression, target.text, target.shown]
    return hashlib.sha256(json.dumps([named, relevant], sort_keys=True).encode()).hexdigest()[:40]


@cache
def stamp() -> str:
    """What results depend on besides files and settings: Python, gradlint, rules, installed packages and devices."""
    parts = [FORM, __version__, sys.version, platform.machine(), *map(os.environ.get, VARIABLES)]
    parts += [Path(device).exists() for device in DEVICES]
    return hashlib.sha256(json.dumps([*parts, sorted(_packages()), sorted(_code())]).encode()).hexdigest()


def _packages() -> Iterator[str]:
    """Every installed distribution with its version, by the names of the folders that say so."""
    for folder in dict.fromkeys(sys.path):
        with contextlib.suppress(OSError):
            yield from (path.name for path in Path(folder or ".").iterdir() if path.suffix in INFO)


def _code() -> Iterator[tuple[str, int, int]]:
    """gradlint's own files and those of the rules: while they are being developed, versions say nothing."""
    for folder in (Path(__file__).parent, *map(Path, registry.folders())):
        for path in folder.rglob("*.py"):
            about = path.stat()
            yield str(path), about.st_size, about.st_mtime_ns


def _read(file: Path) -> dict[str, Any] | None:
    """The entry; None where there is none or it is damaged."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return data if isinstance(data, dict) and {"stamp", "files", "reports"} <= data.keys() else None


def _age(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
