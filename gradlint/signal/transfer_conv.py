"""Convolutions of any rank: variance components over (channel, positions) times sums of the filter over its taps."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.edges import even
from gradlint.signal.field import Cotangent, Field, Orthogonal
from gradlint.signal.rows import filtered, rows_of, tangent, weighed
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Square
from gradlint.signal.sway import Sway, drawn, kurtosis, sampling, together
from gradlint.signal.sway import Window as Averaged
from gradlint.signal.table import Array, Axis, Dims, Table
from gradlint.signal.weights import Vector, Weight

COUNTED = 0.9  # of the kurtosis: squares of single entries, that vary in the Gaussian part too (simulated, 3×3 taps)


@dataclass(frozen=True)
class Window:
    """A window sliding along one axis: `inside[t]` is the share of output positions where tap t is in bounds."""

    size: int
    out: int
    inside: tuple[float, ...]
    at: Array  # (out, taps): the input position that a tap reads, which may be out of bounds
    level: float | None = None  # `same` where the map is not even
    apart: float | None = None  # `different` there

    @property
    def same(self) -> float:
        """Mean in-bounds share: scales what falls on one position."""
        return sum(self.inside) / len(self.inside) if self.level is None else self.level

    def read(self, edge: Array) -> Array:
        """What every output position reads of an input of these moments along the axis, the mean over taps, (out,)."""
        within = (self.at >= 0) & (self.at < self.size)
        read: Array = np.where(within, edge[np.clip(self.at, 0, self.size - 1)], 0.0).mean(1)
        return read

    def pairs(self, edge: Array) -> float:
        """`different` for an input that falls off in amplitude as this edge does in moments."""
        if self.out == 1 or self.size == 1:
            return float(self.read(edge).mean())
        within = (self.at >= 0) & (self.at < self.size)
        amplitude = np.sqrt(edge)
        read = np.where(within, amplitude[np.clip(self.at, 0, self.size - 1)], 0.0)
        found = float(((read.sum(0) ** 2) - (read**2).sum(0)).mean()) / (self.out * (self.out - 1.0))
        level = (float(amplitude.sum()) ** 2 - float(edge.sum())) / (self.size * (self.size - 1.0))
        return found / max(level, 1e-300)

    def drift(self, edge: Array) -> Array:
        """How E[y(p)ȳ] varies along the outputs of a random filter for an input of this edge and one sign, mean 1."""
        within = (self.at >= 0) & (self.at < self.size)
        mean = np.where(within, np.sqrt(edge)[np.clip(self.at, 0, self.size - 1)], 0.0)
        found: Array = mean @ mean.mean(0)
        return found / max(float(found.mean()), 1e-300)

    def written(self, edge: Array) -> Array:
        """The adjoint: what every input position gets from outputs of these moments, (size,)."""
        within = (self.at >= 0) & (self.at < self.size)
        spread = np.where(within, edge[:, None], 0.0) / self.at.shape[1]
        found = np.zeros(self.size)
        np.add.at(found, np.clip(self.at, 0, self.size - 1), spread)
        return found

    @property
    def different(self) -> float:
        """Share of pairs of output positions whose taps are both in bounds, averaged over taps."""
        if self.apart is not None:
            return self.apart
        if self.out == 1:
            return self.same
        pairs = [max(share * (share * self.out - 1.0), 0.0) for share in self.inside]
        return sum(pairs) / len(pairs) / (self.out - 1)


def windows(
    sizes: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[float],
    dilation: Sequence[int],
) -> list[Window]:
    """The window of every spatial axis of a convolution or pool."""
    found = []
    for size, length, taps, step, pad, gap in zip(sizes, out, kernel, stride, padding, dilation, strict=True):
        at = np.arange(length)[:, None] * step - math.floor(pad) + np.arange(taps)[None] * gap
        inside = ((at >= 0) & (at < size)).mean(0)
        found.append(Window(size, length, tuple(float(share) for share in inside), at))
    return found


@dataclass(frozen=True, eq=False)
class Geometry:
    """A convolution's channels, groups and windows (of the map from its input to its output)."""

    n_in: int
    n_out: int
    groups: int
    windows: list[Window]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.windows)


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
    read = [window.read(edge) for window, edge in zip(geometry.windows, borders, strict=True)]
    pairs = [window.pairs(edge) for window, edge in zip(geometry.windows, borders, strict=True)]
    geometry = levelled(geometry, [float(vector.mean()) for vector in read], pairs)
    sums = FilterSums(weight, geometry.groups)
    parts = _components_of(x.table, sums, geometry)
    y_values = mapped(parts, reach_of(geometry, adjoint=False), sums.matrix(out=True))
    rows = _rows(parts, y_values, weight, geometry, math.prod(axis.size for axis in x.dims[0]))
    mean = x.average * weight.total / geometry.n_out * math.prod(window.same for window in geometry.windows)
    if bias is not None:
        y_values[:, :, 1] += bias.square
        y_values[:, :, 0] += bias.cross
        aligned = _alignment(weight, bias)
        reach = 2.0 * x.average * math.prod(window.same for window in geometry.windows)
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
        met = sums
        if cotangent.inverse is not None and cotangent.inverse[0] == field.source:
            met = FilterSums(weighed(weight, cotangent.inverse[1]), geometry.groups)
        out = dict(_backward(site, x, y, met, geometry, cotangent, sway, local))
        into, source = out[site.id("input")], site.id("input")
        orthogonal = cotangent.orthogonal
        own, found = site.value("weight"), out.get(site.id("weight"))
        if own is not None and isinstance(found, Square) and orthogonal and orthogonal.source == field.source:
            out[own.id] = tangent(found, weight, cotangent)
        if depthwise and isinstance(into, Cotangent) and orthogonal and orthogonal.source == field.source:
            out[source] = replace(into, orthogonal=Orthogonal(site.known(source).source, orthogonal.rest))
        return out

    depthwise = geometry.groups == geometry.n_in == geometry.n_out
    stride = site.integers("stride", geometry.rank, 1)
    window = Averaged(weight.shape[2:], stride, math.prod(window.size for window in geometry.windows))
    sway, local = drawn(x.sway, noise_of(x, geometry.n_in), window)
    tail = tail_of(x) if depthwise else 0.0
    edges = tuple(vector / max(float(vector.mean()), 1e-300) for vector in read)
    drift = tuple(window.drift(edge) for window, edge in zip(geometry.windows, borders, strict=True))
    field = Field(
        y, np.array([mean]), sway=sway, rows=rows, edges=edges, drift=drift, tail=tail, spike=spike_of(x, weight)
    )
    return Flow((field,), backward)


