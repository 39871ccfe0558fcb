"""The text of the user's files, read when a report shows a line of it."""

from __future__ import annotations

import ast
import os
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gradlint.graph.ir import Span


@dataclass
class Sources:
    """Lines of files, read once each; a file that is missing or unreadable has no lines. `given` overrides the disk."""

    given: Mapping[str, str] = field(default_factory=dict)
    _lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _extents: dict[str, dict[tuple[int, int], int]] = field(default_factory=dict)

    def lines(self, path: str) -> tuple[str, ...]:
        """All lines of the file without their line ends, () when it cannot be read as text."""
        if path not in self._lines:
            self._lines[path] = _split(self.given[path] if path in self.given else _read(path))
        return self._lines[path]

    def line(self, path: str, number: int) -> str | None:
        """The line with this 1-based number, or None."""
        lines = self.lines(path)
        return lines[number - 1] if 0 < number <= len(lines) else None

    def underline(self, span: Span) -> tuple[int, int] | None:
        """First and last-plus-one character of what the span points at on its line: the call that starts there,
        or the whole statement line when the column is unknown."""
        text = self.line(span.path, span.line)
        if text is None or not text.strip():
            return None
        indent = len(text) - len(text.lstrip())
        start = _characters(text, span.column)
        if start < indent or start >= len(text.rstrip()):
            return indent, len(text.rstrip())
        end = self._ends(span.path).get((span.line, span.column))
        return start, len(text.rstrip()) if end is None else max(start + 1, _characters(text, end))

    def _ends(self, path: str) -> dict[tuple[int, int], int]:
        """(line, byte column) of every expression → byte column of its end on that line; a call wins over its name."""
        if path not in self._extents:
            self._extents[path] = _expression_ends(self.lines(path))
        return self._extents[path]


def shown(path: str) -> str:
    """The path as a user would type it: relative to the working directory when it lies inside."""
    if not Path(path).is_absolute():
        return path
    relative = os.path.relpath(path) if Path(path).anchor == Path.cwd().anchor else path
    return path if relative.startswith(os.pardir) else relative


def relative_to(root: str | None, path: str) -> str:
    """The path from `root` (a CI system's name for the checkout; None: the working directory), with slashes."""
    inside = os.path.relpath(path, root) if root else path
    return (path if inside.startswith(os.pardir) else inside).replace(os.sep, "/")


def _read(path: str) -> str:
    try:
        with tokenize.open(path) as file:  # honours the encoding declaration, as Python does
            return file.read()
    except (OSError, SyntaxError, ValueError):
        return ""


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.replace("\r\n", "\n").replace("\f", " ").split("\n"))


def _expression_ends(lines: tuple[str, ...]) -> dict[tuple[int, int], int]:
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    ends: dict[tuple[int, int], tuple[bool, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and node.end_col_offset is not None:
            end = node.end_col_offset if node.end_lineno == node.lineno else len(lines[node.lineno - 1].encode())
            rank = (isinstance(node, ast.Call), end)
            at = (node.lineno, node.col_offset)
            ends[at] = max(rank, ends.get(at, rank))
    return {at: end for at, (_, end) in ends.items()}


def _characters(text: str, column: int) -> int:
    """A UTF-8 byte column, as Python's tracebacks and `ast` count them, as a character column."""
    return len(text.encode()[:column].decode(errors="ignore"))
