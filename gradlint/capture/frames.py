"""Which line of the user's code made a call: frames ranked as the user's, a library's or machinery."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from types import CodeType, FrameType

import torch

from gradlint.capture.record import Place

MACHINERY, LIBRARY, USER = 0, 1, 2

_IGNORED = tuple(
    str(Path(root)) + "/"
    for root in (
        Path(torch.__file__).parent,
        Path(__file__).parents[1],
        sysconfig.get_paths()["stdlib"],
    )
)
_PACKAGES = ("/site-packages/", "/dist-packages/")
_SHELLS = ("<stdin>", "<ipython")
_ranks: dict[str, int] = {}


def rank(path: str) -> int:
    """Whose code a file is: torch's, gradlint's and the standard library's count as machinery."""
    known = _ranks.get(path)
    if known is None:
        known = _ranks[path] = _rank(path.replace("\\", "/"))
    return known


def _rank(path: str) -> int:
    if path.startswith("<"):
        return USER if path.startswith(_SHELLS) else MACHINERY
    library = any(part in path for part in _PACKAGES)
    if path.startswith(_IGNORED[:2]) or (path.startswith(_IGNORED[2]) and not library):
        return MACHINERY
    return LIBRARY if library else USER


def nearest(frame: FrameType | None, stop: frozenset[CodeType]) -> tuple[Place | None, FrameType | None]:
    """Walk outwards to the innermost user frame; without one, the innermost library frame.

    Returns that place and the frame whose code is in `stop`, where the walk ended, or None when it did not get there.
    """
    found: Place | None = None
    while frame is not None:
        code = frame.f_code
        if code in stop:
            return found, frame
        level = rank(code.co_filename)
        if level == USER:
            return (USER, code.co_filename, frame.f_lineno), None
        if level == LIBRARY and found is None:
            found = (LIBRARY, code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return found, None