def levelled(geometry: Geometry, levels: Sequence[float], apart: Sequence[float] | None = None) -> Geometry:
    """The geometry with what falls on one position, and on two, scaled to these levels."""
    others = apart or [window.different for window in geometry.windows]
    triples = zip(geometry.windows, levels, others, strict=True)
    return replace(geometry, windows=[replace(window, level=level, apart=two) for window, level, two in triples])


def _rows(parts: Array, values: Array, weight: Weight, geometry: Geometry, batch: int) -> Array | None:
    """Every output channel's moments over (batch, positions), without the axes of size 1."""
    maps = _inclusion(geometry.rank) * reach_of(geometry, adjoint=False)
    found = filtered(parts.reshape(2, -1), maps, weight)
    if found is None:
        found = rows_of(values[0, :, 1], weight)
    if found is None:
        return None
    found = found.reshape((len(found), 2) + (2,) * geometry.rank)
    for position, size in reversed([*enumerate((batch, *(window.out for window in geometry.windows)))]):
        if size == 1:
            found = tables.take(found, position, 1)
    return found


def tail_of(x: Field) -> float:
    """Relative variance of Σ(x − mean)² in a channel beyond that of Gaussian entries: (K − 3)/n, K the kurtosis."""
    law = x.law
    weights = law.table.weights
    mean, variance = float(weights @ law.mean), float(weights @ law.variance)
    excess = kurtosis(law.function, mean, variance, fixed=x.fixed) * (1.0 + x.sway.variance) - 3.0
    excess -= COUNTED if x.fixed else 0.0
    return max(excess, 0.0) / math.prod(size for dim, size in enumerate(x.shape) if dim != 1)


def spike_of(x: Field, weight: Weight) -> float:
    """Variance s of the log scale of a sum over n taps: 3/(n + 2) of the excess kurtosis of x, as 3(e^s − 1)."""
    taps = math.prod(weight.shape[1:])
    law = x.law
    weights = law.table.weights
    excess = kurtosis(law.function, float(weights @ law.mean), float(weights @ law.variance), fixed=False) - 3.0
    return math.log1p(max(excess, 0.0) / (taps + 2.0))


