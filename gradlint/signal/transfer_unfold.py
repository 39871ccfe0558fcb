"""Sliding windows laid side by side (unfold), and their sum (fold), axis by axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.patterns import Array
from gradlint.signal.site import Flow, Site, Unanswered
from gradlint.signal.stages import Stage, flow
from gradlint.signal.table import Axis, Table


@dataclass(frozen=True)
class Windows:
    """Windows along one axis: entry p = tap·dilation + window·stride − padding, or zero outside.

    `hits` counts (tap, window) inside the axis, and `shared[i, j]` pairs of them that are at one entry, with tap and
    window the same (1) or different (0).
    """

    size: int
    taps: int
    count: int
    hits: float
    shared: Array
    inside: Array  # the same for pairs of entries inside, at one entry or not

    def opened(self, same: Array, different: Array) -> Array:
        """(…, tap, window) from the axis's halves; pairs with one outside are zero."""
        total = self._pairs()
        values = np.zeros((*same.shape, 2, 2))
        for tap in (0, 1):
            for window in (0, 1):
                if total[tap, window] > 0:
                    met, apart = self.shared[tap, window], self.inside[tap, window] - self.shared[tap, window]
                    values[..., tap, window] = (met * same + apart * different) / total[tap, window]
        return values

    def summed(self, values: Array) -> tuple[Array, Array]:
        """The adjoint: (same, different) over entries of the axis."""
        met = (values * self.shared).sum((-1, -2)) / self.size
        apart = (values * (self.inside - self.shared)).sum((-1, -2)) / max(self.size * (self.size - 1.0), 1.0)
        return met, apart

    def _pairs(self) -> Array:
        taps, windows = self.taps, self.count
        return np.outer([taps * (taps - 1.0), taps], [windows * (windows - 1.0), windows])


def windows(size: int, taps: int, count: int, stride: int, dilation: int = 1, padding: int = 0) -> Windows:
    """The windows of an axis, counted."""
    place = np.arange(taps)[:, None] * dilation + np.arange(count)[None] * stride - padding
    valid = (place >= 0) & (place < size)
    shared, inside = np.zeros((2, 2)), np.zeros((2, 2))
    tap = np.broadcast_to(np.arange(taps)[:, None], place.shape)[valid]
    window = np.broadcast_to(np.arange(count)[None], place.shape)[valid]
    at = place[valid]
    hits = float(len(at))
    by = [(np.bincount(at), 0), (np.bincount(tap), 1), (np.bincount(window), 2)]
    at_pairs, tap_pairs, window_pairs = (float((counts.astype(float) ** 2).sum()) for counts, _ in by)
    shared[1, 1] = inside[1, 1] = hits
    inside[1, 0], inside[0, 1] = tap_pairs - hits, window_pairs - hits
    inside[0, 0] = hits**2 - tap_pairs - window_pairs + hits
    shared[0, 0] = at_pairs - hits
    return Windows(size, taps, count, hits, shared, inside)


def _both_axes(site: Site, name: str, default: int) -> list[int]:
    """A size along both spatial axes."""
    return site.integers(name, 2, default)


def unfold(site: Site) -> Flow:
    """(B, C, H, W) → (B, C·kh·kw, L): the columns of a convolution."""
    x = site.field()
    if len(x.dims) != 4:
        raise Unanswered("unfold of other than images")
    return flow(site.id("input"), _columns(x, *_geometry(site, x.shape[2:])))


