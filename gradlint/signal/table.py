"""Second moments of a tensor by which axes two of its entries share (the ANOVA kernel), closed under relabelling."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradlint.signal.patterns import Array, average, insert, joint, put, take


class Axis(NamedTuple):
    """One atomic axis. Axes of size 1 do not exist: such a dimension has no axis at all."""

    size: int
    batch: bool = False


Dims = tuple[tuple[Axis, ...], ...]


class Layout(NamedTuple):
    """What follows from `dims` alone: all atomic axes and their sizes, the shape, where each dimension's axes start."""

    axes: tuple[Axis, ...]
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    starts: tuple[int, ...]


@lru_cache(maxsize=4096)
def layout_of(dims: Dims) -> Layout:
    """The layout of these dimensions."""
    axes = tuple(axis for dim in dims for axis in dim)
    shape = tuple(math.prod(axis.size for axis in dim) for dim in dims)
    starts = (0, *itertools.accumulate(len(dim) for dim in dims))
    return Layout(axes, tuple(axis.size for axis in axes), shape, starts)


class Profile(NamedTuple):
    """The axis along which moments vary: `counts` consecutive indices of it share one class of the table."""

    axis: int
    counts: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """values[k, p1, …, pn] = E[x_i x_j] over index pairs that agree exactly on the axes with p = 1, i in class k.

    `dims` lists the atomic axes of every dimension of the tensor, so that a view is an exact relabelling. `values` has
    shape (K, 2, …, 2): K classes along `profile.axis` (K = 1 without a profile), then one entry for "different" (0) and
    one for "same" (1) per axis. A class's "different" entry on the profile axis averages over all other indices.
    """

    dims: Dims
    values: Array
    profile: Profile | None = None

    @cached_property
    def layout(self) -> Layout:
        """What follows from the dimensions alone."""
        return layout_of(self.dims)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """All atomic axes in order; axis i is `values` axis i + 1."""
        return self.layout.axes

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of the atomic axes."""
        return self.layout.sizes

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.layout.shape

    @property
    def starts(self) -> tuple[int, ...]:
        """Position of the first atomic axis of every dimension, and the number of axes at the end."""
        return self.layout.starts

    def at(self, dim: int) -> range:
        """Positions of a dimension's atomic axes."""
        dim %= len(self.dims)
        starts = self.starts
        return range(starts[dim], starts[dim + 1])

    @cached_property
    def weights(self) -> Array:
        """Share of the profile axis in every class, shape (K,)."""
        if self.profile is None:
            return np.ones(1)
        counts: Array = np.asarray(self.profile.counts, dtype=np.float64)
        shares: Array = counts / counts.sum()
        return shares

    @cached_property
    def squares(self) -> Array:
        """E[x²] per class, shape (K,)."""
        return self.values.reshape(len(self.values), -1)[:, -1]

    @cached_property
    def square(self) -> float:
        """E[x²] over all entries."""
        return float(self.values.item(-1)) if self.profile is None else float(self.weights @ self.squares)

    def with_values(self, values: Array) -> Table:
        """The same layout with other values."""
        return Table(self.dims, values, self.profile if len(values) > 1 else None)

    def scaled(self, factor: float) -> Table:
        """Every moment times a factor."""
        return Table(self.dims, self.values * factor, self.profile)

    def collapse(self) -> Table:
        """One class for all: the average over the profile axis."""
        if self.profile is None:
            return self
        values = self.weights.dot(self.values.reshape(len(self.values), -1))
        return Table(self.dims, values.reshape((1, *self.values.shape[1:])))

    def collapse_along(self, axes: Iterable[int]) -> Table:
        """Collapsed when the profile runs along one of these axes."""
        return self.collapse() if self.profile is not None and self.profile.axis in axes else self

    def per_class(self, vector: Array) -> Array:
        """A vector over the classes, shaped (K, 1, …, 1) to broadcast against `values`."""
        return vector.reshape((-1,) + (1,) * (self.values.ndim - 1))


