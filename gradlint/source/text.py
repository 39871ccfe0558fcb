"""The text of a user's file, decoded as Python would, and its syntax tree."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from gradlint.error import LoadError
from gradlint.graph.ir import Span


@dataclass(frozen=True)
class Source:
    """One parsed file: `path` is absolute, `shown` is the path as the user gave it."""

    path: Path
    shown: str
    text: str
    tree: ast.Module = field(repr=False, compare=False)

    def span(self, node: ast.AST) -> Span:
        """The place of a node of the tree, under the path as the user gave it."""
        return Span(self.shown, getattr(node, "lineno", 1), getattr(node, "col_offset", 0))

    def segment(self, node: ast.AST) -> str:
        """The source text of an expression, or its unparsed form when it was synthesised or stands on several lines."""
        text = ast.get_source_segment(self.text, node)
        return text if text and "\n" not in text else ast.unparse(node)


def read(path: Path, shown: str | None = None) -> Source:
    """Read and parse a Python file.

    Raises LoadError when it does not exist, cannot be decoded by its declared encoding (PEP 263) or has a syntax error.
    """
    shown = shown or str(path)
    text = _decode(path, shown)
    return Source(path.resolve(), shown, text, _parse(text, shown))


@lru_cache(maxsize=256)
def read_beside(path: Path) -> Source:
    """A file that another one imports; parsed once, since several imports lead to it."""
    return read(path)


def _decode(path: Path, shown: str) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise LoadError(f"no such file: {shown}", "check the path; a module is written package.module:EXPR") from None
    except OSError as error:
        raise LoadError(f"cannot read {shown}: {error.strerror}") from error
    if b"\0" in data:
        raise LoadError(f"{shown} is not Python source: it contains null bytes")
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        return io.TextIOWrapper(io.BytesIO(data), encoding).read()
    except (SyntaxError, UnicodeDecodeError) as error:
        hint = "save it as UTF-8, or declare its encoding in the first line: # -*- coding: latin-1 -*-"
        raise LoadError(f"cannot decode {shown}: {error}", hint) from error


def _parse(text: str, shown: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text, filename=shown)
        return ast.Module([_named_lambda(statement) for statement in tree.body], tree.type_ignores)
    except SyntaxError as error:
        span = Span(shown, error.lineno or 1, max((error.offset or 1) - 1, 0))
        raise LoadError(f"syntax error: {error.msg}", "gradlint parses with the Python it runs in", span) from error
    except (RecursionError, MemoryError) as error:
        raise LoadError(f"{shown} is nested too deeply to parse") from error


def _named_lambda(statement: ast.stmt) -> ast.stmt:
    """`build = lambda n: …` at module level as the function that it is, so that it counts as one everywhere."""
    if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda)):
        return statement
    if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
        return statement
    made = statement.value
    function = ast.parse(f"def {statement.targets[0].id}(): ...").body[0]  # with the fields of this Python's grammar
    assert isinstance(function, ast.FunctionDef)
    function.args, function.body = made.args, [ast.copy_location(ast.Return(made.body), made.body)]
    return ast.copy_location(function, statement)
