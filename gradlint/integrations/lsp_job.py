"""The process in which the language server has one file linted: `lint` in, its result as JSON on stdout.

Its end takes the sandbox's workers along; it comes with SIGTERM, or with the server, whose end closes stdin.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradlint import config_rules, session
from gradlint.checking import failure
from gradlint.config_file import find, merge
from gradlint.error import GradlintError
from gradlint.fix.edits import edits
from gradlint.fix.edits.text import Edit, SourceFile, read
from gradlint.report.source import Sources
from gradlint.result import Report
from gradlint.serialise import to_data
from gradlint.source.walk import walked
from gradlint.version import __version__

LIBRARIES = ("site-packages", "dist-packages")
# What an editor opens is linted without being named, and nothing but the result may be printed.
OVERRIDES: Mapping[str, Any] = {"skip_modelless": True, "verbose": False, "output": ()}


@dataclass(frozen=True)
class Replacement:
    """The text to put between two places of a file: 0-based lines and characters."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


@dataclass(frozen=True)
class Rewrite:
    """A fix as it would be written into the file of its finding, whose lines (without their ends) are `lines`."""

    finding: int  # index among the report's findings
    title: str
    safe: bool
    lines: tuple[str, ...]
    replacements: tuple[Replacement, ...]


@dataclass(frozen=True)
class Linted:
    """What a run found, the lines of the files that it points at as they then were, by path, and its fixes."""

    report: Report
    lines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rewrites: tuple[Rewrite, ...] = ()


def lint(path: Path, top: Path | None) -> Linted:
    """Lint a file with the configuration nearest to it.

    Nothing is run of a file outside of the workspace folder `top` (None: there is none), of a library, or of one that
    `gradlint top` would leave out. An unusable configuration is an error of the report.
    """
    try:
        report = _report(path, top)
    except GradlintError as error:
        report = Report((), __version__, errors=(failure(error),))
    sources = Sources()
    lines = {name: sources.lines(name) for name in sorted(_places(report))}
    return Linted(report, lines, tuple(_rewrites(report)))


def _report(path: Path, top: Path | None) -> Report:
    configuration = find([str(path)])
    settings = merge(configuration, OVERRIDES)
    root = Path(settings.root) if settings.root else None
    kept = walked(path, top or path.parent, exclude=settings.exclude, root=root, gitignore=settings.gitignore)
    if not kept or any(part in LIBRARIES for part in path.parts):
        return Report((), __version__)
    config_rules.check(settings, configuration)
    return session.run([str(path)], settings)


def _places(report: Report) -> set[str]:
    """Every file that a finding or an error of the report is about."""
    spans = [span for f in report.findings for span in (f.span, *(related.span for related in f.related)) if span]
    failures = [*report.errors, *(target.error for target in report.targets if target.error)]
    own = [target.path for target in report.targets]
    return {path for path in (*own, *(span.path for span in spans), *(each.path for each in failures)) if path}


def _rewrites(report: Report) -> Iterator[Rewrite]:
    """The fixes that `--fix` or `--fix --unsafe-fixes` would write."""
    for index, finding in enumerate(report.findings):
        for fix in finding.fixes:
            if finding.stands and finding.span and fix.applicable:
                source = read(Path(finding.span.path))
                replaced = tuple(_replacement(source, edit) for edit in edits(source, fix.changes))
                lines = tuple(source.text.decode().splitlines())
                yield Rewrite(index, fix.title, fix.applicable == "safe", lines, replaced)


def _replacement(source: SourceFile, edit: Edit) -> Replacement:
    return Replacement(_place(source.text, edit.start), _place(source.text, edit.end), edit.text)


def _place(text: bytes, offset: int) -> tuple[int, int]:
    """The 0-based line and character of a byte."""
    before = text[:offset].decode()
    return before.count("\n"), len(before) - before.rfind("\n") - 1


def main(words: Sequence[str]) -> int:
    """Lint the file `words[0]` for the workspace folder `words[1]` ("": there is none)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=_follow, daemon=True).start()
    try:
        linted = lint(Path(words[0]), Path(words[1]) if words[1] else None)
    except KeyboardInterrupt:  # nobody waits for the answer any more
        return 1
    sys.stdout.write(json.dumps(to_data(linted)))
    return 0


def _follow() -> None:
    """End with the server: nothing is ever written to stdin, so that only its end ends the reading."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