def constant(dims: Dims, same: float, different: float = 0.0) -> Table:
    """A table with one value where all axes agree and another everywhere else (white entries, or a constant)."""
    values = np.full((1,) + (2,) * sum(map(len, dims)), different)
    values[(0,) + (1,) * (values.ndim - 1)] = same
    return Table(dims, values)


def dims_of(shape: Sequence[int], batch: int | None = None) -> Dims:
    """One atomic axis per dimension larger than 1; `batch` names the dimension that counts samples."""
    return tuple((Axis(size, position == batch),) if size > 1 else () for position, size in enumerate(shape))


def merge_axes(table: Table, axes: range) -> Table:
    """Consecutive axes of one dimension as a single axis whose indices are exchangeable.

    Classes along the outermost one are kept, as runs of the merged axis.
    """
    if len(axes) < 2:
        return table
    table = table.collapse_along(axes[1:])
    same, different = joint(table.values, axes, table.sizes)
    size = math.prod(table.sizes[i] for i in axes)
    merged = Axis(size, table.axes[axes[0]].batch)
    dims = _replace_axes(table.dims, axes.start, len(axes), (merged,))
    profile = _shifted(table, axes.start, 1 - len(axes))
    if profile is not None and profile.axis == axes.start:
        inner = size // table.sizes[axes.start]
        profile = Profile(axes.start, tuple(count * inner for count in profile.counts))
    return Table(dims, put(axes.start, same, different), profile)


def split_axis(table: Table, axis: int, sizes: Sequence[int]) -> Table:
    """One axis as several (row-major): exact when its indices are exchangeable."""
    if len(sizes) == 1:
        return table
    table = _split_profile(table, axis, sizes)
    same, different = take(table.values, axis, 1), take(table.values, axis, 0)
    values = insert(different, axis, len(sizes))
    index: list[slice | int] = [slice(None)] * values.ndim
    index[axis + 1 : axis + 1 + len(sizes)] = [1] * len(sizes)
    values[tuple(index)] = same
    parts = tuple(Axis(size, table.axes[axis].batch and position == 0) for position, size in enumerate(sizes))
    profile = table.profile if table.profile is not None and table.profile.axis == axis else None
    return Table(
        _replace_axes(table.dims, axis, 1, parts),
        values,
        profile if profile is not None else _shifted(table, axis, len(sizes) - 1),
    )


