"""Convolutions of any rank: variance components over (channel, positions) times sums of the filter over its taps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.closeness import read_together
from gradlint.signal.edges import along, even, mean_of
from gradlint.signal.edges import levelled as over_mean
from gradlint.signal.few_taps import in_reach, passed, spike_of, tail_of
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.filter_sums import FilterSums
from gradlint.signal.patterns import Array
from gradlint.signal.rows import filtered, rows_of, tangent
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Square
from gradlint.signal.sway import Sway, drawn, sampling, together
from gradlint.signal.sway import Window as Averaged
from gradlint.signal.table import Axis, Dims, Table
from gradlint.signal.undone import Reading, before_padding, by_single_channels
from gradlint.signal.weights import Vector, Weight
from gradlint.signal.windows import Window, windows


@dataclass(frozen=True, eq=False)
class Geometry:
    """A convolution's channels, groups and windows (of the map from its input to its output).

    `levels` are the windows' (same, different) factors where the map is not even.
    """

    n_in: int
    n_out: int
    groups: int
    windows: list[Window]
    levels: tuple[tuple[float, float], ...] = ()

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.windows)

    @cached_property
    def factors(self) -> tuple[tuple[float, float], ...]:
        """What falls on one position, and on two, by spatial axis."""
        return self.levels or tuple((window.same, window.different) for window in self.windows)

    @cached_property
    def covered(self) -> float:
        """What falls on one position."""
        return math.prod(same for same, _ in self.factors)


def geometry_of(site: Site, before: Sequence[int], after: Sequence[int], weight: Weight) -> Geometry:
    """Windows of the map from `before` to `after`."""
    rank = len(weight.shape) - 2
    groups = int(site.number("groups", 1))
    padding = site.op.attrs.get("padding", 0)
    pads = [float(p) for p in padding] if isinstance(padding, Sequence) else [float(site.number("padding", 0))] * rank
    sliding = windows(
        before[2:],
        after[2:],
        weight.shape[2:],
        site.integers("stride", rank, 1),
        pads,
        site.integers("dilation", rank, 1),
    )
    return Geometry(before[1], weight.shape[0], groups, sliding)


def convolution(site: Site, x: Field, weight: Weight, bias: Vector | None, geometry: Geometry) -> Flow:
    """M_y over (channel, positions) from the components of M_x: f·Σ_S Q_S v_S, with Q_S the filter's sums."""
    x = _channel_profile_only(x)
    borders = even(x.edges, [window.size for window in geometry.windows])
    seen = along(Window.seen, geometry.windows, borders)
    read = [axis.read for axis in seen]
    pairs, near = read_together(x, geometry.windows)
    geometry = levelled(geometry, along(mean_of, read), pairs or [axis.pairs for axis in seen])
    sums = FilterSums(weight, geometry.groups)
    parts = _components_of(x.table, sums, geometry)
    y_values = mapped(parts, reach_of(geometry), sums.matrix(out=True))
    rows = _rows(parts, y_values, weight, geometry, math.prod(axis.size for axis in x.dims[0]))
    counted = weight.shape[1] * math.prod(in_reach(window.inside) for window in geometry.windows)
    mean = x.average * weight.total / geometry.n_out * geometry.covered
    if bias is not None:
        y_values[:, :, 1] += bias.square
        y_values[:, :, 0] += bias.cross
        aligned = _alignment(weight, bias)
        reach = 2.0 * x.average * geometry.covered
        y_values[:, :, 1] += reach * aligned / geometry.n_out
        rest = bias.mean * geometry.n_out * weight.total - aligned
        y_values[:, :, 0] += reach * rest / max(geometry.n_out * (geometry.n_out - 1), 1)
        mean += bias.mean
    sizes = [math.prod(axis.size for axis in x.dims[0]), geometry.n_out, *(window.out for window in geometry.windows)]
    y = without_axes(y_values, (x.dims[0], *tables.dims_of(sizes[1:])), sizes)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        relative = _relative(cotangent, field)
        met = sums if relative is None else FilterSums(weight, geometry.groups, relative)
        out = dict(_backward(site, x, y, met, geometry, cotangent, read, sway, local))
        into, source = out[site.id("input")], site.id("input")
        normed = cotangent.orthogonal is not None and cotangent.orthogonal.source == field.source
        own, found = site.value("weight"), out.get(site.id("weight"))
        if own is not None and isinstance(found, Square) and normed:
            out[own.id] = tangent(found, weight, cotangent)
        if isinstance(into, Cotangent) and cotangent.tilt is not None and cotangent.tilt.source == field.law.source:
            out[source] = into = replace(into, tilt=passed(cotangent.tilt, x, counted))
        if normed and isinstance(into, Cotangent):
            taps = _reading(geometry, cotangent)
            if single:
                out[source] = by_single_channels(into, cotangent, site.known(source), taps)
            else:
                out[source] = before_padding(into, cotangent, taps)[0]
        return out

    single = geometry.groups == geometry.n_in
    depthwise = single and geometry.n_in == geometry.n_out
    stride = site.integers("stride", geometry.rank, 1)
    window = Averaged(weight.shape[2:], stride, math.prod(window.size for window in geometry.windows))
    sway, local = drawn(x.sway, noise_of(x, geometry.n_in), window)
    tail = tail_of(x, counted) if depthwise else 0.0
    alone = depthwise and all(size == 1 for size in weight.shape[2:]) and bias is None
    edges, drift = tuple(along(over_mean, read)), tuple([axis.drift for axis in seen])
    field = Field(
        y,
        np.array([mean]),
        sway=sway,
        rows=rows,
        edges=edges,
        drift=drift,
        near=near,
        tail=tail,
        spike=spike_of(x, counted),
        multiple=x.source if alone else None,
    )
    return Flow((field,), backward)


