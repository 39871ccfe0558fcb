"""Pools, reductions, interpolation and padding: fixed linear maps along single axes, and the maximum over a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.edges import resampled
from gradlint.signal.field import Base, Cotangent, Field, push, through
from gradlint.signal.kernels import COARSE, COARSE_WEIGHT
from gradlint.signal.norm_plan import merged
from gradlint.signal.scalar import IDENTITY, Scalar, erf
from gradlint.signal.site import Contributions, Flow, Site, Unanswered
from gradlint.signal.table import Array, Axis, Table
from gradlint.signal.transfer_shape import shuffled_pixels


@dataclass(frozen=True)
class AxisMap:
    """y = A x along one axis, by sums of A: all that exchangeable indices need, forward and backward.

    With (s, d) the table's entries for same and different indices, y's are (s−d)·(AAᵀ) + d·(row sum)(row sum)ᵀ,
    averaged over equal and over different output indices; the adjoint uses AᵀA and the column sums.
    """

    out: int
    size: int
    square: float
    row_square: float
    column_square: float
    total: float

    def forward(self, same: Array, different: Array) -> tuple[Array, Array]:
        """(same, different) over output indices."""
        return self._apply(same, different, self.out, self.row_square, self.column_square)

    def backward(self, same: Array, different: Array) -> tuple[Array, Array]:
        """(same, different) over input indices."""
        return self._apply(same, different, self.size, self.column_square, self.row_square)

    def _apply(self, same: Array, different: Array, count: int, own: float, other: float) -> tuple[Array, Array]:
        excess = same - different
        first = (excess * self.square + different * own) / count
        pairs = max(count * (count - 1), 1)
        second = (excess * (other - self.square) + different * (self.total**2 - own)) / pairs
        return first, second


def axis_map(matrix: Array) -> AxisMap:
    """The sums of a matrix of shape (out, in)."""
    rows, columns = matrix.sum(1), matrix.sum(0)
    return AxisMap(
        matrix.shape[0],
        matrix.shape[1],
        float((matrix**2).sum()),
        float((rows**2).sum()),
        float((columns**2).sum()),
        float(rows.sum()),
    )


@lru_cache(maxsize=1024)
def window_mean(size: int, out: int, kernel: int, stride: int, padding: int, counted: bool) -> AxisMap:  # noqa: FBT001
    """Average over a sliding window; padding counts in the divisor when `counted`."""
    matrix = np.zeros((out, size))
    for row in range(out):
        start = row * stride - padding
        low, high = max(start, 0), min(start + kernel, size)
        matrix[row, low:high] = 1.0 / (kernel if counted else max(high - low, 1))
    return axis_map(matrix)


@lru_cache(maxsize=1024)
def adaptive_mean(size: int, out: int) -> AxisMap:
    """torch's adaptive average: window i is [⌊i·n/m⌋, ⌈(i+1)·n/m⌉)."""
    matrix = np.zeros((out, size))
    for row in range(out):
        low, high = row * size // out, -(-(row + 1) * size // out)
        matrix[row, low:high] = 1.0 / (high - low)
    return axis_map(matrix)


@lru_cache(maxsize=1024)
def interpolation(size: int, out: int, mode: str, corners: bool) -> AxisMap:  # noqa: FBT001
    """Nearest, linear or cubic interpolation along one axis."""
    matrix = np.zeros((out, size))
    for row in range(out):
        if mode == "cubic":
            at = row * (size - 1) / max(out - 1, 1) if corners else (row + 0.5) * size / out - 0.5
            for tap in range(math.floor(at) - 1, math.floor(at) + 3):
                matrix[row, min(max(tap, 0), size - 1)] += _cubic(abs(at - tap))
        elif mode == "linear":
            scale = (size - 1) / max(out - 1, 1) if corners else size / out
            at = row * scale if corners else max((row + 0.5) * scale - 0.5, 0.0)
            low = min(int(at), size - 1)
            high = min(low + 1, size - 1)
            matrix[row, low] += 1.0 - (at - low)
            matrix[row, high] += at - low
        else:
            matrix[row, min(int(row * size / out), size - 1)] = 1.0
    return axis_map(matrix)


def _cubic(distance: float) -> float:
    """Keys' convolution kernel with a = −3/4, as torch has it (Keys 1981, eq. 4)."""
    if distance <= 1.0:
        return (1.25 * distance - 2.25) * distance**2 + 1.0
    return -0.75 * (((distance - 5.0) * distance + 8.0) * distance - 4.0)


