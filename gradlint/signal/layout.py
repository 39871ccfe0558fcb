"""Parts of a tensor along one dimension: cut out, put back, laid side by side."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.edges import blended
from gradlint.signal.field import Base, Field
from gradlint.signal.patterns import Array
from gradlint.signal.sway import mixed
from gradlint.signal.table import Axis, Dims, Profile, Table


def unsqueezed(table: Table, dim: int) -> Table:
    """A dimension of size 1 before `dim`."""
    return Table((*table.dims[:dim], (), *table.dims[dim:]), table.values, table.profile)


def restricted(table: Table, dim: int, start: int, length: int) -> Table:
    """`length` consecutive indices of a dimension (kept, with size 1 it has no axis)."""
    return parts_of(table, dim, [(start, length)])[0]


def parts_of(table: Table, dim: int, runs: Sequence[tuple[int, int]]) -> list[Table]:
    """`restricted` to several runs of indices, each by its start and length."""
    dim %= len(table.dims)
    size = table.shape[dim]
    merged = table if len(table.dims[dim]) < 2 else tables.merge_dim(table, dim)
    return [table if length == size else _run(merged, dim, start, length) for start, length in runs]


def _run(table: Table, dim: int, start: int, length: int) -> Table:
    axis, values, profile = table.starts[dim], table.values, table.profile
    if profile is not None and profile.axis == axis:
        values, profile = _classes(table, start, length)
    own = (Axis(length, table.axes[axis].batch),) if length > 1 else ()
    dims = (*table.dims[:dim], own, *table.dims[dim + 1 :])
    if length > 1:
        return Table(dims, values, profile)
    if profile is not None and profile.axis > axis:
        profile = Profile(profile.axis - 1, profile.counts)
    return Table(dims, patterns.take(values, axis, 1), profile)


def _classes(table: Table, start: int, length: int) -> tuple[Array, Profile | None]:
    """The classes of a profile that a run of indices touches.

    Of a class's pairs with different indices those with a single index that is cut off (a class token) are taken out:
    they are all of that index's own. Others that are cut off count as the average.
    """
    assert table.profile is not None
    axis, whole = table.profile
    ends, alone = _runs(whole)
    first, last = bisect.bisect_right(ends, start), bisect.bisect_left(ends, start + length)
    profile = None
    if first < last:
        touched = zip(ends[first : last + 1], whole[first : last + 1], strict=True)
        overlaps = [min(end, start + length) - max(end - count, start) for end, count in touched]
        profile = Profile(axis, tuple(overlaps))
    values = table.values[first : last + 1]
    single = [position for position in alone if not first <= position <= last]
    if single and length > 1:
        others = ends[-1] - 1 - len(single)
        same, different = patterns.take(values, axis, 1), patterns.take(values, axis, 0)
        across = patterns.take(table.values[single], axis, 0).sum(0)
        values = patterns.put(axis, same, different + (len(single) * different - across) / others)
    return values, profile


@lru_cache(maxsize=1024)
def _runs(counts: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Where the classes of a profile end, and which of them are a single index."""
    return list(itertools.accumulate(counts)), [position for position, count in enumerate(counts) if count == 1]


def embedded(table: Table, dims: Dims, dim: int, start: int) -> Table:
    """The adjoint of `restricted`: the part where it was, zero elsewhere, as classes of a profile."""
    dim %= len(dims)
    whole = Table(dims, np.zeros((1,) + (2,) * sum(map(len, dims))))
    size, length = whole.shape[dim], table.shape[dim]
    if length == size:
        return tables.regroup(table, dims)
    part = tables.merge_dim(table, dim)
    axis = part.starts[dim]
    if not part.dims[dim]:
        part = Table(part.dims, patterns.put(axis, part.values, np.zeros_like(part.values)), _moved(part.profile, axis))
    counts, values, extra = _padded_classes(part, axis, size, start, length)
    single = (*part.dims[:dim], (Axis(size),), *part.dims[dim + 1 :])
    profile = Profile(axis, counts) if extra else part.profile
    return tables.regroup(Table(single, values, profile), dims)


def _moved(profile: Profile | None, axis: int) -> Profile | None:
    return profile if profile is None or profile.axis < axis else Profile(profile.axis + 1, profile.counts)


def _padded_classes(part: Table, axis: int, size: int, start: int, length: int) -> tuple[tuple[int, ...], Array, bool]:
    """Classes (before, the part's own, after) when the profile is free or runs along this axis; else an even spread."""
    profile = part.profile
    same, different = patterns.take(part.values, axis, 1), patterns.take(part.values, axis, 0)
    if profile is not None and profile.axis != axis:
        spread = patterns.put(axis, same * length / size, different * (length * (length - 1.0) / (size * (size - 1.0))))
        return (), spread, False
    counts = profile.counts if profile is not None else (length,)
    own = patterns.put(axis, same, different * ((length - 1.0) / (size - 1.0)))
    empty = np.zeros((1, *own.shape[1:]))
    pieces = [
        (start, empty),
        *((count, own[k : k + 1]) for k, count in enumerate(counts)),
        (size - start - length, empty),
    ]
    kept = [(count, values) for count, values in pieces if count > 0]
    return tuple(count for count, _ in kept), np.concatenate([values for _, values in kept]), True


