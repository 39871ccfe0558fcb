"""Linear layers: y = x Wᵀ + b under exchangeable entries, with the actual sums of W."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, fewer
from gradlint.signal.patterns import Array
from gradlint.signal.rows import rows_of, tangent, weighed
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Square, Unanswered
from gradlint.signal.sway import Sway, drawn, sampling, together
from gradlint.signal.table import Axis, Table
from gradlint.signal.transfer_einsum import einsum, product_of
from gradlint.signal.transfer_merge import plus
from gradlint.signal.weights import Vector, Weight


def linear(site: Site) -> Flow:
    """E[y_o y_o′] from F = ΣW², the squared row sums R, column sums C and total T of the weight.

    With x's contracted axis same (s) and different (d), the output axis is same: (F(s−d) + R d)/n_out, different:
    ((C−F)(s−d) + (T−R) d)/(n_out(n_out−1)); the cotangent is the same map with rows and columns exchanged.
    """
    if site.op.function == "einsum":
        return einsum(site)
    if site.op.function == "baddbmm":
        factors = [value for value, role in zip(site.op.inputs, site.op.roles, strict=True) if role != "bias"]
        flow = product_of(site, factors[0], factors[1])
        return plus(site, site.id("bias"), flow, site.number("alpha", 1.0), site.number("beta", 1.0))
    if site.op.function not in ("linear", "addmm", "matmul"):
        raise Unanswered(f"no transfer function for {site.op.function}")
    stored = site.graph.values[site.id("weight")]
    if site.op.attrs.get("left") or len(stored.shape) != 2:
        return product_of(site, *site.op.inputs[:2])
    weight = site.weight("weight")
    inward = site.op.attrs.get("layout", "oi") == "io"
    return contraction(site, site.field("input"), weight.transposed() if inward else weight, site.vector("bias"))


def contraction(site: Site, x: Field, weight: Weight, bias: Vector | None) -> Flow:
    """The flow of x Wᵀ + b over x's last dimension."""
    axes = list(x.table.at(-1))
    table = x.table
    n_out = weight.shape[0]
    same, different, energy = _contracted(table, axes, weight)
    row, column, total = weight.sums["0"], weight.sums["1"], weight.sums[""]
    y_same = (energy * (same - different) + row * different) / n_out
    pairs = max(n_out * (n_out - 1), 1)
    y_different = ((column - energy) * (same - different) + (total - row) * different) / pairs
    mean = x.average * weight.total / n_out
    if bias is not None:
        coupling, cross_coupling = _bias_coupling(weight, bias, x.average)
        y_same = y_same + bias.square + coupling
        y_different = y_different + bias.cross + cross_coupling
        mean += bias.mean
    profile = table.profile if table.profile is None or table.profile.axis not in axes else None
    out_axis = (Axis(n_out),) if n_out > 1 else ()
    values = patterns.put(axes[0] if axes else len(table.axes), y_same, y_different) if out_axis else y_same
    y = Table((*x.dims[:-1], out_axis), values, profile)
    mean_by_class = np.array([mean]) if profile is None else np.full(len(values), mean)
    law = x.law
    noise = sampling(law.function, *law.moments, weight.shape[1])
    sway, _ = drawn(x.sway, noise)
    rows = rows_of(y_same[0], weight) if profile is None else None
    features = fewer(x.features, weight.shape[1])
    field = Field(y, mean_by_class, sway=sway, rows=rows, features=features)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        of_it = cotangent.inverse is not None and cotangent.inverse[0] == field.source
        met = weighed(weight, cotangent.inverse[1]) if cotangent.inverse is not None and of_it else weight
        out = dict(_linear_backward(site, x, y, met, cotangent, sway))
        value = site.value("weight")
        found = out.get(value.id) if value is not None else None
        follows = cotangent.orthogonal is not None and cotangent.orthogonal.source == field.source
        if value is not None and isinstance(found, Square):
            whole = Square(found.value * (1.0 + cotangent.echo), found.magnitude * (1.0 + cotangent.echo))
            out[value.id] = tangent(whole, weight, cotangent) if follows else whole
        return out

    return Flow((field,), backward)


def _contracted(table: Table, axes: list[int], weight: Weight) -> tuple[Array, Array, float]:
    """The input's (same, different) over the contracted axes; its classes weigh as much as their columns do."""
    profile = table.profile
    if profile is None or profile.axis not in axes:
        same, different = patterns.joint(table.values, axes, table.sizes)
        return same, different, weight.square
    square = weight.columns.get("square")
    flat = table.collapse()
    same, different = patterns.joint(flat.values, axes, flat.sizes)
    if square is None:
        return same, different, weight.square
    share = _class_energy(square, table, axes)
    per_class = patterns.take_all(table.values, axes)
    return np.tensordot(share, per_class, (0, 0))[None], different, weight.square


def _class_energy(square: Array, table: Table, axes: list[int]) -> Array:
    """Share of the weight's energy on the columns of every class, shape (K,)."""
    assert table.profile is not None
    sizes = [table.sizes[axis] for axis in axes]
    local = axes.index(table.profile.axis)
    others = tuple(i for i in range(len(sizes)) if i != local)
    along = square.reshape(sizes).sum(axis=others)
    starts = np.concatenate([[0], np.cumsum(table.profile.counts)[:-1]])
    energy: Array = np.add.reduceat(along, starts)
    return energy / max(float(energy.sum()), 1e-300)


def _bias_coupling(weight: Weight, bias: Vector, mean: float) -> tuple[float, float]:
    """2 E[(Wx)_o b_o′] for the same and for different outputs."""
    n_out = weight.shape[0]
    row_sums = weight.rows.get("sum")
    if bias.values is not None and row_sums is not None:
        aligned = float(bias.values @ row_sums)
    else:
        aligned = bias.mean * weight.total
    same = 2.0 * mean * aligned / n_out
    different = 2.0 * mean * (bias.mean * n_out * weight.total - aligned) / max(n_out * (n_out - 1), 1)
    return same, different