def along_axes(site: Site, maps: dict[int, AxisMap]) -> Flow:
    """Independent linear maps along some dimensions of the first operand."""
    value = site.id("input")
    original = site.known(value)
    x = merged(original)
    table = x.table.collapse_along([axis for dim in maps for axis in x.table.at(dim)])
    mean = x.mean if len(x.mean) == len(table.values) else np.array([x.average])
    y = table
    for dim, applied in maps.items():
        y = _mapped(y, dim, applied, applied.forward, applied.out)
        mean = mean * (applied.total / applied.out)
    before = table.dims

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, y.dims)
        given = given.collapse_along([axis for dim in maps for axis in given.at(dim)])
        for dim, applied in maps.items():
            given = _mapped(given, dim, applied, applied.backward, applied.size)
        back = tables.regroup(tables.regroup(given, before), original.dims)
        return {value: Cotangent(back, edges=resampled(cotangent.edges, original.shape[2:]), lean=cotangent.lean)}

    return Flow((Field(y, mean, sway=x.sway, edges=resampled(x.edges, y.shape[2:])),), backward)


def _mapped(
    table: Table, dim: int, applied: AxisMap, direction: Callable[[Array, Array], tuple[Array, Array]], size: int
) -> Table:
    axis = table.starts[dim]
    if table.dims[dim]:
        same, different = tables.take(table.values, axis, 1), tables.take(table.values, axis, 0)
        batch = table.axes[axis].batch
    else:
        same = different = table.values
        batch = False
    same, different = direction(same, different)
    values = tables.put(axis, same, different) if size > 1 else same
    profile = table.profile
    if profile is not None and profile.axis > axis - (0 if table.dims[dim] else 1):
        shift = (1 if size > 1 else 0) - len(table.dims[dim])
        profile = tables.Profile(profile.axis + shift, profile.counts)
    dims = (*table.dims[:dim], (Axis(size, batch),) if size > 1 else (), *table.dims[dim + 1 :])
    return Table(dims, values, profile)


def pool(site: Site) -> Flow:
    """Average and maximum pools."""
    builder = POOLS.get(site.op.function)
    if builder is None:
        raise Unanswered(f"no transfer function for {site.op.function} pool")
    return builder(site)


def _spatial(site: Site) -> list[int]:
    rank = int(site.number("spatial", 2))
    return list(range(len(site.field().shape) - rank, len(site.field().shape)))


def _average(site: Site) -> Flow:
    dims = _spatial(site)
    rank = len(dims)
    before, after = site.field().shape, site.shape()
    kernel, stride = site.integers("kernel", rank, 1), site.integers("stride", rank, 1)
    padding = site.integers("padding", rank, 0)
    counted = bool(site.op.attrs.get("count_include_pad", True))
    maps = {
        dim: window_mean(before[dim], after[dim], kernel[i], stride[i], padding[i], counted)
        for i, dim in enumerate(dims)
    }
    return along_axes(site, maps)


def _adaptive_average(site: Site) -> Flow:
    before, after = site.field().shape, site.shape()
    return along_axes(site, {dim: adaptive_mean(before[dim], after[dim]) for dim in _spatial(site)})


MODES = {"nearest": "nearest", "nearest-exact": "nearest", "bicubic": "cubic"} | dict.fromkeys(
    ("linear", "bilinear", "trilinear"), "linear"
)


def resize(site: Site) -> Flow:
    """Interpolation axis by axis; pixel shuffles."""
    function = site.op.function
    if function in ("pixel_shuffle", "pixel_unshuffle"):
        return shuffled_pixels(site)
    mode = str(site.op.attrs.get("mode", "nearest"))
    if function != "interpolate" or mode not in MODES:
        raise Unanswered(f"no transfer function for {function} ({mode})")
    before, after = site.field().shape, site.shape()
    kind = MODES[mode]
    corners = bool(site.op.attrs.get("align_corners", False))
    dims = range(2, len(before))
    return along_axes(site, {dim: interpolation(before[dim], after[dim], kind, corners) for dim in dims})


def _maximum(site: Site) -> Flow:
    """Maximum over a window of n equicorrelated Gaussians: common part plus the maximum of the local parts.

    The gradient goes to the argmax, where the functions before the pool are seen at the maximum's law.
    """
    value = site.id("input")
    original = site.known(value)
    dims = _spatial(site)
    count = _window_size(site, merged(original.collapse()), dims)
    return windowed(site, value, original, dims, site.shape(), count)


