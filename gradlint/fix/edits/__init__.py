"""Fixes as edits of the user's file: places in its text and what stands there afterwards. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence

from gradlint.finding import Change
from gradlint.fix.edits.text import Edit, NoEditError, SourceFile, merged


def edits(source: SourceFile, changes: Sequence[Change]) -> list[Edit]:
    """The edits that make the changes in this file, in order. Raises NoEditError when one of them has no place."""
    from gradlint.fix.edits.activation import swapped  # libcst takes time to import, and most runs write nothing
    from gradlint.fix.edits.initialisation import initialised
    from gradlint.fix.edits.syntax import parsed

    syntax = parsed(source)
    swaps = [change for change in changes if change.kind == "activation"]
    inits = [change for change in changes if change.kind in ("init", "untouched")]
    if len(swaps) + len(inits) < len(changes) or not changes:
        raise NoEditError("there is no edit for a part of it")
    found = merged([*swapped(syntax, swaps), *(initialised(syntax, inits) if inits else ())])
    if found is None:
        raise NoEditError("its edits are in each other's way")
    return found