def _reading(geometry: Geometry, cotangent: Cotangent) -> Reading:
    """How the taps read the map, and what of the gradient is where they do."""
    borders = even(cotangent.edges, [window.out for window in geometry.windows])
    energy = along(Window.kept, geometry.windows, borders)
    return Reading([np.array(window.inside) for window in geometry.windows], energy)


def _relative(cotangent: Cotangent, y: Field) -> Array | None:
    """E[δ²] by output channel over its mean, where channels are told apart."""
    known = cotangent.inverse
    found = known[1] if known is not None and known[0] == y.source else None
    profile = cotangent.table.profile
    if profile is None or len(y.dims[1]) != 1 or profile.axis != y.table.starts[1] or set(profile.counts) != {1}:
        return found
    squares: Array = cotangent.table.squares / max(cotangent.table.square, 1e-300)
    return squares if found is None else squares * found


def levelled(geometry: Geometry, levels: Sequence[float], apart: Sequence[float] | None = None) -> Geometry:
    """The geometry with what falls on one position, and on two, scaled to these levels."""
    others = apart or [different for _, different in geometry.factors]
    given = tuple(zip(levels, others, strict=True))
    return Geometry(geometry.n_in, geometry.n_out, geometry.groups, geometry.windows, given)


def _rows(parts: Array, values: Array, weight: Weight, geometry: Geometry, batch: int) -> Array | None:
    """Every output channel's moments over (batch, positions), without the axes of size 1."""
    maps = _inclusion(geometry.rank) * reach_of(geometry)
    found = filtered(parts.reshape(2, -1), maps, weight, [in_reach(window.inside) for window in geometry.windows])
    if found is None:
        found = rows_of(values[0, :, 1], weight)
    if found is None:
        return None
    found = found.reshape((len(found), 2) + (2,) * geometry.rank)
    for position, size in reversed([*enumerate((batch, *(window.out for window in geometry.windows)))]):
        if size == 1:
            found = patterns.take(found, position, 1)
    return found


def noise_of(x: Field, features: int) -> float:
    """Relative variance of the energy of this many of x's entries."""
    law = x.law
    return sampling(law.function, *law.moments, features)


def _channel_profile_only(x: Field) -> Field:
    profile = x.table.profile
    if profile is None or (x.dims[1] and profile.axis == x.table.at(1)[0]):
        return x
    return x.collapse()