def _geometry(site: Site, size: Sequence[int]) -> list[Windows]:
    kernel, stride = _both_axes(site, "kernel_size", 1), _both_axes(site, "stride", 1)
    dilation, padding = _both_axes(site, "dilation", 1), _both_axes(site, "padding", 0)
    counts = [(size[i] + 2 * padding[i] - dilation[i] * (kernel[i] - 1) - 1) // stride[i] + 1 for i in (0, 1)]
    return [windows(size[i], kernel[i], counts[i], stride[i], dilation[i], padding[i]) for i in (0, 1)]


def _columns(x: Field, high: Windows, wide: Windows) -> Stage:
    values = _image(x.table)
    opened = _opened(values, high, wide)
    out = _as_columns(x, opened, high, wide)

    def back(cotangent: Cotangent) -> Cotangent:
        given = tables.regroup(cotangent.table, out.dims).collapse()
        return Cotangent(_as_image(_summed(_split(given, x, high, wide), high, wide), x))

    share = high.hits * wide.hits / (high.taps * high.count * wide.taps * wide.count)
    return Stage(Field(out, np.array([x.average * share])), back)


def fold(site: Site) -> Flow:
    """(B, C·kh·kw, L) → (B, C, H, W): the adjoint of unfold."""
    x = site.field()
    size = _both_axes(site, "output_size", 1)
    shape = site.shape()
    high, wide = _geometry(site, size)
    like = Field(tables.constant(tables.dims_of(shape, batch=0), 1.0), np.zeros(1))
    columns = _as_columns(like, _opened(_image(like.table), high, wide), high, wide)
    summed = _as_image(
        _summed(_split(tables.regroup(x.table.collapse(), columns.dims), like, high, wide), high, wide), like
    )
    count = high.hits * wide.hits / math.prod(size)

    def back(cotangent: Cotangent) -> Cotangent:
        given = Field(tables.regroup(cotangent.table, like.dims).collapse(), np.zeros(1))
        into = _as_columns(given, _opened(_image(given.table), high, wide), high, wide)
        return Cotangent(tables.regroup(into, x.dims))

    return flow(site.id("input"), Stage(Field(summed, np.array([x.average * count])), back))


def _image(table: Table) -> Array:
    """(batch…, channel…, rows, columns) with one axis for the rows and one for the columns, both always there."""
    table = tables.merge_dim(tables.merge_dim(table.collapse(), 2), 3)
    values = table.values
    if not table.dims[2]:
        values = patterns.insert(values, table.starts[2])
    if not table.dims[3]:
        values = patterns.insert(values, values.ndim - 1)
    return values


def _opened(values: Array, high: Windows, wide: Windows) -> Array:
    """(…, rows, columns) → (…, row tap, row window, column tap, column window)."""
    rows = high.opened(values[..., 1, :], values[..., 0, :])  # (…, columns, tap, window)
    moved = np.moveaxis(rows, -3, -1)  # (…, tap, window, columns)
    return wide.opened(moved[..., 1], moved[..., 0])


def _summed(values: Array, high: Windows, wide: Windows) -> Array:
    same, different = wide.summed(values)  # (…, row tap, row window)
    columns = np.stack([different, same], -1)
    moved = np.moveaxis(columns, -1, -3)  # (…, columns, tap, window)
    met, apart = high.summed(moved)
    return np.stack([apart, met], -2)


def _as_columns(x: Field, values: Array, high: Windows, wide: Windows) -> Table:
    """(…, kh, Lh, kw, Lw) as (B, C·kh·kw, Lh·Lw); axes of length 1 go."""
    lead = values.ndim - 4
    turned = np.moveaxis(values, [lead, lead + 2, lead + 1, lead + 3], [lead, lead + 1, lead + 2, lead + 3])
    sizes = [high.taps, wide.taps, high.count, wide.count]
    taps = tuple(Axis(size) for size in sizes[:2] if size > 1)
    places = tuple(Axis(size) for size in sizes[2:] if size > 1)
    index = [slice(None)] * lead + [slice(None) if size > 1 else 1 for size in sizes]
    return Table((x.dims[0], (*x.dims[1], *taps), places), turned[tuple(index)])


def _split(given: Table, x: Field, high: Windows, wide: Windows) -> Array:
    """The inverse of `_as_columns`."""
    sizes = [high.taps, wide.taps, high.count, wide.count]
    values = given.values
    lead = 1 + len(x.dims[0]) + len(x.dims[1])
    for place, size in enumerate(sizes):
        if size == 1:
            values = patterns.insert(values, lead - 1 + place)
    return np.moveaxis(values, [lead, lead + 1, lead + 2, lead + 3], [lead, lead + 2, lead + 1, lead + 3])


def _as_image(values: Array, x: Field) -> Table:
    rows, columns = x.shape[2:]
    index: list[slice | int] = [slice(None)] * values.ndim
    if rows == 1:
        index[-2] = 1
    if columns == 1:
        index[-1] = 1
    dims = (x.dims[0], x.dims[1], (Axis(rows),) if rows > 1 else (), (Axis(columns),) if columns > 1 else ())
    return tables.regroup(Table(dims, values[tuple(index)]), x.dims)


def slid(site: Site) -> Flow:
    """Tensor.unfold: windows along one dimension, their entries in a new last one."""
    x = site.field()
    dim = int(site.number("dim", 0)) % len(x.dims)
    taps, step = int(site.number("size", 1)), int(site.number("step", 1))
    return flow(site.id("input"), sliding(x, dim, windows(x.shape[dim], taps, site.shape()[dim], step)))


def sliding(x: Field, dim: int, found: Windows) -> Stage:
    """x with the windows of a dimension in its place, and their entries in a new last dimension."""
    table = tables.merge_dim(x.table.collapse_along(x.table.at(dim)).collapse(), dim)
    axis, taps = table.starts[dim], found.taps
    values = table.values if table.dims[dim] else patterns.insert(table.values, axis)
    opened = found.opened(patterns.take(values, axis, 1), patterns.take(values, axis, 0))
    lead = list(np.moveaxis(opened, -1, axis + 1).shape)
    turned = np.moveaxis(opened, -1, axis + 1)  # (…, window, …, tap)
    index: list[slice | int] = [slice(None)] * len(lead)
    if found.count == 1:
        index[axis + 1] = 1
    if taps == 1:
        index[-1] = 1
    dims = (
        *table.dims[:dim], (Axis(found.count),) if found.count > 1 else (), *table.dims[dim + 1 :],
        (Axis(taps),) if taps > 1 else (),
    )  # fmt: skip
    out = Table(dims, turned[tuple(index)])

    def back(cotangent: Cotangent) -> Cotangent:
        given = tables.regroup(cotangent.table, out.dims).collapse().values
        if found.count == 1:
            given = patterns.insert(given, axis)
        if taps == 1:
            given = patterns.insert(given, given.ndim - 1)
        met, apart = found.summed(np.moveaxis(given, axis + 1, -1))
        if not table.dims[dim]:
            return Cotangent(tables.regroup(table.with_values(met), x.dims))
        return Cotangent(tables.regroup(table.with_values(patterns.put(axis, met, apart)), x.dims))

    return Stage(Field(out, np.array([x.average])), back)
