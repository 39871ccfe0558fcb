"""Arithmetic on patterns: arrays of shape (classes, 2, …, 2) with one entry a pair of indices that agree on some axes.

An axis has two entries, "different" (0) and "same" (1); axis i is array axis i + 1. `gradlint.signal.table` says what
the numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def take(values: Array, axis: int, same: int) -> Array:
    """The entries with axis `axis` same (1) or different (0); the axis goes away."""
    index: tuple[slice | int, ...] = (slice(None),) * (axis + 1) + (same,)
    taken: Array = values[index]
    return taken


def take_all(values: Array, axes: Iterable[int], same: int = 1) -> Array:
    """`take` over several axes."""
    index: list[slice | int] = [slice(None)] * values.ndim
    for axis in axes:
        index[axis + 1] = same
    taken: Array = values[tuple(index)]
    return taken


def put(axis: int, same: Array, different: Array) -> Array:
    """Insert an axis at position `axis` from its two halves."""
    shape = same.shape if same.shape == different.shape else np.broadcast_shapes(same.shape, different.shape)
    values: Array = np.empty((*shape[: axis + 1], 2, *shape[axis + 1 :]))
    take(values, axis, 0)[...], take(values, axis, 1)[...] = different, same
    return values


def insert(values: Array, axis: int, count: int = 1) -> Array:
    """Insert axes along which the tensor is constant."""
    shape = values.shape
    inserted: Array = np.empty((*shape[: axis + 1], *(2,) * count, *shape[axis + 1 :]))
    inserted[...] = values[(slice(None),) * (axis + 1) + (None,) * count]
    return inserted


def average(values: Array, axes: Iterable[int], sizes: Sequence[int]) -> Array:
    """Average over all index pairs of the given axes, which go away. Collapse a profile along them first."""
    for axis in sorted(axes, reverse=True):
        size = sizes[axis]
        values = take(values, axis, 1) / size + take(values, axis, 0) * ((size - 1) / size)
    return values


def joint(values: Array, axes: Sequence[int], sizes: Sequence[int]) -> tuple[Array, Array]:
    """Axes read as one composite index: (same index, average over different ones); the axes go away."""
    count = math.prod(sizes[axis] for axis in axes)
    same = take_all(values, axes)
    if count == 1:
        return same, same
    mean = average(values, axes, sizes)
    return same, (mean * count - same) / (count - 1)


@lru_cache(maxsize=256)
def chances(sizes: tuple[int, ...]) -> Array:
    """How often two indices of these axes, drawn at random, are of every pattern; flat."""
    whole: Array = np.ones(1)
    for size in sizes:
        whole = np.multiply.outer(whole, np.array([1.0 - 1.0 / size, 1.0 / size])).reshape(-1)
    return whole


@lru_cache(maxsize=256)
def products(sizes: tuple[int, ...]) -> Array:
    """c[p, a, b] with Σ_l x_il y_lj = Σ_ab c[p, a, b] x_a y_b for indices i and j of pattern p over these axes."""
    whole: Array = np.ones((1, 1, 1))
    for size in sizes:
        axis = np.array([[[size - 2.0, 1.0], [1.0, 0.0]], [[size - 1.0, 0.0], [0.0, 1.0]]])
        whole = np.einsum("pab,qcd->pqacbd", whole, axis).reshape((2 * len(whole),) * 3)
    return whole


def pair_sum(values: Array, axes: Sequence[int], sizes: Sequence[int]) -> Array:
    """Sum over all index pairs of the given axes, which go away: n same and n(n−1) different pairs per axis."""
    for axis in sorted(axes, reverse=True):
        size = sizes[axis]
        values = take(values, axis, 1) * size + take(values, axis, 0) * (size * (size - 1.0))
    return values
