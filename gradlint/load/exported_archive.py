"""Check a .pt2 archive before torch reads it: its size, and that nothing in it names code that would be run."""

from __future__ import annotations

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradlint.error import LoadError

MOST_ENTRIES = 200_000
RATIO = 4  # of unpacked to packed bytes: torch stores weights as they are
SLACK = 2**26  # bytes of text that may shrink further
MOST_TEXT = 2**29  # bytes of one description of a program
DEEPEST = 200
# what a graph may call: torch's operators, arithmetic on sizes
TARGETS = re.compile(
    r"(torch\.ops\.(aten|prims|higher_order|quantized_decomposed|_guards)\.[\w.]+"
    r"|aten\.[\w.]+|_operator\.\w+|math\.\w+|torch\.sym_\w+|torch\._higher_order_ops\.[\w.]+)"
)
CALLS = frozenset({"target"})
# sizes are evaluated as Python by sympy: names, numbers and arithmetic only
EXPRESSION = re.compile(r"[\w\s+\-*/%(),.<>=!&|~^]*")
NAMES = re.compile(r"_{2,}")


def check(path: Path, shown: str) -> None:
    """Raise LoadError unless the archive is a well-formed exported program that only calls torch's own operators."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_sizes(archive, path, shown)
            texts = [entry for entry in archive.infolist() if entry.filename.endswith(".json")]
            models = [entry for entry in texts if "/models/" in f"/{entry.filename}"]
            if not models:
                raise LoadError(f"{shown} holds no exported program", "save it with torch.export.save(program, path)")
            for entry in texts:
                if entry.file_size > MOST_TEXT:
                    raise LoadError(f"{shown}: {entry.filename} is {entry.file_size / 2**20:.0f} MiB of text")
                _check_text(json.loads(archive.read(entry)), shown)
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise LoadError(f"{shown} is not an exported program: {_first(error)}", "is the file complete?") from error
    except (ValueError, RecursionError) as error:  # json's errors, and zlib's of damaged entries
        raise LoadError(f"{shown} is damaged: {_first(error)}") from error


def check_sizes(archive: zipfile.ZipFile, path: Path, shown: str) -> None:
    """Raise LoadError for an archive that unpacks to far more than its own size."""
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise LoadError(f"{shown} holds {len(entries)} entries")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > RATIO * path.stat().st_size + SLACK:
        raise LoadError(f"{shown} would unpack to {unpacked / 2**30:.1f} GiB, far more than its size")


def _check_text(document: Any, shown: str) -> None:
    for key, value in _strings(document, 0):
        if key in CALLS and not TARGETS.fullmatch(value):
            raise LoadError(f"{shown} calls {value[:80]!r}, which is no operator of torch's", "it was not loaded")
        if key == "expr_str" and not _is_arithmetic(value):
            raise LoadError(f"{shown} holds a size that is no arithmetic: {value[:80]!r}", "it was not loaded")


def _is_arithmetic(text: str) -> bool:
    """Whether the text is an expression of names, numbers, operators and calls of plain names."""
    if len(text) > 10_000 or not EXPRESSION.fullmatch(text) or NAMES.search(text):
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return not any(isinstance(node, FORBIDDEN) for node in ast.walk(tree))


FORBIDDEN = (ast.Attribute, ast.Subscript, ast.Lambda, ast.Await, ast.Yield, ast.NamedExpr, ast.Starred, ast.JoinedStr)


def _strings(value: Any, depth: int, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of the document with the key it stands under."""
    if depth > DEEPEST:
        raise RecursionError("it is nested too deeply")
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _strings(item, depth + 1, name)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, depth + 1, key)


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
