"""Maximum pools: the largest of a window forward, and back to where it was."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.closeness import closeness
from gradlint.signal.edges import resampled, sampled
from gradlint.signal.field import Base, Cotangent, Field, push, through
from gradlint.signal.kernels import COARSE, COARSE_WEIGHT
from gradlint.signal.norm_plan import merged
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import IDENTITY, Scalar, erf
from gradlint.signal.site import Contributions, Flow, Site
from gradlint.signal.table import Axis, Table
from gradlint.signal.windows import windows

Overlaps = dict[tuple[int, ...], list[tuple[float, float]]]


def spatial(site: Site) -> list[int]:
    """The dimensions that a pool slides along."""
    rank = int(site.number("spatial", 2))
    return list(range(len(site.field().shape) - rank, len(site.field().shape)))


def maximum(site: Site) -> Flow:
    """Maximum over a window of n equicorrelated Gaussians: common part plus the maximum of the local parts.

    The gradient goes to the argmax, where the functions before the pool are seen at the maximum's law.
    """
    value = site.id("input")
    original = site.known(value)
    dims = spatial(site)
    count = _window_size(site, original, dims)
    close = _close(site, merged(original.collapse()))
    return windowed(site, value, original, dims, site.shape(), count, _overlaps(site, dims, count), close)


def windowed(
    site: Site,
    value: int,
    original: Field,
    dims: Sequence[int],
    shape: Sequence[int],
    count: float,
    overlaps: Overlaps | None = None,
    close: float = 0.0,
) -> Flow:
    """The maximum over windows of `count` entries along some dimensions, of this shape; apart unless they overlap.

    `close` is the share of what two entries do not have in common that two of one window do.
    """
    overlaps = overlaps or {}
    x = merged(original.collapse())
    law = x.law
    axes = [axis for dim in dims for axis in x.table.at(dim)]
    base, mean = _maximum_law(law, axes, count, overlaps, close)
    whole = _resampled(base, dims, shape, x)
    pushed, first = push(Base(whole, mean, law.function, law.source), law.function)
    source = ("max", law.source, site.op.index)
    known = None if law.function is IDENTITY else Base(whole, mean, law.function, source)
    y = Field(pushed, first, known, sway=x.sway, edges=resampled(x.edges, shape[2:]))
    y = replace(y, near=sampled(x.near, shape[2:]))
    share = _local_share(law, axes) * (1.0 - close)
    height = Scalar(f"max{count:.4g},{share:.4g}", lambda z: _argmax_weight(z, law, count, share), np.zeros_like)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, y.dims).collapse()
        routed = _routed(given, x.table, dims, _shared(given, dims, overlaps, count))
        shaped = tables.regroup(routed, x.dims)
        independent = _independent(law, shaped, height)
        edges = resampled(cotangent.edges, x.shape[2:])
        if x.dims != original.dims:
            return {value: Cotangent(tables.regroup(shaped, original.dims), edges=edges, lean=cotangent.lean)}
        return {value: through(law, independent, height, edges=edges, lean=cotangent.lean)}

    return Flow((y, None)[: len(site.op.outputs)], backward)


def _window_size(site: Site, x: Field, dims: Sequence[int]) -> float:
    """Mean number of entries in bounds of a window."""
    rank = len(dims)
    after = site.shape()
    if site.op.function.startswith("adaptive"):
        return math.prod(max(x.shape[dim] / after[dim], 1.0) for dim in dims)
    kernel, stride = site.integers("kernel", rank, 1), site.integers("stride", rank, 1)
    padding, dilation = site.integers("padding", rank, 0), site.integers("dilation", rank, 1)
    count = 1.0
    for i, dim in enumerate(dims):
        at = np.arange(after[dim])[:, None] * stride[i] - padding[i] + np.arange(kernel[i])[None] * dilation[i]
        count *= float(((at >= 0) & (at < x.shape[dim])).sum(1).mean())
    return count


def _close(site: Site, x: Field) -> float:
    """How much more entries of one window have in common than any two, where windows slide."""
    rank, after = int(site.number("spatial", 2)), site.shape()
    if site.op.function.startswith("adaptive") or len(after) != rank + 2:
        return 0.0
    padding = [float(pad) for pad in site.integers("padding", rank, 0)]
    kernel = site.integers("kernel", rank, 1)
    stride, dilation = site.integers("stride", rank, 1), site.integers("dilation", rank, 1)
    return closeness(x, windows(x.shape[2:], after[2:], kernel, stride, padding, dilation))


def _overlaps(site: Site, dims: Sequence[int], count: float) -> Overlaps:
    """Entries that two windows have in common, for every pattern of same (1) and different (0) places along the axes.

    Each as (share of the pattern's pairs of windows, entries of `count`); pairs that share none are left out.
    """
    if site.op.function.startswith("adaptive"):
        return {}
    rank, after = len(dims), site.shape()
    kernel, stride = site.integers("kernel", rank, 1), site.integers("stride", rank, 1)
    axes = []
    for dim, taps, step in zip(dims, kernel, stride, strict=True):
        out = after[dim]
        apart = [
            (2.0 * (out - d) / (out * (out - 1.0)), 1.0 - d * step / taps) for d in range(1, out) if d * step < taps
        ]
        axes.append((apart, [(1.0, 1.0)]))
    found: Overlaps = {}
    for pattern in itertools.product((0, 1), repeat=rank):
        parts = [axes[axis][same] for axis, same in enumerate(pattern)]
        pairs = [
            (math.prod(s for s, _ in pair), count * math.prod(o for _, o in pair)) for pair in itertools.product(*parts)
        ]
        if 0 in pattern and pairs:
            found[pattern] = pairs
    return found


def _below(z: Array) -> Array:
    """Φ(z), never below 0 by rounding: it is raised to powers that are no integers."""
    return np.maximum(0.5 * (1.0 + erf(z / math.sqrt(2.0))), 0.0)


@lru_cache(maxsize=256)
def overlap_covariance(count: float, shared: float) -> float:
    """Covariance of the maxima of two sets of `count` N(0, 1) that have `shared` of them in common (Hoeffding 1940)."""
    z = np.linspace(-5.0, 6.0, 221)
    cumulative = _below(z)
    alone, both = cumulative ** (count - shared), cumulative**shared
    joint = np.outer(alone, alone) * np.minimum.outer(both, both)
    apart = np.outer(cumulative**count, cumulative**count)
    return float((joint - apart).sum()) * float(z[1] - z[0]) ** 2


def _shared(given: Table, dims: Sequence[int], overlaps: Overlaps, count: float) -> Array:
    """E[δδ′] summed over the other windows with the same argmax: it is one of the s shared entries of 2n − s."""
    axes = [axis for dim in dims for axis in given.at(dim)]
    total = np.zeros_like(patterns.take_all(given.values, axes))
    if len(axes) != len(dims):
        return total
    for pattern, pairs in overlaps.items():
        number = math.prod(given.sizes[axis] - 1 for axis, same in zip(axes, pattern, strict=True) if not same)
        index: list[slice | int] = [slice(None)] * given.values.ndim
        for axis, same in zip(axes, pattern, strict=True):
            index[axis + 1] = same
        together = sum(share * shared / (2.0 * count - shared) for share, shared in pairs)
        total = total + number * together * given.values[tuple(index)]
    return total


def _maximum_law(law: Base, axes: Sequence[int], count: float, overlaps: Overlaps, close: float) -> tuple[Table, Array]:
    """Second moments of the window maximum of z, and its mean; windows that overlap share part of their own."""
    covariance = law.table.values - law.table.per_class(law.mean**2)
    common = patterns.take_all(covariance, axes, 0)
    for axis in sorted(axes):
        common = patterns.insert(common, axis)
    window, local = close * (covariance - common), (1.0 - close) * (covariance - common)
    spread = math.sqrt(max(float(local.reshape(len(local), -1)[0, -1]), 0.0))
    lift, variance = maximum_moments(round(count, 3))
    index: list[slice | int] = [slice(None)] * covariance.ndim
    for axis in axes:
        index[axis + 1] = 1
    values = common.copy()
    values[tuple(index)] += window[tuple(index)] + variance * local[tuple(index)]
    for pattern, pairs in overlaps.items() if len(axes) == len(next(iter(overlaps), ())) else ():
        at = list(index)
        for axis, same in zip(axes, pattern, strict=True):
            at[axis + 1] = same
        joint = sum(share * overlap_covariance(round(count, 3), round(shared, 3)) for share, shared in pairs)
        values[tuple(at)] += joint * local[tuple(index)]
    mean = law.mean + spread * lift
    return law.table.with_values(values + law.table.per_class(mean**2)), mean


@lru_cache(maxsize=1024)
def maximum_moments(count: float) -> tuple[float, float]:
    """Mean and variance of the maximum of `count` independent N(0, 1) (which may be fractional)."""
    z = np.linspace(-9.0, 9.0, 4001)
    cumulative = _below(z) ** count
    density, centre = np.diff(cumulative), (z[1:] + z[:-1]) / 2.0
    mean = float(density @ centre)
    return mean, float(density @ centre**2) - mean**2


def _local_share(law: Base, axes: Sequence[int]) -> float:
    """Share of the variance of z that the entries of one window do not have in common."""
    covariance = law.table.values - law.table.per_class(law.mean**2)
    own = float(covariance.reshape(len(covariance), -1)[0, -1])
    common = float(patterns.take_all(covariance, axes, 0).reshape(len(covariance), -1)[0, -1])
    return min(max(1.0 - common / own, 0.0), 1.0) if own > 0.0 else 1.0


def _argmax_weight(z: Array, law: Base, count: float, share: float) -> Array:
    """Square root of the density of being the maximum, relative to its average: z beats count − 1 others.

    What counts is the part of z that the window's entries do not have in common, which z tells up to a Gaussian.
    """
    spread = math.sqrt(max(float(law.variance[0]), 1e-300))
    at, density = _density(round(count, 3), round(share, 3))
    weight: Array = np.sqrt(np.interp((z - float(law.mean[0])) / spread, at, density))
    return weight


@lru_cache(maxsize=1024)
def _density(count: float, share: float) -> tuple[Array, Array]:
    """Density of being the maximum over its average, on a grid of standardised entries."""
    at = np.linspace(-8.0, 8.0, 641)
    local = math.sqrt(share) * at[:, None] + math.sqrt(1.0 - share) * COARSE
    beats = _below(local) ** (count - 1.0)
    return at, count * (beats @ COARSE_WEIGHT)


def _independent(law: Base, routed: Table, height: Scalar) -> Table:
    """The part of the routed cotangent that is left when the weight of being the maximum is divided out."""
    pushed, _ = push(law, height)
    given, weight = tables.same_classes(routed, pushed)
    return tables.combine(given, weight, lambda g, w: g / np.where(np.abs(w) > 1e-12, w, 1.0))


def _resampled(table: Table, dims: Sequence[int], shape: Sequence[int], x: Field) -> Table:
    """The table with the pooled dimensions at their new sizes."""
    for dim in dims:
        axis = table.starts[dim]
        if not table.dims[dim]:
            continue
        if shape[dim] == 1:
            values = patterns.take(table.values, axis, 1)
            table = Table((*table.dims[:dim], (), *table.dims[dim + 1 :]), values)
        else:
            resized = (Axis(shape[dim], table.axes[axis].batch),)
            table = Table((*table.dims[:dim], resized, *table.dims[dim + 1 :]), table.values)
    return table


def _routed(given: Table, x: Table, dims: Sequence[int], shared: Array) -> Table:
    """The cotangent at the inputs: each output's goes to one entry of its window, where those of others may meet it."""
    axes = [axis for dim in dims for axis in given.at(dim)]
    out = math.prod(given.sizes[axis] for axis in axes)
    target = [axis for dim in dims for axis in x.at(dim)]
    size = math.prod(x.sizes[axis] for axis in target)
    same, different = patterns.joint(given.values, axes, given.sizes)
    own = (same + shared) * (out / size)
    other = (different * (out - 1.0) - shared) * (out / max(size * (size - 1.0), 1.0))
    values = own
    lead = [dim for dim in range(len(x.dims)) if dim not in dims]
    start = sum(len(x.dims[dim]) for dim in lead)
    values = patterns.insert(other, start, len(target))
    index: list[slice | int] = [slice(None)] * values.ndim
    for axis in range(start, start + len(target)):
        index[axis + 1] = 1
    values[tuple(index)] = own
    return Table(x.dims, values)
