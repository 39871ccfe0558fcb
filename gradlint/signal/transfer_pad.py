"""Padding: with a number, with the tensor's own entries, or with what a maximum after it never takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from gradlint.graph import HIDING
from gradlint.signal import layout, patterns
from gradlint.signal import table as tables
from gradlint.signal.edges import even, levelled
from gradlint.signal.field import Cotangent, Field, white
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import IDENTITY
from gradlint.signal.site import Contributions, Flow, Site, Unanswered
from gradlint.signal.table import Table
from gradlint.signal.transfer_pool import AxisMap, along_axes, axis_map
from gradlint.signal.undone import Reading, by_single_channels


@lru_cache(maxsize=1024)
def placed(size: int, out: int, before: int, mode: str) -> Array:
    """Padding (or cropping) of one axis, (out, size): zeros, reflection, replication or wrap-around."""
    matrix = np.zeros((out, size))
    for row in range(out):
        source = row - before
        if mode == "reflect":
            period = max(2 * (size - 1), 1)
            source = abs(source) % period
            source = min(source, period - source)
        elif mode == "replicate":
            source = min(max(source, 0), size - 1)
        elif mode == "circular":
            source %= size
        if 0 <= source < size:
            matrix[row, source] = 1.0
    matrix.setflags(write=False)
    return matrix


@lru_cache(maxsize=1024)
def placement(size: int, out: int, before: int, mode: str) -> AxisMap:
    """The same by its sums."""
    return axis_map(placed(size, out, before, mode))


def pad(site: Site) -> Flow:
    """Padding of the last dimensions: with a number, or with the tensor's own entries."""
    given = site.op.attrs.get("pad")
    mode = str(site.op.attrs.get("mode", "constant"))
    if not isinstance(given, Sequence):
        raise Unanswered("the padding is not known")
    number = site.op.attrs.get("value", 0.0) if mode == "constant" else 0.0
    number = float(number) if isinstance(number, int | float) else 0.0
    before, after = site.field().shape, site.shape()
    maps, matrices = {}, {}
    for position in range(len(given) // 2):
        dim = len(before) - 1 - position
        first = _first_of(given, position, after[dim] - before[dim])
        if before[dim] != after[dim] or first:
            maps[dim] = placement(before[dim], after[dim], first, mode)
            matrices[dim] = placed(before[dim], after[dim], first, mode)
    if number <= -HIDING or number == math.inf:
        return _unseen(site, maps)
    if number and len(maps) == 1:
        dim = next(iter(maps))
        return _beside(site, dim, _first_of(given, len(before) - 1 - dim, after[dim] - before[dim]), number)
    flow = _edged(site, along_axes(site, maps), matrices, number)
    return replace(flow, outputs=(_bordered(flow.outputs[0], maps, number, site.field().average),)) if number else flow


def _first_of(given: Sequence[object], position: int, added: int) -> int:
    """Entries before the first one of the dimension at this position from the end; half of all where it is computed."""
    first = given[2 * position]
    return first if isinstance(first, int) else added // 2


def _beside(site: Site, dim: int, first: int, number: float) -> Flow:
    """A block of one number on either side along one dimension: other classes than the entries between."""
    value, size = site.id("input"), site.shape()[dim]
    x = site.known(value)
    if first < 0 or first + x.shape[dim] > size:
        raise Unanswered("a dimension that is cropped on one side and padded with a number on the other")
    length = x.shape[dim]
    blocks = [(first, None), (length, x), (size - first - length, None)]
    shape = list(x.shape)
    parts = [
        white(tables.dims_of([*shape[:dim], count, *shape[dim + 1 :]]), number, 0.0) if part is None else part
        for count, part in blocks
        if count
    ]

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        into = layout.restricted(cotangent.table, dim, first, length)
        return {value: Cotangent(tables.regroup(into, x.dims))}

    return Flow((layout.concatenated(parts, dim),), backward)


def _edged(site: Site, flow: Flow, matrices: dict[int, Array], number: float) -> Flow:
    """The flow of a padded map with its edges: what is outside is not spread over it, nor is what comes back to it.

    Zeros add nothing to Σ δx, so that what a later norm by channel leaves of it is the same before and after.
    """
    x, y = site.field(), flow.outputs[0]
    sizes = x.shape[2:]
    assert y is not None
    if not sizes or min(matrices, default=0) < 2:
        return flow
    inward = [matrices.get(dim + 2, np.eye(size)) for dim, size in enumerate(sizes)]
    beyond = number**2 / max(x.table.square, 1e-300)
    edges = tuple(
        levelled(matrix @ edge + (1.0 - matrix.sum(1)) * beyond)
        for matrix, edge in zip(inward, even(x.edges, sizes), strict=True)
    )

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        found = dict(flow.backward(cotangents))
        given, into = cotangents[0], found.get(site.id("input"))
        if given is None or not isinstance(into, Cotangent):
            return found
        orthogonal = given.orthogonal
        if number == 0.0 and once and orthogonal is not None and orthogonal.source == field.source:
            kept = [matrix.sum(1) for matrix in inward]
            borders = even(given.edges, [len(inside) for inside in kept])
            energy = [np.atleast_1d((inside * edge).mean()) for inside, edge in zip(kept, borders, strict=True)]
            into = by_single_channels(into, given, x, Reading([np.atleast_1d(k.mean()) for k in kept], energy))
        if len(given.edges) != len(inward):
            return found | {site.id("input"): into}
        table = into.table
        for dim, (matrix, edge) in enumerate(zip(inward, given.edges, strict=True)):
            table = _weighed(table, dim + 2, *_kept(matrix, edge))
        back = tuple(levelled(matrix.T @ edge) for matrix, edge in zip(inward, given.edges, strict=True))
        return found | {site.id("input"): replace(into, table=tables.regroup(table, x.dims), edges=back)}

    once = all(matrix.sum(0).max() <= 1.0 for matrix in inward)
    field = replace(y, edges=edges)
    return Flow((field,), backward)


def _kept(matrix: Array, edge: Array) -> tuple[float, float]:
    """What a gradient of this edge leaves inside of a padded axis over what an even one does: one position, and two."""
    flat, root = np.ones_like(edge), np.sqrt(edge)

    def pairs(amplitude: Array) -> float:
        return max(float(amplitude.sum() ** 2 - (amplitude**2).sum()), 1e-300)

    same = float((matrix.T @ edge).sum()) / max(float((matrix.T @ flat).sum()) * float(edge.mean()), 1e-300)
    within, across = pairs(matrix.T @ root) / pairs(matrix.T @ flat), pairs(root) / pairs(flat)
    return same, within / across


def _bordered(inside: Field | None, maps: dict[int, AxisMap], number: float, mean: float) -> Field:
    """A number where a padded tensor has zeros: E[yy′] gains c² where both are outside and c·E[x] where one is."""
    assert inside is not None
    within = Field(tables.constant(inside.dims, 1.0, 1.0), np.ones(1)).table
    share = 1.0
    for dim, applied in maps.items():
        axes = list(within.at(dim))
        same, different = applied.forward(np.ones(1), np.ones(1))
        factor = np.ones((1,) + (2,) * len(within.axes)) * different
        index: list[slice | int] = [slice(None)] * factor.ndim
        for axis in axes:
            index[axis + 1] = 1
        factor[tuple(index)] = same
        within = within.with_values(within.values * factor)
        share *= applied.total / applied.out
    outside = 1.0 - 2.0 * share + within.values
    values = inside.table.values + number**2 * outside + 2.0 * number * mean * (share - within.values)
    return Field(inside.table.with_values(values), inside.mean + number * (1.0 - share))


def _unseen(site: Site, maps: dict[int, AxisMap]) -> Flow:
    """Padding that the maximum after it never takes: more entries like those that are there, none of the gradient."""
    value = site.id("input")
    x = site.known(value)
    table = x.table
    for dim, applied in maps.items():
        table = layout.resized(table, dim, applied.out)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, table.dims)
        for dim, applied in maps.items():
            pairs = applied.out * (applied.out - 1.0) / max(applied.size * (applied.size - 1.0), 1.0)
            given = layout.resized(_weighed(given, dim, applied.out / applied.size, pairs), dim, applied.size)
        return {value: Cotangent(tables.regroup(given, x.dims))}

    law = x.law
    base = law.table
    for dim, applied in maps.items():
        base = layout.resized(base, dim, applied.out)
    known = None if law.function is IDENTITY or base.profile is not None else replace(law, table=base)
    return Flow((Field(table, x.mean, known, sway=x.sway),), backward)


def _weighed(table: Table, dim: int, same: float, different: float) -> Table:
    """Entries of the same index of a dimension times one number, of different ones times another."""
    table = tables.merge_dim(table.collapse_along(table.at(dim)), dim)
    if not table.dims[dim]:
        return table.scaled(same)
    axis = table.starts[dim]
    halves = patterns.take(table.values, axis, 1) * same, patterns.take(table.values, axis, 0) * different
    return Table(table.dims, patterns.put(axis, *halves), table.profile)
