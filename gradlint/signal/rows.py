"""A weight's output channel by channel: few taps a channel make channels differ, which a norm by channel evens out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from gradlint.graph.memo import attached
from gradlint.signal.field import Cotangent
from gradlint.signal.patterns import Array
from gradlint.signal.site import Square
from gradlint.signal.weights import Weight

NARROW = 1024  # entries a row above which channels hardly differ: the variance of a row's energy is 2/entries


def rows_of(same: Array, weight: Weight) -> Array | None:
    """The "same channel" moments of every output channel, (C, …), in proportion to its row's energy."""
    square = weight.rows.get("square")
    if square is None or weight.square <= 0.0 or weight.shape[0] < 2 or _entries(weight) > NARROW:
        return None
    relative: Array = square * (weight.shape[0] / weight.square)
    return np.multiply.outer(relative, same)


def filtered(parts: Array, maps: Array, weight: Weight, counted: Sequence[float]) -> Array | None:
    """The same from the sums of every filter: `parts` (batch, subsets), `maps` (subsets, patterns) without the sums.

    `counted` says for every tap axis how many of its taps are in reach of the map.
    """
    if not weight.filters:
        return None
    sums = _filters(weight, tuple([part / size for part, size in zip(counted, weight.shape[2:], strict=True)]))
    moments: Array = sums @ (parts.T[:, :, None] * maps[:, None]).reshape(len(maps), -1)
    return moments.reshape(len(sums), len(parts), -1)


@attached
def _filters(weight: Weight, shares: tuple[float, ...]) -> Array:
    """The sums of every filter by subset of (channel, taps) with these shares of the taps in reach, (C, subsets)."""
    subsets = _subsets(len(weight.shape) - 1)
    return np.stack([_within(weight.filters[kept], kept, shares) for kept in subsets], axis=-1)


def _within(sums: Array, kept: str, shares: Sequence[float]) -> Array:
    """The sums over the axes of `kept`, as different between channels as the taps in reach make them."""
    return spread_further(sums, math.prod(shares[int(axis) - 2] for axis in kept if int(axis) > 1))


def spread_further(sums: Array, share: float) -> Array:
    """Sums of squares over the taps by channel, as different as if only this share of the taps were in them.

    The relative variance of Σw² over n taps is 2/n: that of the log, which keeps them positive, grows by 1/share.
    """
    if share >= 1.0 - 1e-9 or not np.all(sums > 0.0):
        return sums
    further: Array = sums ** (share**-0.5)
    levelled: Array = further * (sums.mean() / further.mean())
    return levelled


def weighed(weight: Weight, relative: Array) -> Weight:
    """The weight with each output channel's energy times a number: what W meets of a gradient of that size by channel.

    Only the sums that keep output channels apart change.
    """
    square = weight.rows.get("square")
    if square is None:
        return weight
    overall = float(relative @ square) / max(weight.square, 1e-300)
    sums = dict(weight.sums)
    for kept in sums:
        if not kept.startswith("0"):
            continue
        filters = weight.filters.get(kept[1:])
        sums[kept] = sums[kept] * overall if filters is None else float(relative @ filters)
    return replace(weight, sums=sums)


def tangent(square: Square, weight: Weight, cotangent: Cotangent) -> Square:
    """The gradient of a weight whose output a norm by channel reads: nothing of it lies along its own row.

    A row of n entries has n − 1 directions left; along w itself Σ g·w = Σ δ y is what the norm's ε leaves.
    """
    entries, energy = _entries(weight), weight.rows.get("square")
    if cotangent.orthogonal is None or energy is None or not np.all(energy > 0.0):
        return square
    left = square.value * (1.0 - cotangent.orthogonal.share / entries)
    along: Array = cotangent.orthogonal.rest / energy / entries
    total, alone = left + float(along.mean()), entries == 1 and cotangent.orthogonal.share == 1.0
    if not total > 0.0:
        return Square(total, total if alone else square.magnitude)
    count = len(along) * total**2 / (left**2 / entries + float((along**2).mean()))
    return Square(total, total if alone else square.magnitude, count)


def _entries(weight: Weight) -> int:
    return math.prod(weight.shape[1:])


@lru_cache(maxsize=8)
def _subsets(rank: int) -> list[str]:
    """Subsets of (channel, taps…) in the order of `itertools.product((0, 1), repeat=rank)`, by the axes they hold."""
    return [
        "".join(str(axis + 1) for axis, present in enumerate(subset) if present)
        for subset in itertools.product((0, 1), repeat=rank)
    ]
