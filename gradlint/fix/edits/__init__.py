"""Fixes as edits of the user's file: places in its text and what stands there afterwards. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gradlint.finding import Change
from gradlint.fix.edits.text import Edit, NoEditError, SourceFile, merged

if TYPE_CHECKING:
    from gradlint.fix.edits.syntax import Syntax

KINDS = (
    "skip",
    "norm",
    "prenorm",
    "activation",
    "call",
    "guard",
    "fuse",
    "soften",
    "loss",
    "register",
    "init",
)  # each has a writer


def edits(source: SourceFile, changes: Sequence[Change]) -> list[Edit]:
    """The edits that make the changes in this file, in order. Raises NoEditError when one of them has no place."""
    # libcst takes time to import, and most runs write nothing
    from gradlint.fix.edits import activation, fused, guard, initialisation, loss, prenorm, scope, soften
    from gradlint.fix.edits.syntax import parsed

    syntax, groups = parsed(source), _by_kind(changes)
    found = merged(
        [
            *_blocks(syntax, groups["norm"], groups["skip"]),
            *prenorm.moved(syntax, groups["prenorm"]),
            *activation.swapped(syntax, groups["activation"]),
            *activation.called(syntax, groups["call"]),
            *scope.held(syntax, groups["register"]),
            *guard.guarded(syntax, groups["guard"]),
            *fused.fused(syntax, groups["fuse"]),
            *soften.softened(syntax, groups["soften"]),
            *loss.scored(syntax, groups["loss"]),
            *(initialisation.initialised(syntax, groups["init"]) if groups["init"] else ()),
        ]
    )
    if not changes or len(changes) > sum(map(len, groups.values())):
        raise NoEditError("there is no edit for a part of it")
    if found is None:
        raise NoEditError("its edits are in each other's way")
    return found


def _blocks(syntax: Syntax, norms: Sequence[Change], skips: Sequence[Change]) -> list[Edit]:
    """Norms and skips where the layers are made, or, where they have no place there, in the finished model."""
    from gradlint.fix.edits import later, norm, skip

    try:
        rows, within = skip.skipped(syntax, skips)
        return [*rows, *norm.normalised(syntax, norms, within)]
    except NoEditError as error:
        try:
            return later.put_in(syntax, norms, skips)
        except NoEditError:
            raise error from None


def _by_kind(changes: Sequence[Change]) -> dict[str, list[Change]]:
    """The changes that one writer makes, by its name."""
    alias = {"draw": "init", "untouched": "init", "final-norm": "prenorm"}
    groups: dict[str, list[Change]] = {name: [] for name in KINDS}
    for change in changes:
        name = alias.get(change.kind, change.kind)
        if name in groups:
            groups[name].append(change)
    return groups
