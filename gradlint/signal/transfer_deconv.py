"""Convolutions; a transposed one is the adjoint of the convolution that leads from its output back to its input."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.filter_sums import FilterSums
from gradlint.signal.norm_plan import merged
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Square, Unanswered
from gradlint.signal.sway import drawn
from gradlint.signal.table import Axis, Table
from gradlint.signal.transfer_conv import (
    Geometry,
    adjoint_reach_of,
    components,
    convolution,
    filter_gradient,
    geometry_of,
    mapped,
    noise_of,
    reach_of,
    with_axes,
    without_axes,
)
from gradlint.signal.weights import Vector, Weight


def conv(site: Site) -> Flow:
    """conv1d…3d and their transposes: grouped, strided, dilated, padded."""
    x = site.field("input")
    weight, bias = site.weight("weight"), site.vector("bias")
    if len(x.dims) == len(weight.shape) - 1:
        raise Unanswered("convolution of an unbatched input")
    x = merged(x)
    if site.op.attrs.get("transposed"):
        return transposed(site, x, weight, bias, geometry_of(site, site.shape(), x.shape, weight), site.shape())
    return convolution(site, x, weight, bias, geometry_of(site, x.shape, site.shape(), weight))


def transposed(
    site: Site, x: Field, weight: Weight, bias: Vector | None, geometry: Geometry, shape: Sequence[int]
) -> Flow:
    """y = Wᵀx: the forward map of one is the backward map of the other. `geometry` leads from y to x."""
    x = x.collapse()
    sums = FilterSums(weight, geometry.groups)
    values = mapped(
        components(with_axes(x.table), 1 + geometry.rank), adjoint_reach_of(geometry), sums.matrix(out=False)
    )
    if bias is not None:
        values[:, :, 1] += bias.square
        values[:, :, 0] += bias.cross
    covered = math.prod(window.adjoint[0] for window in geometry.windows)
    mean = x.average * weight.total / geometry.n_in * covered + (bias.mean if bias is not None else 0.0)
    y = without_axes(values, (x.dims[0], *((Axis(size),) if size > 1 else () for size in shape[1:])), shape)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = with_axes(tables.regroup(cotangent.table, y.dims).collapse())
        into = mapped(components(given, 1 + geometry.rank), reach_of(geometry), sums.matrix(out=True))
        sizes = [math.prod(axis.size for axis in dim) for dim in x.dims]
        source = site.id("input")
        table = tables.regroup(without_axes(into, x.dims, sizes), site.known(source).dims)
        out: dict[int, Contribution] = {source: Cotangent(table)}
        return out | _gradients(site, x, y, Table(y.dims, cotangent.table.collapse().values), given, geometry)

    field = Field(y, np.array([mean]), sway=drawn(x.sway, noise_of(x, geometry.n_out))[0])
    return Flow((field,), backward)


def _gradients(
    site: Site, x: Field, y: Table, arrived: Table, given: patterns.Array, geometry: Geometry
) -> dict[int, Contribution]:
    """The filter's gradient with input and cotangent in each other's place; the bias sums over every output."""
    out: dict[int, Contribution] = {}
    weight, bias = site.value("weight"), site.value("bias")
    if weight is not None and weight.requires_grad:
        batch = math.prod(axis.size for axis in x.dims[0])
        found = filter_gradient(given, with_axes(x.table), batch, geometry)
        if not site.direct("weight"):  # its entries are taken as uncorrelated
            square = found.value if isinstance(found, Square) else found.table.square
            out[weight.id] = Cotangent(tables.constant(tables.dims_of(weight.shape), square))
        else:
            out[weight.id] = found
    if bias is not None and bias.requires_grad:
        own = patterns.take(given, 1, 1)
        sizes = [math.prod(axis.size for axis in dim) for position, dim in enumerate(y.dims) if position != 1]
        total, size = (float(patterns.pair_sum(v, range(len(sizes)), sizes).sum()) for v in (own, np.abs(own)))
        out[bias.id] = Square(total, size)
    return out
