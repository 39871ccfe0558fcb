"""Zero padding: how the second moment falls off towards the edges of a map, one vector per spatial axis.

E[x²] at a position is taken as the product over the axes of a vector of mean 1. Convolutions read the middle of a map
more often than its border, so what they make of it is larger than the mean over positions says.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from functools import lru_cache, reduce
from typing import TypeVar

import numpy as np

from gradlint.signal.patterns import Array

Edges = tuple[Array, ...]  # one vector per spatial axis, or () where the moments are even
Near = tuple[Array, ...]  # one matrix per spatial axis, or () where two positions are alike whichever they are
T = TypeVar("T")


def along(function: Callable[..., T], *axes: Sequence[object]) -> list[T]:
    """The function axis by axis; an axis with the very arguments of the one before it shares its result."""
    found: list[T] = []
    before: tuple[object, ...] = ()
    for given in zip(*axes, strict=True):
        same = bool(found) and all(map(operator.is_, given, before))
        found.append(found[-1] if same else function(*given))
        before = given
    return found


@lru_cache(maxsize=256)
def _ones(size: int) -> Array:
    ones = np.ones(size)
    ones.setflags(write=False)
    return ones


def even(edges: Edges, sizes: Sequence[int]) -> Edges:
    """The edges, or ones where there are none (or none of these sizes)."""
    if [*map(len, edges)] == [*sizes]:
        return edges
    return tuple(_ones(size) for size in sizes)


def two_apart(matrix: Array) -> float:
    """The mean over two different positions; over one where there is no other."""
    size = len(matrix)
    return float(matrix.sum() - np.trace(matrix)) / (size * (size - 1.0)) if size > 1 else float(matrix[0, 0])


def evened(matrix: Array) -> Array:
    """The matrix over its mean over two different positions."""
    even: Array = matrix / max(two_apart(matrix), 1e-300)
    return even


def joined(near: Near, sizes: Sequence[int]) -> Near:
    """The matrices, or ones where there are none (or none of these sizes)."""
    if tuple(len(matrix) for matrix in near) == tuple(sizes):
        return near
    return tuple(np.ones((size, size)) for size in sizes)


def blended(parts: Sequence[tuple[float, Edges]]) -> Edges:
    """A sum of tensors, each with its share of the second moment."""
    known = next((edges for _, edges in parts if edges), ())
    total = sum(share for share, _ in parts)
    if not known or not total > 0.0:
        return ()
    sizes = [*map(len, known)]
    shares = np.array([share for share, _ in parts]) / total

    def total_of(*vectors: Array) -> Array:
        mixed: Array = shares.dot(vectors)
        return mixed

    return tuple(along(total_of, *[even(edges, sizes) for _, edges in parts]))


def centred(edges: Edges, drift: Edges, common: float) -> Edges:
    """After the mean over the map is taken off: where x is small, minus its mean is what is left.

    `common` is the share of E[x²] that two positions have in common, `drift` how E[x(p)x̄] varies along the axes.
    """
    common = min(max(common, 0.0), 0.9)
    drift = drift or tuple(along(lambda edge: levelled(np.sqrt(edge)), edges))

    def less(edge: Array, mean: Array) -> Array:
        left: Array = np.maximum(edge - 2.0 * common * mean + common, 0.0) / (1.0 - common)
        return left

    return tuple(along(less, edges, drift))


def mean_of(vector: Array) -> float:
    """The mean of the entries."""
    return float(vector.dot(_ones(len(vector)))) / len(vector)


def levelled(vector: Array) -> Array:
    """The vector over its mean."""
    even: Array = vector / max(mean_of(vector), 1e-300)
    return even


def resampled(edges: Edges, sizes: Sequence[int]) -> Edges:
    """The edges of a map that a pool or an interpolation brings to these sizes."""
    if len(edges) != len(sizes) or any(size == 1 for size in sizes):
        return ()
    found = []
    for vector, size in zip(edges, sizes, strict=True):
        at = (np.arange(size) + 0.5) * len(vector) / size - 0.5
        new = np.interp(at, np.arange(len(vector)), vector)
        found.append(levelled(new))
    return tuple(found)


def sampled(near: Near, sizes: Sequence[int]) -> Near:
    """The matrices of a map whose windows are pooled to these sizes: those of the windows' middles."""
    if len(near) != len(sizes):
        return ()
    found = []
    for matrix, size in zip(near, sizes, strict=True):
        at = np.minimum(((np.arange(size) + 0.5) * len(matrix) / size).astype(int), len(matrix) - 1)
        found.append(evened(matrix[np.ix_(at, at)]))
    return tuple(found)


KNOTS = 5  # relative moments at which a function of them is evaluated
LEVEL = 1.02  # largest over smallest moment up to which a map counts as even


def through(edges: Edges, ratio: Callable[[float], float], arrived: Edges = ()) -> tuple[float, Edges]:
    """Mean over positions of a(p)·ratio(e(p)), and how that falls off along the axes.

    `ratio` says what a function makes of entries whose moment is a multiple of the mean one; `arrived` is a.
    """
    sizes = [len(vector) for vector in edges]
    other = even(arrived, sizes)
    whole = reduce(np.multiply.outer, edges, np.ones(()))
    low, high = float(whole.min()), float(whole.max())
    if not low > 0.0 or high < LEVEL * low:
        return 1.0, arrived
    knots = np.geomspace(low, high, KNOTS)
    seen = np.interp(np.log(whole), np.log(knots), [ratio(float(knot)) for knot in knots])
    found = reduce(np.multiply.outer, other, np.ones(())) * seen
    level = float(found.mean())
    if not level > 0.0:
        return 1.0, arrived
    axes = range(len(sizes))
    return level, tuple(found.mean(axis=tuple(a for a in axes if a != axis)) / level for axis in axes)
