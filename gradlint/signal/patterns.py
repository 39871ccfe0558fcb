"""Arithmetic on patterns: arrays of shape (classes, 2, …, 2) with one entry a pair of indices that agree on some axes.

An axis has two entries, "different" (0) and "same" (1); axis i is array axis i + 1. `gradlint.signal.table` says what
the numbers are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def take(values: Array, axis: int, same: int) -> Array:
    """The entries with axis `axis` same (1) or different (0); the axis goes away."""
    taken: Array = values[_half(axis, same)]
    return taken


def take_all(values: Array, axes: Iterable[int], same: int = 1) -> Array:
    """`take` over several axes."""
    taken: Array = values[shared(values.ndim, axes, same)]
    return taken


def shared(ndim: int, axes: Iterable[int], same: int = 1) -> tuple[slice | int, ...]:
    """The index of the entries of an array of this rank that have all these axes the same (1) or different (0)."""
    return _shared(ndim, tuple(axes), same)


@lru_cache(maxsize=1024)
def _shared(ndim: int, axes: tuple[int, ...], same: int) -> tuple[slice | int, ...]:
    index: list[slice | int] = [slice(None)] * ndim
    for axis in axes:
        index[axis + 1] = same
    return tuple(index)


@lru_cache(maxsize=64)
def _half(axis: int, same: int) -> tuple[slice | int, ...]:
    """The index of one half along an axis."""
    return (*(slice(None),) * (axis + 1), same)


def put(axis: int, same: Array, different: Array) -> Array:
    """Insert an axis at position `axis` from its two halves."""
    shape = same.shape if same.shape == different.shape else np.broadcast_shapes(same.shape, different.shape)
    values: Array = np.empty((*shape[: axis + 1], 2, *shape[axis + 1 :]))
    values[_half(axis, 0)], values[_half(axis, 1)] = different, same
    return values


def insert(values: Array, axis: int, count: int = 1) -> Array:
    """Insert axes along which the tensor is constant."""
    shape = values.shape
    inserted: Array = np.empty((*shape[: axis + 1], *(2,) * count, *shape[axis + 1 :]))
    inserted[...] = values[(slice(None),) * (axis + 1) + (None,) * count]
    return inserted


def across(values: Array, axes: Iterable[int]) -> Array:
    """The values of the other axes, to broadcast against arrays that have these axes as well."""
    broadcast: Array = values[_across(values.ndim, tuple(axes))]
    return broadcast


@lru_cache(maxsize=1024)
def _across(ndim: int, axes: tuple[int, ...]) -> tuple[slice | None, ...]:
    index: list[slice | None] = [slice(None)] * ndim
    for axis in sorted(axes):
        index.insert(axis + 1, None)
    return tuple(index)


def average(values: Array, axes: Iterable[int], sizes: Sequence[int]) -> Array:
    """Average over all index pairs of the given axes, which go away. Collapse a profile along them first."""
    return _contracted(values, tuple(axes), sizes, chances)


def joint(values: Array, axes: Iterable[int], sizes: Sequence[int]) -> tuple[Array, Array]:
    """Axes read as one composite index: (same index, average over different ones); the axes go away."""
    axes = tuple(axes)
    same = take_all(values, axes)
    return same, same if all(sizes[axis] == 1 for axis in axes) else _contracted(values, axes, sizes, _different)


@lru_cache(maxsize=256)
def products(sizes: tuple[int, ...]) -> Array:
    """c[p, a, b] with Σ_l x_il y_lj = Σ_ab c[p, a, b] x_a y_b for indices i and j of pattern p over these axes."""
    whole: Array = np.ones((1, 1, 1))
    for size in sizes:
        axis = np.array([[[size - 2.0, 1.0], [1.0, 0.0]], [[size - 1.0, 0.0], [0.0, 1.0]]])
        whole = np.einsum("pab,qcd->pqacbd", whole, axis).reshape((2 * len(whole),) * 3)
    return whole


def pair_sum(values: Array, axes: Iterable[int], sizes: Sequence[int]) -> Array:
    """Sum over all index pairs of the given axes, which go away: n same and n(n−1) different pairs per axis."""
    return _contracted(values, tuple(axes), sizes, _pairs)


Weights = Callable[[tuple[int, ...]], Array]


def _contracted(values: Array, axes: tuple[int, ...], sizes: Sequence[int], weights: Weights) -> Array:
    """The sum over the patterns of these axes of their weights times the values."""
    if not axes:
        return values
    order = _last(values.ndim, axes)
    values = values.transpose(order) if order is not None else values
    flat = values.reshape((*values.shape[: values.ndim - len(axes)], -1))
    summed: Array = flat.dot(weights(tuple([sizes[axis] for axis in axes])))
    return summed


@lru_cache(maxsize=1024)
def _last(ndim: int, axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of array axes that puts these pattern axes last; None where they are there."""
    gone = [axis + 1 for axis in axes]
    order = (*(axis for axis in range(ndim) if axis not in gone), *gone)
    return None if order == tuple(range(ndim)) else order


@lru_cache(maxsize=4096)
def _pairs(sizes: tuple[int, ...]) -> Array:
    """Number of index pairs by pattern, (2^axes,)."""
    return _product([(size * (size - 1.0), float(size)) for size in sizes])


@lru_cache(maxsize=4096)
def chances(sizes: tuple[int, ...]) -> Array:
    """How often two indices of these axes, drawn at random, are of every pattern; flat."""
    return _product([((size - 1.0) / size, 1.0 / size) for size in sizes])


@lru_cache(maxsize=4096)
def _different(sizes: tuple[int, ...]) -> Array:
    """Share of the pairs that differ along some of the axes, by pattern."""
    shares = chances(sizes).copy()
    shares[-1] = 0.0
    different: Array = shares / shares.sum()
    return different


def _product(factors: Sequence[tuple[float, float]]) -> Array:
    """The product of one factor an axis, (different, same), by pattern."""
    product: Array = reduce(np.kron, np.array(factors), np.ones(1))
    return product