def _alignment(weight: Weight, bias: Vector) -> float:
    rows = weight.rows.get("sum")
    if bias.values is not None and rows is not None:
        return float(bias.values @ rows)
    return bias.mean * weight.total


def with_axes(table: Table) -> Array:
    """values with exactly one axis for batch, channel and every position: those of size 1 are inserted."""
    values = table.values
    for dim, axes in enumerate(table.dims):
        if not axes:
            values = patterns.insert(values, dim)
    return values


def without_axes(values: Array, dims: Dims, sizes: Sequence[int]) -> Table:
    """The table of these dimensions, without the axes of size 1 (their "same" half is the one that counts)."""
    for position in range(len(sizes) - 1, -1, -1):
        if sizes[position] == 1:
            values = patterns.take(values, position, 1)
    return Table(dims, values)


def components(values: Array, count: int) -> Array:
    """Möbius transform of the last axes: index 1 of an axis now means "the variance component that involves it"."""
    transformed: Array = values.reshape(-1, 2**count).dot(_moebius(count)).reshape(values.shape)
    return transformed


@lru_cache(maxsize=8)
def _moebius(count: int) -> Array:
    return reduce(np.kron, [np.array([[1.0, -1.0], [0.0, 1.0]])] * count, np.ones((1, 1)))


def _components_of(table: Table, sums: FilterSums, geometry: Geometry) -> Array:
    """Variance components of the input over (channel, positions), for either half of the batch axis."""
    parts = components(with_axes(table), 1 + geometry.rank)
    if table.profile is None:
        return parts
    return _weighed(parts, sums.energy(table.profile.counts, geometry.n_in), table.weights)


def _weighed(parts: Array, energy: Array, share: Array) -> Array:
    """Classes of input channels added up: by the filter's energy on them, or evenly for what all channels have."""
    own, common = (
        by_class.dot(parts[:, :, channel].reshape(len(parts), -1)) for channel, by_class in ((1, energy), (0, share))
    )
    return patterns.put(1, own.reshape((1, 2, *parts.shape[3:])), common.reshape((1, 2, *parts.shape[3:])))


def reach_of(geometry: Geometry) -> Array:
    """Product over the spatial axes of the window's factor, for every pattern of same and different positions."""
    return _patterns(geometry.factors)


def adjoint_reach_of(geometry: Geometry) -> Array:
    """The same of the adjoint map."""
    return _patterns([window.adjoint for window in geometry.windows])


def _patterns(factors: Sequence[tuple[float, float]]) -> Array:
    reach = [1.0]
    for same, different in factors:
        reach = [part * factor for part in reach for factor in (different, same)]
    return np.array(reach)


@lru_cache(maxsize=8)
def _inclusion(rank: int) -> Array:
    """1 where a subset of (channel, positions) involves only positions that a pattern shares, (subsets, patterns)."""
    patterns = list(itertools.product((0, 1), repeat=rank))
    subsets = itertools.product((0, 1), repeat=1 + rank)
    return np.array(
        [
            [float(all(p >= s for p, s in zip(pattern, subset[1:], strict=True))) for pattern in patterns]
            for subset in subsets
        ]
    )


def mapped(parts: Array, reach: Array, pairs: Array) -> Array:
    """Σ over components inside each spatial pattern of filter sum × component; `pairs` holds (cross, own) sums."""
    rank = parts.ndim - 3
    maps = pairs.T[:, :, None] * (_inclusion(rank) * reach)[:, None]
    found: Array = parts.reshape(-1, len(maps)).dot(maps.reshape(len(maps), -1))
    return found.reshape((len(parts), 2, 2) + (2,) * rank)