def concatenated(fields: Sequence[Field], dim: int) -> Field:
    """Fields side by side along `dim`, which gets a profile of their classes; the law is kept where all share it."""
    if len(fields) == 1:
        return fields[0]
    dims = _common_dims(fields, dim)
    parts = [_flat(field, dims, dim) for field in fields]
    table, mean = _joined(
        [field.table for field in parts], [_by_class(field.table, field.mean) for field in parts], dim
    )
    shares = [field.variance * field.shape[dim] for field in fields]
    total = max(sum(shares), 1e-300)
    sway = mixed([(share / total, field.sway) for share, field in zip(shares, fields, strict=True)])
    return Field(
        table,
        mean,
        _joined_law(parts, table, dim),
        sway=sway,
        edges=blended([(share, field.edges) for share, field in zip(shares, fields, strict=True)]) if dim == 1 else (),
    )


def _common_dims(fields: Sequence[Field], dim: int) -> Dims:
    dims = fields[0].dims
    for field in fields[1:]:
        if field.dims == dims:
            continue
        dims = tuple(
            a if position == dim else (tables.refine(a, b) if a and b else a)
            for position, (a, b) in enumerate(zip(dims, field.dims, strict=True))
        )
    return dims


def _flat(field: Field, dims: Dims, dim: int) -> Field:
    """The field with `dim` as one axis (inserted when it has size 1) and the other dimensions as in `dims`."""
    profile, own = field.table.profile, field.dims
    alike = len(own[dim]) == 1 and own[:dim] == dims[:dim] and own[dim + 1 :] == dims[dim + 1 :]
    if alike and (profile is None or profile.axis == field.table.starts[dim]):
        return field

    def relabel(table: Table) -> Table:
        table = tables.merge_dim(table, dim)
        table = tables.regroup(table, (*dims[:dim], table.dims[dim], *dims[dim + 1 :]))
        position = table.starts[dim]
        if table.profile is not None and (not table.dims[dim] or table.profile.axis != position):
            table = table.collapse()
        if table.dims[dim]:
            return table
        values = patterns.insert(table.values, position)
        return Table((*table.dims[:dim], (Axis(1),), *table.dims[dim + 1 :]), values, table.profile)

    return field.relabelled(relabel, ("part", dim))


def _by_class(table: Table, mean: Array) -> Array:
    return mean if len(mean) == len(table.values) else np.broadcast_to(mean, (len(table.values),))


def _joined(parts: Sequence[Table], means: Sequence[Array], dim: int) -> tuple[Table, Array]:
    """The parts' classes one after the other: entries of different parts have their means in common."""
    axis = parts[0].starts[dim]
    lengths = [part.sizes[axis] for part in parts]
    size, classes = sum(lengths), [len(part.values) for part in parts]
    counts = [
        count
        for part, length in zip(parts, lengths, strict=True)
        for count in (part.profile.counts if part.profile is not None else (length,))
    ]
    values, mean = np.concatenate([part.values for part in parts]), np.concatenate(means)
    own = np.repeat(lengths, classes)
    sums = np.repeat(np.add.reduceat(mean * counts, np.cumsum([0, *classes[:-1]])), classes)
    column = (-1,) + (1,) * (values.ndim - 2)
    different = patterns.take(values, axis, 0)
    different *= (own - 1).reshape(column)
    different += (mean * (mean @ counts - sums)).reshape(column)
    different /= size - 1
    dims = (*parts[0].dims[:dim], (Axis(size, parts[0].axes[axis].batch),), *parts[0].dims[dim + 1 :])
    return Table(dims, values, Profile(axis, tuple(counts))), mean


def _joined_law(parts: Sequence[Field], table: Table, dim: int) -> Base | None:
    laws = [part.law for part in parts]
    if len({law.function for law in laws}) > 1 or laws[0].function.key == "x":
        return None
    base, mean = _joined([law.table for law in laws], [_by_class(law.table, law.mean) for law in laws], dim)
    return Base(base, mean, laws[0].function, ("joined", *(law.source for law in laws)))


def resized(table: Table, dim: int, length: int) -> Table:
    """A dimension with another number of exchangeable indices."""
    dim %= len(table.dims)
    table = tables.merge_dim(table.collapse_along(table.at(dim)), dim)
    if not table.dims[dim]:
        return table
    axis = table.starts[dim]
    if length == 1:
        return restricted(table, dim, 0, 1)
    changed = (Axis(length, table.axes[axis].batch),)
    return Table((*table.dims[:dim], changed, *table.dims[dim + 1 :]), table.values, table.profile)


def spread(table: Table, dims: Dims, dim: int) -> Table:
    """The adjoint of `resized`: the gradient of m of n indices, spread evenly over all n."""
    dim %= len(dims)
    table = tables.merge_dim(table.collapse_along(table.at(dim)), dim)
    size, length = Table(dims, table.values).shape[dim], table.shape[dim]
    axis = table.starts[dim]
    values, profile = table.values, table.profile
    if not table.dims[dim]:
        values, profile = patterns.put(axis, values, np.zeros_like(values)), _moved(profile, axis)
    same, different = patterns.take(values, axis, 1), patterns.take(values, axis, 0)
    values = patterns.put(axis, same * length / size, different * (length * (length - 1.0) / (size * (size - 1.0))))
    single = (*table.dims[:dim], (Axis(size),), *table.dims[dim + 1 :])
    return tables.regroup(Table(single, values, profile), dims)
