"""Reports: one format, one file, each a pure function of `gradlint.result.Report`. Never imports torch."""

from __future__ import annotations

import importlib
import os
import shutil
from collections.abc import Mapping
from typing import Literal, TextIO

from gradlint.error import UsageError
from gradlint.report.source import Sources
from gradlint.report.view import View
from gradlint.result import Report

Color = Literal["auto", "always", "never"]

# format → (module that holds its `write`, suffixes of files that `-o` writes in it)
FORMATS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "full": ("gradlint.report.summary", (".txt",)),
    "concise": ("gradlint.report.concise", ()),
    "json": ("gradlint.report.json", (".json",)),
    "json-lines": ("gradlint.report.json_lines", (".jsonl", ".ndjson")),
    "sarif": ("gradlint.report.sarif", (".sarif",)),
    "github": ("gradlint.report.github", ()),
    "gitlab": ("gradlint.report.gitlab", ()),
    "junit": ("gradlint.report.junit", (".xml",)),
    "markdown": ("gradlint.report.markdown", (".md",)),
    "html": ("gradlint.report.html", (".html", ".htm")),
}


def render(
    report: Report,
    format: str,
    stream: TextIO,
    *,
    color: Color = "auto",
    sources: Sources | None = None,
    threshold: str | None = None,
    verbose: bool = False,
    width: int | None = None,
) -> None:
    """Write the report to the stream in one of `FORMATS`.

    `threshold` hides findings of a lower severity in the formats for people; `width` overrides the terminal's.
    Raises UsageError for an unknown format.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown output format {format!r}", f"one of {', '.join(FORMATS)}")
    terminal = stream.isatty()
    view = View(
        color=colored(color, stream),
        width=width or (max(60, shutil.get_terminal_size().columns) if terminal else None),
        links=terminal and colored(color, stream),
        unicode=_speaks_unicode(stream),
        threshold=threshold,
        verbose=verbose,
        sources=sources or Sources(),
    )
    importlib.import_module(FORMATS[format][0]).write(report, stream, view)


def output(text: str) -> tuple[str, str]:
    """The format and the path of an `-o` option: "FORMAT=PATH", or a path whose suffix names the format.

    Raises UsageError for a suffix that no format claims.
    """
    format, _, path = text.partition("=")
    if path and format in FORMATS:
        return format, path
    for name, (_, suffixes) in FORMATS.items():
        if text.endswith(suffixes):
            return name, text
    known = sorted(suffix for _, suffixes in FORMATS.values() for suffix in suffixes)
    raise UsageError(f"no report format has the suffix of {text}", f"known: {', '.join(known)}; or write FORMAT=FILE")


def colored(color: Color, stream: TextIO) -> bool:
    """Whether to style: as told, or else by NO_COLOR, FORCE_COLOR (no-color.org, force-color.org) and the terminal."""
    if color != "auto":
        return color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def _speaks_unicode(stream: TextIO) -> bool:
    try:
        "●┊′".encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