def windowed(site: Site, value: int, original: Field, dims: list[int], shape: Sequence[int], count: float) -> Flow:
    """The maximum over windows of `count` entries along some dimensions, of this shape."""
    x = merged(original.collapse())
    law = x.law
    axes = [axis for dim in dims for axis in x.table.at(dim)]
    base, mean = _maximum_law(law, axes, count)
    whole = _resampled(base, dims, shape, x)
    pushed, first = push(Base(whole, mean, law.function, law.source), law.function)
    source = ("max", law.source, site.op.index)
    known = None if law.function is IDENTITY else Base(whole, mean, law.function, source)
    y = Field(pushed, first, known, sway=x.sway, edges=resampled(x.edges, shape[2:]))
    share = _local_share(law, axes)
    height = Scalar(f"max{count:.4g},{share:.4g}", lambda z: _argmax_weight(z, law, count, share), np.zeros_like)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, y.dims).collapse()
        routed = _routed(given, x.table, dims)
        shaped = tables.regroup(routed, x.dims)
        independent = _independent(law, shaped, height)
        edges = resampled(cotangent.edges, x.shape[2:])
        if x is not original:
            return {value: Cotangent(tables.regroup(shaped, original.dims), edges=edges, lean=cotangent.lean)}
        return {value: replace(through(law, independent, height), edges=edges, lean=cotangent.lean)}

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


def _maximum_law(law: Base, axes: Sequence[int], count: float) -> tuple[Table, Array]:
    """Second moments of the window maximum of z, and its mean."""
    covariance = law.table.values - law.table.per_class(law.mean**2)
    common = tables.take_all(covariance, axes, 0)
    for axis in sorted(axes):
        common = tables.insert(common, axis)
    local = covariance - common
    spread = math.sqrt(max(float(local.reshape(len(local), -1)[0, -1]), 0.0))
    lift, variance = maximum_moments(round(count, 3))
    index: list[slice | int] = [slice(None)] * covariance.ndim
    for axis in axes:
        index[axis + 1] = 1
    values = common.copy()
    values[tuple(index)] += variance * local[tuple(index)]
    mean = law.mean + spread * lift
    return law.table.with_values(values + law.table.per_class(mean**2)), mean


@lru_cache(maxsize=1024)
def maximum_moments(count: float) -> tuple[float, float]:
    """Mean and variance of the maximum of `count` independent N(0, 1) (which may be fractional)."""
    z = np.linspace(-9.0, 9.0, 4001)
    cumulative = (0.5 * (1.0 + erf(z / math.sqrt(2.0)))) ** count
    density, centre = np.diff(cumulative), (z[1:] + z[:-1]) / 2.0
    mean = float(density @ centre)
    return mean, float(density @ centre**2) - mean**2


def _local_share(law: Base, axes: Sequence[int]) -> float:
    """Share of the variance of z that the entries of one window do not have in common."""
    covariance = law.table.values - law.table.per_class(law.mean**2)
    own = float(covariance.reshape(len(covariance), -1)[0, -1])
    common = float(tables.take_all(covariance, axes, 0).reshape(len(covariance), -1)[0, -1])
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
    beats = (0.5 * (1.0 + erf(local / math.sqrt(2.0)))) ** (count - 1.0)
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
            values = tables.take(table.values, axis, 1)
            table = Table((*table.dims[:dim], (), *table.dims[dim + 1 :]), values)
        else:
            resized = (Axis(shape[dim], table.axes[axis].batch),)
            table = Table((*table.dims[:dim], resized, *table.dims[dim + 1 :]), table.values)
    return table


def _routed(given: Table, x: Table, dims: Sequence[int]) -> Table:
    """The cotangent at the inputs: each output's goes to one entry of its window."""
    axes = [axis for dim in dims for axis in given.at(dim)]
    out = math.prod(given.sizes[axis] for axis in axes)
    target = [axis for dim in dims for axis in x.at(dim)]
    size = math.prod(x.sizes[axis] for axis in target)
    same, different = tables.joint(given.values, axes, given.sizes)
    own = same * (out / size)
    other = different * (out * (out - 1.0) / max(size * (size - 1.0), 1.0))
    values = own
    lead = [dim for dim in range(len(x.dims)) if dim not in dims]
    start = sum(len(x.dims[dim]) for dim in lead)
    values = tables.insert(other, start, len(target))
    index: list[slice | int] = [slice(None)] * values.ndim
    for axis in range(start, start + len(target)):
        index[axis + 1] = 1
    values[tuple(index)] = own
    return Table(x.dims, values)


POOLS: dict[str, Callable[[Site], Flow]] = {
    "avg": _average,
    "adaptive_avg": _adaptive_average,
    "max": _maximum,
    "adaptive_max": _maximum,
}
FINEST = COARSE