def _linear_backward(site: Site, x: Field, y: Table, weight: Weight, cotangent: Cotangent, sway: Sway) -> Contributions:
    n_in = weight.shape[1]
    given = tables.regroup(cotangent.table, y.dims)
    out_axes = list(y.at(-1))
    arrived = given
    energy, given = _output_energy(given, out_axes, weight)
    same, different = patterns.joint(given.values, out_axes, given.sizes)
    row, column, total = weight.sums["0"], weight.sums["1"], weight.sums[""]
    axes = list(x.table.at(-1))
    into_same = (energy * (same - different) + column * different) / n_in
    into_different = ((row - energy) * (same - different) + (total - column) * different) / max(n_in * (n_in - 1), 1)
    contributions: dict[int, Contribution] = {
        site.id("input"): Cotangent(_at_input(x.table, axes, given, into_same, into_different), lean=cotangent.lean)
    }
    coherence = together(x.table.axes, axes, cotangent.lean, sway)
    weighted = x.table.with_values(x.table.values * coherence)
    contributions |= _parameter_gradients(site, weighted, axes, arrived, out_axes, weight)
    return contributions


def _output_energy(given: Table, out_axes: list[int], weight: Weight) -> tuple[float, Table]:
    """F re-weighted by the rows that the cotangent sits on, when it varies along the output axis."""
    profile, square = given.profile, weight.rows.get("square")
    flat = given.collapse_along(out_axes)
    if profile is None or profile.axis not in out_axes or square is None or len(out_axes) > 1:
        return weight.square, flat
    starts = np.concatenate([[0], np.cumsum(profile.counts)[:-1]])
    rows: Array = np.add.reduceat(square, starts)
    level = flat.square
    return (float(rows @ given.squares) / level if level > 0 else weight.square), flat


def _at_input(x: Table, axes: list[int], given: Table, same: Array, different: Array) -> Table:
    """Lay the cotangent's (same, different) over the composite input axis out on its atomic axes."""
    start = axes[0] if axes else len(x.axes)
    single = patterns.put(start, same, different) if axes else same
    profile = given.profile
    if profile is not None and profile.axis >= start:
        shift = (1 if axes else 0) - len(given.at(-1))
        profile = tables.Profile(profile.axis + shift, profile.counts)
    size = int(np.prod([x.sizes[axis] for axis in axes])) if axes else 1
    last = (Axis(size),) if axes else ()
    return tables.regroup(Table((*x.dims[:-1], last), single, profile), x.dims)


def _parameter_gradients(
    site: Site, x: Table, axes: list[int], given: Table, out_axes: list[int], weight: Weight
) -> dict[int, Contribution]:
    """Σ over pairs of samples and positions of E[δδ′]E[xx′], for the same and for different rows and columns."""
    x_same, x_different = _halves(x, axes)
    g_same, g_different = _halves(given, out_axes)

    def summed(first: Table, second: Table) -> tuple[float, float]:
        a, b = tables.same_classes(first, tables.regroup(second, first.dims))
        both = tables.combine(a, b, np.multiply)
        pairs = range(len(both.axes))
        total = both.weights @ patterns.pair_sum(both.values, pairs, both.sizes)
        return float(total), float(both.weights @ patterns.pair_sum(np.abs(both.values), pairs, both.sizes))

    out: dict[int, Contribution] = {}
    value = site.value("weight")
    if value is not None and value.requires_grad and site.direct("weight"):
        out[value.id] = Square(*summed(g_same, x_same))
    elif value is not None and value.requires_grad:
        quarters = [[summed(g, h)[0] for h in (x_different, x_same)] for g in (g_different, g_same)]
        out[value.id] = Cotangent(_weight_table(np.array(quarters)[None], site, weight))
    bias = site.value("bias")
    if bias is not None and bias.requires_grad and site.direct("bias"):
        ones = g_same.with_values(np.ones_like(g_same.values))
        out[bias.id] = Square(*summed(g_same, ones))
    elif bias is not None and bias.requires_grad:
        out[bias.id] = Cotangent(_bias_table(given))
    return out


def _bias_table(given: Table) -> Table:
    """The gradient of a computed bias, whose parts (of queries, keys and values) need not be alike."""
    table = tables.merge_dim(given, len(given.dims) - 1)
    kept = list(table.at(-1))
    profile = table.profile if table.profile is not None and table.profile.axis in kept else None
    table = table if profile is not None else table.collapse()
    others = range(table.starts[-2])
    values = patterns.pair_sum(table.values, others, table.sizes)
    return Table(table.dims[-1:], values, None if profile is None else tables.Profile(0, profile.counts))


def _halves(table: Table, axes: list[int]) -> tuple[Table, Table]:
    """The table without its last dimension: that dimension the same, and different."""
    table = table.collapse_along(axes)
    same, different = patterns.joint(table.values, axes, table.sizes)
    dims = table.dims[:-1]
    return Table(dims, same, table.profile), Table(dims, different, table.profile)


def _weight_table(values: Array, site: Site, weight: Weight) -> Table:
    """The gradient of a computed weight, in the weight's own layout (rows are outputs here)."""
    n_out, n_in = weight.shape
    values = values if n_in > 1 else values[..., 1]
    values = values if n_out > 1 else values[:, 1]
    table = Table(tables.dims_of((n_out, n_in)), values)
    return tables.permute(table, [1, 0]) if site.op.attrs.get("layout", "oi") == "io" else table
