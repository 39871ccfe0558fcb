"""Entries picked by integers that depend on data: the largest of a row, gather, several indices at once, experts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradlint.signal import layout, patterns
from gradlint.signal import table as tables
from gradlint.signal.distribution import points
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.kernels import SCORES
from gradlint.signal.letters import Factor
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import erf
from gradlint.signal.site import Contributions, Flow, Site, Unanswered
from gradlint.signal.stages import Stage, flow
from gradlint.signal.table import Table
from gradlint.signal.transfer_einsum import contracted
from gradlint.signal.transfer_embedding import gather_of


def largest(site: Site) -> Flow:
    """topk and sort: k of n entries along a dimension, by their order statistics; each gets its own gradient back."""
    source = site.id("input")
    x = site.known(source)
    dim = int(site.number("dim", -1)) % len(x.dims)
    stage = _largest(x, dim, site.shape()[dim])
    found = flow(source, stage)
    return replace(found, outputs=(*found.outputs, None)[: len(site.op.outputs)])


def _largest(x: Field, dim: int, count: int) -> Stage:
    size = x.shape[dim]
    if count == size:
        return Stage(
            Field(x.table.collapse(), np.array([x.average])), lambda c: Cotangent(tables.regroup(c.table, x.dims))
        )
    row = layout.resized(x.table.collapse(), dim, size)
    same, different = patterns.take(row.values, row.starts[dim], 1), patterns.take(row.values, row.starts[dim], 0)
    law, deviation = points(x.law), math.sqrt(max(x.variance, 0.0))
    common = float(different.reshape(-1)[-1]) - x.average**2
    local = max(float(same.reshape(-1)[-1]) - x.average**2 - max(common, 0.0), 0.0)
    share = math.sqrt(local) / deviation if deviation > 0.0 else 0.0
    quantiles = x.average + (np.sort(law) - float(law.mean())) * share
    weights = _of_largest(size, count)
    mean, second = float(weights @ quantiles), float(weights @ quantiles**2)
    kept = (second - mean**2) / local if local > 0.0 else 0.0
    own = patterns.put(row.starts[dim], different - x.average**2 + (same - different) * kept, different - x.average**2)
    table = layout.resized(row.with_values(own + mean**2), dim, count)

    def back(cotangent: Cotangent) -> Cotangent:
        return Cotangent(
            tables.regroup(layout.spread(tables.regroup(cotangent.table, table.dims), x.dims, dim), x.dims)
        )

    return Stage(Field(table, np.array([mean])), back)


def _of_largest(size: int, count: int) -> Array:
    """How much each of equally likely quantiles weighs among the largest k of n: n/k·P(Bin(n − 1, u) ≥ n − k)."""
    u = 0.5 * (1.0 + erf(SCORES / math.sqrt(2.0)))
    if size > 64:  # the binomial is as good as a step
        weights = 1.0 / (1.0 + np.exp(-(u - 1.0 + count / size) * 4.0 * math.sqrt(size)))
    else:
        terms = [math.comb(size - 1, j) * u**j * (1.0 - u) ** (size - 1 - j) for j in range(size - count, size)]
        weights = np.sum(terms, axis=0)
    normed: Array = weights / weights.sum()
    return normed


def gather(site: Site) -> Flow:
    """x at k places of every row along one dimension, which differ from row to row."""
    source, dim = site.id("input"), int(site.number("dim", 0))
    x = site.known(source)
    shape = site.shape()
    if len(shape) != len(x.dims) or any(
        a != b for d, (a, b) in enumerate(zip(shape, x.shape, strict=True)) if d != dim
    ):
        raise Unanswered("a gather from some of the rows")
    return flow(source, _gathered(x, dim, shape[dim]))


def _gathered(x: Field, dim: int, count: int) -> Stage:
    size = x.shape[dim]
    row = tables.merge_dim(x.table.collapse_along(x.table.at(dim)), dim)
    picked = _mixed_rows(layout.resized(row, dim, count), row, dim, 1.0 / size)

    def back(cotangent: Cotangent) -> Cotangent:
        given = tables.regroup(cotangent.table, picked.dims)
        wide = layout.spread(given, row.dims, dim)
        axes = list(given.at(dim))
        mean = patterns.average(given.collapse_along(axes).values, axes, given.sizes) * (count / size) ** 2
        into = wide.with_values(_elsewhere(wide, dim, _opened(mean, wide, dim)))
        return Cotangent(tables.regroup(into, x.dims))

    mean = x.mean if len(x.mean) == len(picked.values) else np.array([x.average])
    return Stage(Field(picked, mean), back)


def _mixed_rows(picked: Table, row: Table, dim: int, chance: float) -> Table:
    """Entries of two rows are at the same place by chance, whatever their numbers are."""
    if not row.dims[dim]:
        return picked
    axis = row.starts[dim]
    same, different = patterns.take(row.values, axis, 1), patterns.take(row.values, axis, 0)
    other = chance * same + (1.0 - chance) * different
    return picked.with_values(_elsewhere(picked, dim, _opened(other, picked, dim)))


def _opened(values: Array, table: Table, dim: int) -> Array:
    return patterns.insert(values, table.starts[dim], len(table.dims[dim]))


def _elsewhere(table: Table, dim: int, other: Array) -> Array:
    """The table's values inside a row, others between rows."""
    inside = np.zeros_like(table.values)
    index: list[slice | int] = [slice(None)] * inside.ndim
    for axis in range(len(table.axes)):
        if axis not in table.at(dim):
            index[axis + 1] = 1
    inside[tuple(index)] = 1.0
    return np.where(inside > 0, table.values, other)


