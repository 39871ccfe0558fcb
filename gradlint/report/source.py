"""The text of the user's files, read when a report shows a line of it."""

from __future__ import annotations

import ast
import os
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gradlint.graph.ir import Span


@dataclass(frozen=True)
class Places:
    """Where the expressions of a file are, in UTF-8 byte columns as Python's tracebacks count them.

    `ends`: (line, column) where expressions start → the end on that line of the outermost call, or else expression.
    `values`: line of a statement → start and end, on that line, of the value that it is about.
    """

    ends: Mapping[tuple[int, int], int]
    values: Mapping[int, tuple[int, int]]


@dataclass
class Sources:
    """Lines of files, read once each; a file that is missing or unreadable has no lines. `given` overrides the disk."""

    given: Mapping[str, str] = field(default_factory=dict)
    _lines: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _places: dict[str, Places] = field(default_factory=dict)

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
        """First and last-plus-one character of what the span points at on its line.

        That is the call that starts there; where the column is unknown, the value that the line assigns or hands over.
        """
        text = self.line(span.path, span.line)
        if text is None or not text.strip():
            return None
        indent, end = len(text) - len(text.lstrip()), len(text.rstrip())
        start = _characters(text, span.column)
        if start < indent or start >= end:
            found = self._parsed(span.path).values.get(span.line)
            return (_characters(text, found[0]), _characters(text, found[1])) if found else (indent, end)
        stop = self._parsed(span.path).ends.get((span.line, span.column))
        return start, end if stop is None else max(start + 1, _characters(text, stop))

    def column(self, span: Span) -> int:
        """The 1-based column of what the span points at."""
        found = self.underline(span)
        return (found[0] if found else span.column) + 1

    def _parsed(self, path: str) -> Places:
        if path not in self._places:
            self._places[path] = _places(self.lines(path))
        return self._places[path]


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


def _places(lines: tuple[str, ...]) -> Places:
    try:
        tree = ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Places({}, {})
    ends: dict[tuple[int, int], tuple[bool, int]] = {}
    values: dict[int, tuple[int, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.expr):
            rank, at = (isinstance(node, ast.Call), _end(node, lines)), (node.lineno, node.col_offset)
            ends[at] = max(rank, ends.get(at, rank))
        elif isinstance(node, ast.stmt) and (value := _value(node)) and value.lineno == node.lineno:
            values[node.lineno] = value.col_offset, _end(value, lines)
    return Places({at: end for at, (_, end) in ends.items()}, values)


def _value(statement: ast.stmt) -> ast.expr | None:
    """The right side of an assignment; the first call handed to a method such as `append`; None for the rest."""
    if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.Return)):
        return statement.value
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return next((given for given in statement.value.args if isinstance(given, ast.Call)), statement.value)
    return None


def _end(node: ast.expr, lines: tuple[str, ...]) -> int:
    """The byte column where the node ends, or where its first line does."""
    whole = node.end_col_offset is not None and node.end_lineno == node.lineno
    return int(node.end_col_offset or 0) if whole else len(lines[node.lineno - 1].rstrip().encode())


def _characters(text: str, column: int) -> int:
    """A UTF-8 byte column, as Python's tracebacks and `ast` count them, as a character column."""
    return len(text.encode()[:column].decode(errors="ignore"))