def noise_of(x: Field, features: int) -> float:
    """Relative variance of the energy of this many of x's entries."""
    law = x.law
    weights = law.table.weights
    return sampling(law.function, float(weights @ law.mean), float(weights @ law.variance), features)


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
            values = tables.insert(values, dim)
    return values


def without_axes(values: Array, dims: Dims, sizes: Sequence[int]) -> Table:
    """The table of these dimensions, without the axes of size 1 (their "same" half is the one that counts)."""
    for position in range(len(sizes) - 1, -1, -1):
        if sizes[position] == 1:
            values = tables.take(values, position, 1)
    return Table(dims, values)


def components(values: Array, axes: Sequence[int]) -> Array:
    """Möbius transform: index 1 of an axis now means "the variance component that involves this axis"."""
    values = values.copy()
    for axis in axes:
        index: list[slice | int] = [slice(None)] * values.ndim
        other = list(index)
        index[axis + 1], other[axis + 1] = 1, 0
        values[tuple(index)] = values[tuple(index)] - values[tuple(other)]
    return values


@dataclass(frozen=True, eq=False)
class FilterSums:
    """Sums of a filter bank over channels and taps named by a subset, seen from the output and from the input."""

    weight: Weight
    groups: int

    def key(self, subset: Sequence[int], *, out: bool) -> str:
        """The moments' key for the axes in `subset` = (channel, tap axes…), with or without the output axis."""
        kept = [axis + 1 for axis, present in enumerate(subset) if present]
        return "".join(map(str, [0, *kept] if out else kept))

    def forward(self, subset: Sequence[int]) -> tuple[float, float]:
        """Σ over `subset` of (Σ over the others W)² per output channel, and its mean over pairs of output channels."""
        n_out = self.weight.shape[0]
        same = self.weight.sums[self.key(subset, out=True)]
        together = self.weight.sums[self.key(subset, out=False)]
        if self.groups > 1 and subset[0]:
            return same / n_out, 0.0
        return same / n_out, (together - same) / max(n_out * (n_out - 1), 1)

    def backward(self, subset: Sequence[int]) -> tuple[float, float]:
        """The same sums per input channel, where the channel axis of the subset is now the output's."""
        n_in = self.weight.shape[1] * self.groups
        taps = subset[1:]
        same = self.weight.sums[self._adjoint_key(subset[0], 1, taps)]
        together = self.weight.sums[self._adjoint_key(subset[0], 0, taps)]
        if self.groups > 1 and subset[0]:
            together = same
        return same / n_in, (together - same) / max(n_in * (n_in - 1), 1)

    def _adjoint_key(self, out: int, channel: int, taps: Sequence[int]) -> str:
        kept = ([0] if out else []) + ([1] if channel else []) + [axis + 2 for axis, one in enumerate(taps) if one]
        return "".join(map(str, kept))

    def matrix(self, *, out: bool) -> Array:
        """(different, same) channel sums for every subset of (channel, taps), shape (2, subsets)."""
        of = self.forward if out else self.backward
        pairs = [of(subset) for subset in itertools.product((0, 1), repeat=len(self.weight.shape) - 1)]
        return np.array([[cross for _, cross in pairs], [own for own, _ in pairs]])

    def energy(self, counts: Sequence[int], n_in: int) -> Array:
        """Share of the filter's energy on every class of input channels."""
        square = self.weight.columns.get("square")
        share = np.asarray(counts, np.float64) / n_in
        if square is None or self.groups > 1:
            return share
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        energy: Array = np.add.reduceat(square, starts)
        return energy / max(float(energy.sum()), 1e-300)


def _components_of(table: Table, sums: FilterSums, geometry: Geometry) -> Array:
    """Variance components of the input over (channel, positions), for either half of the batch axis."""
    parts = components(with_axes(table), range(1, 2 + geometry.rank))
    if table.profile is None:
        return parts
    return _weighed(parts, sums.energy(table.profile.counts, geometry.n_in), table.weights)


def _weighed(parts: Array, energy: Array, share: Array) -> Array:
    """Classes of input channels added up: by the filter's energy on them, or evenly for what all channels have."""
    own = np.tensordot(energy, parts[:, :, 1], (0, 0))
    common = np.tensordot(share, parts[:, :, 0], (0, 0))
    return np.stack([common, own], axis=1)[None]