NEIGHBOURS = 0.4**2  # decades² at each corner of a sample: data picks places side by side; from RoI pooling


def several(site: Site, start: int, roles: Sequence[str], shape: Sequence[int]) -> Flow:
    """x[…, i, j, …] with several index tensors side by side, broadcast to one shape."""
    source = site.id("input")
    x = site.known(source)
    table = x.table.collapse()
    for dim in range(start, start + len(roles)):
        table = tables.merge_dim(table, dim)
    labels = [_labels(site, role, x.shape[start + place], shape) for place, role in enumerate(roles)]
    target = tables.dims_of(shape)
    axes = sum(map(len, target))
    lead = sum(map(len, table.dims[:start]))
    terms = [(pattern, _chance(labels, pattern)) for pattern in _patterns(table, start, len(roles))]
    rest = table.dims[start + len(roles) :]

    def placed(values: Array) -> Array:
        return values.reshape((1,) * (lead + 1) + values.shape[1:] + (1,) * sum(map(len, rest)))

    values: Array | float = 0.0
    for pattern, chance in terms:
        values = values + placed(chance) * patterns.insert(_taken(table, start, pattern), lead, axes)
    out = Table((*table.dims[:start], *target, *rest), np.asarray(values))
    sizes = [x.shape[start + place] for place in range(len(roles))]

    def back(cotangent: Cotangent) -> Cotangent:
        given = tables.regroup(cotangent.table, out.dims).collapse()
        into = np.zeros_like(table.values)
        for pattern, chance in terms:
            met = patterns.pair_sum(given.values * placed(chance), range(lead, lead + axes), given.sizes)
            pairs = math.prod(n if same else n * (n - 1.0) for n, same in zip(sizes, pattern, strict=True) if n > 1)
            index: list[slice | int] = [slice(None)] * into.ndim
            for place, same in enumerate(pattern):
                if table.dims[start + place]:
                    index[table.starts[start + place] + 1] = same
            into[tuple(index)] = met / pairs
        return Cotangent(tables.regroup(table.with_values(into), x.dims))

    found = flow(source, Stage(Field(out, np.array([x.average])), back))
    data = any(site.indices[value].random and site.graph.values[value].origin == "op" for value in map(site.id, roles))
    return replace(found, doubt=NEIGHBOURS, returned=NEIGHBOURS) if data else found


def _patterns(table: Table, start: int, count: int) -> list[tuple[int, ...]]:
    """Which of the indexed dimensions two entries share; a dimension of length 1 they always do."""
    options = [(0, 1) if table.dims[start + place] else (1,) for place in range(count)]
    return list(itertools.product(*options))


def _taken(table: Table, start: int, pattern: Sequence[int]) -> Array:
    index: list[slice | int] = [slice(None)] * table.values.ndim
    for place, same in enumerate(pattern):
        if table.dims[start + place]:
            index[table.starts[start + place] + 1] = same
    taken: Array = table.values[tuple(index)]
    return taken


def _chance(labels: Sequence[Array], pattern: Sequence[int]) -> Array:
    parts = [label if same else 1.0 - label for label, same in zip(labels, pattern, strict=True)]
    return np.asarray(math.prod(parts[1:], start=parts[0]))


def _labels(site: Site, role: str, rows: int, shape: Sequence[int]) -> Array:
    found = site.labels(role, rows).collapse()
    return tables.expand(found, tables.dims_of(shape)).values if rows > 1 else np.ones((1,) + (2,) * _rank(shape))


def _rank(shape: Sequence[int]) -> int:
    return sum(size > 1 for size in shape)


def experts(site: Site) -> Flow:
    """x @ W[e] row by row: two rows meet the same expert by chance."""
    first, second = site.id("input"), site.id("other") if site.has("other") else site.id("weight")
    x, weight = site.known(first), site.known(second)
    if len(x.dims) != 2 or len(weight.dims) != 3:
        raise Unanswered("a grouped product of other shapes")
    count = weight.shape[0]
    dims = tables.dims_of((x.shape[0],))
    labels = tables.constant(dims, 1.0, 1.0 / count)
    picked = gather_of(weight, 0, labels, count)
    inner = contracted([Factor(first, x, "tk"), Factor(second, picked.field, "tkn")], "tn")

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        found = dict(inner.backward(cotangents))
        into = found.get(second)
        if isinstance(into, Cotangent):
            found[second] = picked.back(into)
        return found

    return Flow(inner.outputs, backward)
