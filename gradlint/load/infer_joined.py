"""Repairs of a plan where inputs meet: joined at another resolution, enlarged to one another, rows beside sequences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from gradlint.load.infer_repair import SPATIAL, Broken, Change, rerank


def joined_size(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """`cat` wants one of its parts smaller or larger: an input at another resolution than the others."""
    wanted, came, place = (int(match[i]) for i in (1, 2, 3))
    operands = broken.refusal.call.operands if broken.refusal.call is not None else ()
    path = operands[place].input if place < len(operands) else ""
    guess = broken.plan.leaves().get(path)
    if guess is not None and guess.role in SPATIAL:
        sides = (wanted if broken.plan.size(axis) == came else axis for axis in guess.axes[2:])
        yield 0.1, broken.plan.put(path, replace(guess, axes=(*guess.axes[:2], *sides)))


def resized(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """`interpolate` to a size of so many axes: an image, a signal or a volume."""
    operands = broken.refusal.call.operands[:1] if broken.refusal.call is not None else ()
    for operand in operands:
        for path in operand.sources & set(broken.plan.leaves()):
            yield from rerank(broken, path, match[1].count(",") + 3 - len(operand.shape))


def as_many_axes(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """Features of a row meet those of every step: the row is a sequence as well."""
    operands = broken.refusal.call.operands[:2] if broken.refusal.call is not None else ()
    low, high = sorted(operands, key=lambda operand: len(operand.shape)) if len(operands) == 2 else (None, None)
    if low is None or high is None or not 1 < len(low.shape) < len(high.shape) or low.shape[-1] != high.shape[-1]:
        return
    leaves = broken.plan.leaves()
    for path in (low.sources - high.sources) & set(leaves):
        if leaves[path].role == "vector":
            yield from rerank(broken, path, len(high.shape) - len(low.shape))