def reach_of(geometry: Geometry, *, adjoint: bool) -> Array:
    """Product over the spatial axes of the window's factor, for every pattern of same and different positions."""
    reach: Array = np.ones(1)
    for window in geometry.windows:
        same, different = _adjoint(window) if adjoint else (window.same, window.different)
        reach = np.multiply.outer(reach, np.array([different, same])).reshape(-1)
    return reach


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
    flat = parts.reshape(len(parts), 2, -1)
    maps = pairs[:, :, None] * _inclusion(rank) * reach
    return np.tensordot(flat, maps, ([2], [1])).reshape((len(parts), 2, 2) + (2,) * rank)


def _backward(
    site: Site, x: Field, y: Table, sums: FilterSums, geometry: Geometry, cotangent: Cotangent, sway: Sway, local: float
) -> Contributions:
    given = tables.regroup(cotangent.table, y.dims).collapse()
    values = with_axes(given)
    parts = components(values, range(1, 2 + geometry.rank))
    borders = even(cotangent.edges, [window.out for window in geometry.windows])
    pairs = [(window, edge) for window, edge in zip(geometry.windows, borders, strict=True)]
    written = [window.written(edge) for window, edge in pairs]
    behind = levelled(
        geometry, [float(vector.sum()) / window.out for vector, window in zip(written, geometry.windows, strict=True)]
    )
    into = mapped(parts, reach_of(behind, adjoint=True), sums.matrix(out=False))
    profile = x.table.profile
    if profile is not None:
        relative = sums.energy(profile.counts, geometry.n_in) / x.table.weights
        into = np.concatenate([into] * len(relative))
        into[:, :, 1] *= relative.reshape((-1,) + (1,) * (into.ndim - 2))
    for position in range(len(x.dims) - 1, -1, -1):
        if not x.dims[position]:
            into = tables.take(into, position, 1)
    source = site.id("input")
    at_input = tables.regroup(Table(x.dims, into, profile), site.known(source).dims)
    edges = tuple(vector / max(float(vector.mean()), 1e-300) for vector in written)
    out: dict[int, Contribution] = {source: Cotangent(at_input, edges=edges, lean=cotangent.lean * local)}
    sources = even(x.edges, [window.size for window in geometry.windows])
    met = [float((window.read(u) * w).mean()) for (window, w), u in zip(pairs, sources, strict=True)]
    axes = [Axis(math.prod(axis.size for axis in x.dims[0]), batch=True), Axis(geometry.n_out)]
    axes += [Axis(window.out) for window in geometry.windows]
    return out | _parameter_gradients(
        site, x, values, levelled(geometry, met), together(axes, [1], cotangent.lean, sway)
    )


def _adjoint(window: Window) -> tuple[float, float]:
    """Factors of the adjoint map for the same and for different input positions."""
    same = window.same * window.out / window.size
    pairs = [max(share * (share * window.out - 1.0), 0.0) for share in window.inside]
    different = sum(pairs) / len(pairs) * window.out / max(window.size * (window.size - 1), 1)
    return same, different


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
        own = tables.take(given, 1, 1)
        sizes = [batch, *(window.out for window in geometry.windows)]
        total, size = (float(tables.pair_sum(v, range(len(sizes)), sizes).sum()) for v in (own, np.abs(own)))
        out[bias.id] = Square(total, size)
    return out


def filter_gradient(x: Array, given: Array, batch: int, geometry: Geometry) -> Square:
    """E[g²] of one filter entry: Σ over pairs of samples and positions in bounds of E[δδ′]E[xx′]."""
    both = tables.take(given, 1, 1)[0] * tables.take(x, 1, 1)[0]
    pairs = _position_pairs(batch, geometry)
    return Square(float((both * pairs).sum()), float(np.abs(both * pairs).sum()))


def _position_pairs(batch: int, geometry: Geometry) -> Array:
    """Numbers of pairs (different, same) of samples and of positions whose tap is in bounds, (2, …, 2)."""
    counts: Array = np.array([batch * (batch - 1.0), float(batch)])
    for window in geometry.windows:
        different, same = window.out * (window.out - 1.0) * window.different, window.out * window.same
        counts = np.multiply.outer(counts, np.array([different, same]))
    return counts


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
