"""Tell a TorchScript archive from a pickle, and check it before torch reads it: its size, and what its code may do."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

from gradlint.error import LoadError
from gradlint.load.exported_archive import check_sizes

MOST_TEXT = 2**26  # bytes of one file of code
MOST_NESTED = 200  # brackets within brackets: torch's parser is recursive
DEEPEST_LINE = 400  # spaces that a line is indented by
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
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise LoadError(f"{shown} is not a TorchScript archive that can be read: {error}") from error


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