def _backward(
    site: Site,
    x: Field,
    y: Table,
    sums: FilterSums,
    geometry: Geometry,
    cotangent: Cotangent,
    read: Sequence[Array],
    sway: Sway,
    local: float,
) -> Contributions:
    given = tables.regroup(cotangent.table, y.dims).collapse()
    values = with_axes(given)
    parts = components(values, 1 + geometry.rank)
    borders = even(cotangent.edges, [window.out for window in geometry.windows])
    written = along(Window.written, geometry.windows, borders)
    behind = [(level, w.adjoint[1]) for level, w in zip(along(mean_of, written), geometry.windows, strict=True)]
    into = mapped(parts, _patterns(behind), sums.matrix(out=False))
    profile = x.table.profile
    if profile is not None:
        relative = sums.energy(profile.counts, geometry.n_in) / x.table.weights
        into = np.concatenate([into] * len(relative))
        into[:, :, 1] *= relative.reshape((-1,) + (1,) * (into.ndim - 2))
    for position in range(len(x.dims) - 1, -1, -1):
        if not x.dims[position]:
            into = patterns.take(into, position, 1)
    source = site.id("input")
    at_input = tables.regroup(Table(x.dims, into, profile), site.known(source).dims)
    edges = tuple(along(over_mean, written))
    out: dict[int, Contribution] = {source: Cotangent(at_input, edges=edges, lean=cotangent.lean * local)}
    met = along(lambda seen, edge: float(seen.dot(edge)) / len(edge), read, borders)
    axes = [Axis(math.prod(axis.size for axis in x.dims[0]), batch=True), Axis(geometry.n_out)]
    axes += [Axis(window.out) for window in geometry.windows]
    return out | _parameter_gradients(
        site, x, values, levelled(geometry, met), together(axes, [1], cotangent.lean, sway)
    )


def _parameter_gradients(
    site: Site, x: Field, given: Array, geometry: Geometry, coherence: Array
) -> dict[int, Contribution]:
    batch = math.prod(axis.size for axis in x.dims[0])
    x_values = with_axes(x.table.collapse())
    out: dict[int, Contribution] = {}
    weight, bias = site.value("weight"), site.value("bias")
    if weight is not None and weight.requires_grad and site.direct("weight"):
        out[weight.id] = filter_gradient(x_values, given * coherence, batch, geometry)
    elif weight is not None and weight.requires_grad:
        out[weight.id] = Cotangent(_computed_filter(weight.shape, x_values, given, batch, geometry))
    if bias is not None and bias.requires_grad:
        own = patterns.take(given, 1, 1)
        sizes = [batch, *(window.out for window in geometry.windows)]
        total, size = (float(patterns.pair_sum(v, range(len(sizes)), sizes).sum()) for v in (own, np.abs(own)))
        out[bias.id] = Square(total, size)
    return out


def filter_gradient(x: Array, given: Array, batch: int, geometry: Geometry) -> Square:
    """E[g²] of one filter entry: Σ over pairs of samples and positions in bounds of E[δδ′]E[xx′]."""
    both = patterns.take(given, 1, 1)[0] * patterns.take(x, 1, 1)[0]
    terms = (both * _position_pairs(batch, geometry)).reshape(-1)
    return Square(float(np.add.reduce(terms)), float(np.add.reduce(np.abs(terms))))


def _position_pairs(batch: int, geometry: Geometry) -> Array:
    """Numbers of pairs (different, same) of samples and of positions whose tap is in bounds, (2, …, 2)."""
    counts = [
        (window.out * same, window.out * (window.out - 1.0) * different)
        for window, (same, different) in zip(geometry.windows, geometry.factors, strict=True)
    ]
    return _patterns([(float(batch), batch * (batch - 1.0)), *counts]).reshape((2,) * (1 + geometry.rank))


def _computed_filter(shape: Sequence[int], x: Array, given: Array, batch: int, geometry: Geometry) -> Table:
    """The gradient's table of a computed filter; two taps meet x at different positions."""
    pairs = _position_pairs(batch, geometry)
    apart = x[(slice(None),) * 3 + (slice(0, 1),) * geometry.rank]
    values = np.zeros((1, 2, 2) + (2,) * geometry.rank)
    for out, channel in itertools.product((0, 1), repeat=2):
        g = given[0, :, out]
        values[0, out, channel] = float((g * apart[0, :, channel] * pairs).sum())
        values[(0, out, channel) + (1,) * geometry.rank] = float((g * x[0, :, channel] * pairs).sum())
    return without_axes(values, tables.dims_of(shape), shape)
