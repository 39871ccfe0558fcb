"""Tell a TorchScript archive from a pickle, and check it before torch reads it: its size, and what its code may do."""

from __future__ import annotations

import pickle
import re
import zipfile
import zlib
from pathlib import Path

from gradlint.error import LoadError
from gradlint.load import scripted_tensors
from gradlint.load.exported_archive import check_sizes

MOST_TEXT = 2**26  # bytes of one file of code
MOST_NESTED = 200  # brackets within brackets: torch's parser is recursive
DEEPEST_LINE = 400  # spaces that a line is indented by
# whatever a hostile pickle or a damaged entry makes its reader raise
MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
    zlib.error,
)
NESTED = re.compile(r"[()\[\]]")
# what runs while torch reads the archive, or reaches beyond the model's own numbers
FORBIDDEN = re.compile(
    r"def (__setstate__)\b|(__torch__\.torch\.classes)\b|\b(?:torch|ops\.aten)\.(save|from_file|_from_file)\("
    r"|\bops\.(?!prim\b|aten\b)(\w+)"
)


def is_scripted(path: Path) -> bool:
    """Whether the file is an archive with TorchScript code in it. Reads its directory only."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return False
    return {"constants.pkl", "data.pkl"} <= names and any(name.startswith("code/") for name in names)


def check(path: Path, shown: str) -> None:
    """Raise LoadError unless the archive is one that can be read whole and safely."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_sizes(archive, path, shown)
            for entry in archive.infolist():
                if entry.filename.endswith(".py"):
                    if entry.file_size > MOST_TEXT:
                        raise LoadError(f"{shown}: {entry.filename} is {entry.file_size / 2**20:.0f} MiB of text")
                    _check_code(archive.read(entry).decode(), shown)
            for name in ("data", "constants"):
                _check_tensors(archive, name)
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise LoadError(f"{shown} is not a TorchScript archive that can be read: {_first(error)}") from error
    except MALFORMED as error:
        raise LoadError(f"{shown} is damaged: {_first(error)}") from error


def _check_tensors(archive: zipfile.ZipFile, name: str) -> None:
    """Raise what a damaged pickle raises, or ValueError when it describes tensors that its data does not hold."""
    entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
    described = entries.get(f"{name}.pkl")
    if described is None or described.file_size > MOST_TEXT:
        raise ValueError(f"{name}.pkl is missing or too large")
    sizes = {path.rpartition("/")[2]: e.file_size for path, e in entries.items() if path.startswith(f"{name}/")}
    scripted_tensors.check(archive.read(described), sizes)


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__


def _check_code(text: str, shown: str) -> None:
    found = FORBIDDEN.search(text)
    if found:
        name = next(group for group in found.groups() if group)
        raise LoadError(f"{shown} uses {name}, which gradlint does not run", "lint the model's source with --weights")
    depth = 0
    for bracket in NESTED.findall(text):
        depth += 1 if bracket in "([" else -1
        if depth > MOST_NESTED:
            raise LoadError(f"{shown} is nested too deeply")
    if any(len(line) - len(line.lstrip()) > DEEPEST_LINE for line in text.splitlines()):
        raise LoadError(f"{shown} is nested too deeply")
