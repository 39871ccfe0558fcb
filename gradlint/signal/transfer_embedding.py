"""Embeddings: rows of a table picked by random tokens, or by positions that are the same for every sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.faint import empty_rows
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.patterns import Array
from gradlint.signal.site import Contributions, Flow, Site, Square, Unanswered
from gradlint.signal.stages import averaged
from gradlint.signal.table import Axis, Profile, Table
from gradlint.signal.weights import Weight


def embedding(site: Site) -> Flow:
    """y[i…, c] = W[token_i, c]; two indices meet the same row with the probability their labels say."""
    if site.op.function == "embedding_bag":
        return bag(site)
    weight = site.weight("weight")
    labels = site.labels("input", weight.shape[0])
    return lookup(site, weight, labels)


def bag(site: Site) -> Flow:
    """The mean or the sum of the rows that every sample picks, all samples as many: tokens (samples, picks)."""
    mode = site.op.attrs.get("mode", "mean")
    if len(site.graph.values[site.id("input")].shape) != 2 or site.has("offsets") or site.has("per_sample_weights"):
        raise Unanswered("bags of different sizes or with weights of their own")
    if mode not in ("mean", "sum"):
        raise Unanswered(f"embedding_bag of the {mode}")
    weight = site.weight("weight")
    rows = lookup(site, weight, site.labels("input", weight.shape[0]))
    assert rows.outputs[0] is not None
    stage = averaged([1], keep=False, summed=mode == "sum")(rows.outputs[0])

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else rows.backward([stage.back(cotangent)])

    return Flow((stage.field,), backward)


def gathered(site: Site, dim: int, role: str) -> Flow:
    """x indexed along one dimension by integers: the source's axis becomes those of the index."""
    source = site.id("input")
    x = site.known(source)
    found = gather_of(x, dim, site.labels(role, x.shape[dim]), x.shape[dim])
    data = site.indices[site.id(role)].random and site.graph.values[site.id(role)].origin == "op"
    uneven = unevenness(x, dim) if data else 0.0

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else {source: found.back(cotangent)}

    return Flow((found.field,), backward, uneven, uneven)


def unevenness(x: Field, dim: int) -> float:
    """Decades² by which a gradient may be off at indices that data picks: taken evenly, they may all be of one class.

    A class of share s would then have 1/s times the energy: Σ s (½ log₁₀ s)².
    """
    profile = x.table.profile
    if profile is None or profile.axis not in x.table.at(dim):
        return 0.0
    shares = x.table.weights
    return float((shares * (0.5 * np.log10(shares)) ** 2).sum())


@dataclass(frozen=True, eq=False)
class Gathered:
    """Rows picked by labels, and the way of a cotangent back to the tensor that they were picked from."""

    field: Field
    back: Callable[[Cotangent], Cotangent]


def gather_of(x: Field, dim: int, labels: Table, rows: int) -> Gathered:
    """The entries of x along one dimension at integers that are equal as `labels` says."""
    flat = tables.merge_dim(x.table.collapse_along(x.table.at(dim)), dim)
    if not flat.dims[dim]:
        return _repeated(x, dim, labels)
    axis = flat.starts[dim]
    moved = flat.profile
    if moved is not None and moved.axis > axis:
        moved = Profile(moved.axis - 1 + len(labels.axes), moved.counts)
    same, different = (_opened(patterns.take(flat.values, axis, half), axis, len(labels.axes)) for half in (1, 0))
    equal = _placed(labels.values[0], axis, same.ndim)
    out = Table(
        (*flat.dims[:dim], *labels.dims, *flat.dims[dim + 1 :]), equal * same + (1.0 - equal) * different, moved
    )
    mean = x.mean if len(x.mean) == len(out.values) else np.array([x.average])

    def back(cotangent: Cotangent) -> Cotangent:
        given = tables.regroup(cotangent.table, out.dims).collapse()
        axes = range(axis, axis + len(labels.axes))
        meeting = patterns.pair_sum(given.values * equal, axes, out.sizes) / rows
        apart = patterns.pair_sum(given.values * (1.0 - equal), axes, out.sizes) / (rows * (rows - 1.0))
        into = Table(flat.dims, patterns.put(axis, meeting, apart))
        return Cotangent(tables.regroup(into, x.dims))

    return Gathered(Field(out, mean), back)


def _repeated(x: Field, dim: int, labels: Table) -> Gathered:
    """The only entry along a dimension, again and again."""
    dims = (*x.dims[:dim], *labels.dims, *x.dims[dim + 1 :])
    gone = range(dim, dim + len(labels.dims))
    opened = Table((*x.dims[:dim], *((),) * len(labels.dims), *x.dims[dim + 1 :]), x.table.values, x.table.profile)

    def back(cotangent: Cotangent) -> Cotangent:
        summed = tables.total(tables.regroup(cotangent.table, dims), list(gone))
        return Cotangent(tables.regroup(Table(x.dims, summed.values, summed.profile), x.dims))

    return Gathered(Field(tables.expand(opened, dims), x.mean), back)


def _opened(values: Array, axis: int, count: int) -> Array:
    return patterns.insert(values, axis, count)


def _placed(labels: Array, axis: int, rank: int) -> Array:
    """Probabilities over the index's axes, placed among those of the output."""
    return labels.reshape((1,) * (axis + 1) + labels.shape + (1,) * (rank - axis - 1 - labels.ndim))


def lookup(site: Site, weight: Weight, labels: Table) -> Flow:
    """Rows of a matrix by labels: `labels` is the table of probabilities that two entries are equal."""
    rows, width = weight.shape
    square, by_row, by_column, total = (weight.sums[key] for key in ("01", "0", "1", ""))
    hit_same = square / (rows * width)
    hit_other = (by_row - square) / max(rows * width * (width - 1), 1)
    miss_same = (by_column - square) / max(rows * (rows - 1) * width, 1)
    miss_other = (total - by_row - by_column + square) / max(rows * (rows - 1) * width * (width - 1), 1)
    equal = labels.values
    same = equal * hit_same + (1.0 - equal) * miss_same
    other = equal * hit_other + (1.0 - equal) * miss_other
    axis = len(labels.axes)
    values = patterns.put(axis, same, other) if width > 1 else same
    out = Table((*labels.dims, (Axis(width),) if width > 1 else ()), values)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        value = site.value("weight")
        if cotangent is None or value is None or not value.requires_grad:
            return {}
        given = tables.regroup(cotangent.table, out.dims).collapse()
        own = patterns.take(given.values, axis, 1) if width > 1 else given.values
        meeting = own * equal / rows
        order = range(len(labels.axes))
        summed = float(patterns.pair_sum(meeting, order, labels.sizes).sum())
        return {value.id: Square(summed, float(patterns.pair_sum(np.abs(meeting), order, labels.sizes).sum()))}

    tokens = site.has("input") and site.id("input") in site.indices and site.indices[site.id("input")].random
    faint = empty_rows(weight.rows.get("square")) if tokens else None
    return Flow((Field(out, np.array([weight.total / (rows * width)]), faint=faint),), backward)