def _split_profile(table: Table, axis: int, sizes: Sequence[int]) -> Table:
    """A profile along the axis survives the split when its classes are whole runs of the outermost part."""
    if table.profile is None or table.profile.axis != axis:
        return table
    inner = math.prod(sizes[1:])
    if any(count % inner for count in table.profile.counts):
        return table.collapse()
    return replace(table, profile=Profile(axis, tuple(count // inner for count in table.profile.counts)))


def _shifted(table: Table, position: int, by: int) -> Profile | None:
    profile = table.profile
    return profile if profile is None or profile.axis <= position else Profile(profile.axis + by, profile.counts)


def _replace_axes(dims: Dims, start: int, count: int, parts: tuple[Axis, ...]) -> Dims:
    position, out = 0, []
    for dim in dims:
        if position <= start and start + count <= position + len(dim):
            local = start - position
            out.append(dim[:local] + parts + dim[local + count :])
        else:
            out.append(dim)
        position += len(dim)
    return tuple(out)


def merge_dim(table: Table, dim: int) -> Table:
    """A composite dimension as one axis."""
    return merge_axes(table, table.at(dim))


def merge_dims(table: Table) -> Table:
    """Every dimension as at most one axis."""
    for dim in range(len(table.dims)):
        table = merge_dim(table, dim)
    return table


def regroup(table: Table, dims: Dims) -> Table:
    """The table on another atomic factorisation of the same shape; exact where axes only split."""
    if table.dims == dims:
        return table
    for dim, axes in enumerate(dims):
        if table.dims[dim] != axes:
            table = _regroup_dim(table, dim, [axis.size for axis in axes])
    return Table(dims, table.values, table.profile)


def _regroup_dim(table: Table, dim: int, sizes: Sequence[int]) -> Table:
    position = table.starts[dim]
    for old, new in _blocks([axis.size for axis in table.dims[dim]], sizes):
        if old != new:
            table = merge_axes(table, range(position, position + len(old)))
            table = split_axis(table, position, new)
        position += len(new)
    return table


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Both factorisations cut at the products that they share."""
    shared = set(itertools.accumulate(old, operator.mul)) & set(itertools.accumulate(new, operator.mul))
    blocks = []
    for sizes in (old, new):
        product = 1
        runs: list[list[int]] = []
        run: list[int] = []
        for size in sizes:
            product, run = product * size, [*run, size]
            if product in shared:
                runs.append(run)
                run = []
        blocks.append(runs)
    return list(zip(*blocks, strict=True))


def refine(first: Sequence[Axis], second: Sequence[Axis]) -> tuple[Axis, ...]:
    """The coarsest factorisation that refines both, or the first one when they do not nest."""
    if first == second:
        return tuple(first)
    cuts = sorted(
        set(itertools.accumulate((a.size for a in first), operator.mul))
        | set(itertools.accumulate((a.size for a in second), operator.mul))
    )
    if any(b % a for a, b in itertools.pairwise(cuts)):
        return tuple(first)
    batch = any(axis.batch for axis in (*first, *second))
    sizes = [b // a for a, b in itertools.pairwise([1, *cuts])]
    return tuple(Axis(size, batch and position == 0) for position, size in enumerate(sizes))


def permute(table: Table, order: Sequence[int]) -> Table:
    """The dimensions in another order."""
    axes = [axis for dim in order for axis in table.at(dim)]
    profile = table.profile and Profile(axes.index(table.profile.axis), table.profile.counts)
    values = np.transpose(table.values, [0, *(axis + 1 for axis in axes)])
    return Table(tuple(table.dims[dim] for dim in order), values, profile)


def reshape(table: Table, shape: Sequence[int]) -> Table:
    """Row-major view as `shape`; exact while the factors nest, otherwise the entries are taken as exchangeable."""
    sizes = _factor(table.sizes, shape)
    if sizes is None:
        flat = merge_axes(Table((table.axes,), table.values, table.profile), range(len(table.axes)))
        table = split_axis(flat, 0, [size for size in shape if size > 1] or [1])
        sizes = [[size] if size > 1 else [] for size in shape]
    else:
        fine = [size for group in sizes for size in group]
        table = _regroup_dim(Table((table.axes,), table.values, table.profile), 0, fine)
    axes, dims, position = table.axes, [], 0
    for group in sizes:
        dims.append(axes[position : position + len(group)])
        position += len(group)
    return Table(tuple(dims), table.values, table.profile)


def _factor(sizes: Sequence[int], shape: Sequence[int]) -> list[list[int]] | None:
    """The axes of every target dimension, splitting axes where needed; None when the factors do not nest."""
    pending, groups = list(sizes), []
    for target in shape:
        group: list[int] = []
        while target > 1:
            if not pending:
                return None
            size = pending.pop(0)
            if target % size and size % target:
                return None
            part = min(size, target)
            group.append(part)
            if size > part:
                pending.insert(0, size // part)
            target //= part
        groups.append(group)
    return groups


def expand(table: Table, dims: Dims) -> Table:
    """Broadcast to `dims` (of at least as many dimensions): new axes are constant, shared ones are regrouped."""
    padded: Dims = ((),) * (len(dims) - len(table.dims)) + table.dims
    table = Table(padded, table.values, table.profile)
    for dim, axes in enumerate(dims):
        if not table.dims[dim] and axes:
            position = table.starts[dim]
            values = insert(table.values, position, len(axes))
            profile = _shifted(table, position - 1, len(axes))
            table = Table((*table.dims[:dim], axes, *table.dims[dim + 1 :]), values, profile)
    return regroup(table, dims)


def sum_to(table: Table, dims: Dims) -> Table:
    """The adjoint of `expand`: axes that `dims` lacks are summed over all index pairs."""
    extra = len(table.dims) - len(dims)
    gone = [d for d in range(len(table.dims)) if table.dims[d] and (d < extra or not dims[d - extra])]
    table = total(table, gone)
    return regroup(Table(table.dims[extra:], table.values, table.profile), dims)


def total(table: Table, gone: Sequence[int]) -> Table:
    """Sum over dimensions, which keep size 1."""
    axes = [axis for dim in gone for axis in table.at(dim)]
    count = math.prod(table.sizes[axis] for axis in axes)
    averaged = mean(table, gone)
    return averaged.scaled(float(count) ** 2)


def mean(table: Table, gone: Sequence[int]) -> Table:
    """Average over dimensions, which keep size 1."""
    gone = [dim % len(table.dims) for dim in gone]
    axes = [axis for dim in gone for axis in table.at(dim)]
    table = table.collapse_along(axes)
    values = average(table.values, axes, table.sizes)
    profile = table.profile
    if profile is not None:
        profile = Profile(profile.axis - sum(axis < profile.axis for axis in axes), profile.counts)
    dims = tuple(() if dim in gone else axes for dim, axes in enumerate(table.dims))
    return Table(dims, values, profile)


def squeeze(table: Table, dims: Sequence[int]) -> Table:
    """Drop dimensions of size 1."""
    return replace(table, dims=tuple(axes for dim, axes in enumerate(table.dims) if dim not in dims))


def aligned(first: Table, second: Table) -> tuple[Table, Table]:
    """Both broadcast to one layout with one profile, so that their values combine entry by entry."""
    rank = max(len(first.dims), len(second.dims))
    padded: list[Dims] = [((),) * (rank - len(table.dims)) + table.dims for table in (first, second)]
    dims = tuple(refine(a, b) if a and b else a or b for a, b in zip(*padded, strict=True))
    return same_classes(expand(first, dims), expand(second, dims))


def same_classes(first: Table, second: Table) -> tuple[Table, Table]:
    """Two tables of one layout brought to the same classes."""
    if first.profile == second.profile or first.profile is None or second.profile is None:
        return first, second
    if first.profile.axis != second.profile.axis:
        return (first.collapse(), second) if _variation(first) < _variation(second) else (first, second.collapse())
    cuts = sorted({*itertools.accumulate(first.profile.counts), *itertools.accumulate(second.profile.counts)})
    counts = tuple(b - a for a, b in itertools.pairwise([0, *cuts]))
    profile = Profile(first.profile.axis, counts)
    return _reclassified(first, profile), _reclassified(second, profile)


def _reclassified(table: Table, profile: Profile) -> Table:
    assert table.profile is not None
    return Table(table.dims, table.values[class_of(table.profile.counts, profile.counts)], profile)


def class_of(coarse: Sequence[int], fine: Sequence[int]) -> NDArray[np.intp]:
    """For every fine class the coarse class that holds it."""
    ends = np.cumsum(coarse)
    return np.searchsorted(ends, np.cumsum(fine), side="left")


def _variation(table: Table) -> float:
    scale = table.square
    return float(table.weights @ (table.squares - scale) ** 2) / max(scale**2, 1e-300)


def combine(first: Table, second: Table, operation: Callable[[Array, Array], Array]) -> Table:
    """Two aligned tables combined entry by entry."""
    values = operation(first.values, second.values)
    return Table(first.dims, values, first.profile or second.profile)


def added(parts: Sequence[Table]) -> Table:
    """The sum of tables of one layout."""
    if all(part.profile is None for part in parts):
        return Table(parts[0].dims, reduce(np.add, [part.values for part in parts]))
    return reduce(lambda first, second: combine(*same_classes(first, second), np.add), parts)
