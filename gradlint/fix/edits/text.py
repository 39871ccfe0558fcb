"""A file's text to edit, and its bytes: read once, written whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path

from gradlint.error import UsageError

# Ranks of insertions at one place: what closes a bracket or a list comes before what starts a line, and draws of
# weights before what puts the layers elsewhere.
DRAWN, STATEMENT, METHOD = 9, 10, 11


class NoEditError(Exception):
    """A change has no edit in this file; the message says why."""


@dataclass(frozen=True)
class Edit:
    """The text to put in the place of the bytes `start` … `end` of a file's UTF-8 text; equal ones insert.

    Of insertions at one place those of a lower `rank` come first: what opens the wider bracket, or closes the narrower.
    """

    start: int
    end: int
    text: str
    rank: int = 0

    @property
    def key(self) -> tuple[int, int, int, str]:
        """The place of the edit among others."""
        return self.start, self.end, self.rank, self.text


@dataclass(frozen=True)
class SourceFile:
    """A file as it was read: its bytes, and its text in UTF-8 without a byte order mark."""

    path: Path
    raw: bytes
    text: bytes
    encoding: str

    def edited(self, edits: Sequence[Edit]) -> SourceFile:
        """The file with edits that do not overlap; every byte outside them is kept. Raises UnicodeEncodeError."""
        text = self.text
        for edit in sorted(edits, key=lambda edit: edit.key, reverse=True):
            text = text[: edit.start] + edit.text.encode() + text[edit.end :]
        return replace(self, raw=text.decode().encode(self.encoding), text=text)


def read(path: Path) -> SourceFile:
    """The file behind the path. Raises UsageError when it cannot be read as Python's text."""
    real = path.resolve()
    try:
        raw = real.read_bytes()
        encoding, _ = tokenize.detect_encoding(BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (OSError, SyntaxError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot edit {path}: {error}") from error
    if text.encode(encoding) != raw:
        raise UsageError(f"cannot edit {path}: its encoding {encoding} does not give the same bytes again")
    return SourceFile(real, raw, text.encode(), encoding)


def write(before: SourceFile, after: SourceFile) -> None:
    """Put `after` in the file's place at once, with the same mode.

    Raises UsageError, and leaves the file as it was, when it is no longer as `before` says, or cannot be written.
    """
    path = before.path
    try:
        mode = path.stat().st_mode
        if not (mode & 0o200 and os.access(path, os.W_OK)):
            raise PermissionError(13, "it is read-only")
        if path.read_bytes() != before.raw:
            raise UsageError(f"cannot write {path}: it was changed meanwhile", "run gradlint again")
        _replace(path, after.raw, mode)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}", "the file is as it was") from error


def _replace(path: Path, raw: bytes, mode: int) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    fresh = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
        fresh.chmod(mode & 0o7777)
        os.replace(fresh, path)  # noqa: PTH105
    finally:
        fresh.unlink(missing_ok=True)


def merged(edits: Sequence[Edit]) -> list[Edit] | None:
    """The edits in order, each once; None when two of them overlap."""
    ordered = sorted(dict.fromkeys(edits), key=lambda edit: edit.key)
    clash = any(one.end > other.start for one, other in pairwise(ordered))
    return None if clash else ordered


def line_end(text: bytes, offset: int) -> int:
    """The offset just before the end of the line that holds `offset`."""
    found = re.compile(rb"[\r\n]").search(text, offset)
    return found.start() if found else len(text)
