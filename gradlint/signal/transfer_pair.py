"""Two tensors at once, entry by entry: the larger of both, a half gated by the other half; running sums."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.field import Base, Cotangent, Field, push
from gradlint.signal.scalar import IDENTITY, Scalar, scalar_function
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Unanswered, credit
from gradlint.signal.stages import Stage, flow, function
from gradlint.signal.table import Table
from gradlint.signal.transfer_merge import independent_product, independent_sum
from gradlint.signal.transfer_pool import AxisMap, along_axes, axis_map
from gradlint.signal.transfer_shape import narrowed

ABS = Scalar("abs", np.abs, np.sign, (1.0, -1.0))
STEP = Scalar("step", lambda z: (z > 0) * 1.0, np.zeros_like, steps=(1.0, 0.0))
_X, _Y = -1, -2


def extreme(site: Site) -> Flow:
    """max(x, y) = (x + y)/2 + |x − y|/2 of Gaussian x and y, whose sum and difference are taken as independent."""
    ids = (site.id("input"), site.id("other"))
    x, y = (site.known(value) for value in ids)
    total, gap = (independent_sum(_X, _Y, x, y, alpha).outputs[0] for alpha in (1.0, -1.0))
    assert total is not None and gap is not None
    sign = 1.0 if site.op.function == "maximum" else -1.0
    law = Base(gap.table, gap.mean, IDENTITY, gap.source)
    size, mean = push(law, ABS)
    crossed = sign * 0.5 * total.average * float(mean.mean())
    values = 0.25 * (total.table.values + size.values) + crossed
    field = Field(total.table.with_values(values), 0.5 * (total.mean + sign * mean))
    larger, often = push(law, STEP)
    chances = [larger.values, 1.0 - 2.0 * float(often.mean()) + larger.values]
    if sign < 0:
        chances.reverse()

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, field.dims)
        found: dict[int, Contribution] = {}
        for value, operand, chance in zip(ids, (x, y), chances, strict=True):
            own, weight = tables.same_classes(given, field.table.with_values(chance))
            into = Cotangent(tables.sum_to(tables.combine(own, weight, np.multiply), operand.dims))
            credit(found, value, into)
        return found

    return Flow((field,), backward)


def glu(site: Site) -> Flow:
    """a·σ(b) for the two halves of a dimension."""
    source, dim = site.id("input"), int(site.number("dim", -1))
    x = site.known(source)
    dim %= len(x.dims)
    half = x.shape[dim] // 2
    steps = [narrowed(dim, start, half) for start in (0, half)]
    parts = [x.relabelled(step.forward, step.key) for step in steps]
    sigmoid = scalar_function("sigmoid", {})
    assert sigmoid is not None
    gate: Stage = function(sigmoid)(parts[1])
    product = independent_product(_X, _Y, parts[0], gate.field)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        given = product.backward(cotangents)
        first, second = given.get(_X), given.get(_Y)
        if not isinstance(first, Cotangent) or not isinstance(second, Cotangent):
            return {}
        back = [
            Cotangent(step.back(part.table, x.dims))
            for step, part in zip(steps, (first, gate.back(second)), strict=True)
        ]
        return {source: back[0] + back[1]}

    return Flow(product.outputs, backward)


def running(site: Site) -> Flow:
    """cumsum: y = Lx along one dimension, L the lower triangle of ones."""
    dims = site.op.attrs.get("dims")
    if not isinstance(dims, Sequence) or len(dims) != 1:
        raise Unanswered("a running sum over several dimensions")
    dim = int(dims[0])
    size = site.shape()[dim]
    lower: AxisMap = axis_map(np.tril(np.ones((size, size))))
    return along_axes(site, {dim: lower})


def triangle(site: Site) -> Flow:
    """tril and triu: zeros on one side of a diagonal."""
    x = site.field()
    rows, columns = site.shape()[-2:]
    build = np.tril if site.op.function == "tril" else np.triu
    mask = build(np.ones((rows, columns)), int(site.number("diagonal", 0)))
    share = _shares(mask)
    own = x.table.collapse()
    for dim in (-2, -1):
        own = tables.merge_dim(own, dim % len(x.dims))
    weights = np.ones_like(own.values)
    for row in (0, 1):
        for column in (0, 1):
            index: list[slice | int] = [slice(None)] * weights.ndim
            if own.dims[-2]:
                index[own.starts[len(x.dims) - 2] + 1] = row
            if own.dims[-1]:
                index[own.starts[len(x.dims) - 1] + 1] = column
            weights[tuple(index)] = share[row, column]

    def back(cotangent: Cotangent) -> Cotangent:
        given = tables.regroup(cotangent.table, own.dims).collapse()
        return Cotangent(tables.regroup(given.with_values(given.values * weights), x.dims))

    table: Table = own.with_values(own.values * weights)
    field = Field(tables.regroup(table, x.dims), np.array([x.average * float(mask.mean())]))
    return flow(site.id("input"), Stage(field, back))


def _shares(mask: np.ndarray) -> np.ndarray:
    """E[mm′] of two entries of a matrix of zeros and ones, by whether they share the row and the column."""
    rows, columns = mask.shape
    total, one = float(mask.sum()), float((mask**2).sum())
    by_row, by_column = float((mask.sum(1) ** 2).sum()), float((mask.sum(0) ** 2).sum())
    pairs = [[total**2 - by_row - by_column + one, by_column - one], [by_row - one, one]]
    counts = np.outer([rows * (rows - 1.0), rows], [columns * (columns - 1.0), columns])
    return np.asarray(pairs) / np.maximum(counts, 1.0)
