"""Pools, reductions, interpolation and padding: fixed linear maps along single axes, and the maximum over a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.edges import resampled
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.norm_plan import merged
from gradlint.signal.patterns import Array
from gradlint.signal.site import Contributions, Flow, Site, Unanswered
from gradlint.signal.table import Axis, Table
from gradlint.signal.transfer_maximum import maximum, spatial
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
    trace: float

    def forward(self, same: Array, different: Array) -> tuple[Array, Array]:
        """(same, different) over output indices."""
        return self._apply(same, different, self.out, self.row_square, self.column_square)

    def backward(self, same: Array, different: Array) -> tuple[Array, Array]:
        """(same, different) over input indices."""
        return self._apply(same, different, self.size, self.column_square, self.row_square)

    def crossed(self, same: Array, different: Array) -> tuple[Array, Array]:
        """(same, different) of E[y_p x_q] for a square matrix, averaged over (p, q) and (q, p); its own adjoint."""
        excess, level = same - different, self.total / self.size * different
        apart = (self.total - self.trace) / max(self.size * (self.size - 1), 1)
        return excess * (self.trace / self.size) + level, excess * apart + level

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
        float(np.trace(matrix)),
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


Direction = Callable[[AxisMap, Array, Array], tuple[Array, Array]]


def _mapped(
    table: Table, dim: int, applied: AxisMap, direction: Callable[[Array, Array], tuple[Array, Array]], size: int
) -> Table:
    axis = table.starts[dim]
    if table.dims[dim]:
        same, different = patterns.take(table.values, axis, 1), patterns.take(table.values, axis, 0)
        batch = table.axes[axis].batch
    else:
        same = different = table.values
        batch = False
    same, different = direction(same, different)
    values = patterns.put(axis, same, different) if size > 1 else same
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


def _average(site: Site) -> Flow:
    return along_axes(site, average_maps(site))


def average_maps(site: Site) -> dict[int, AxisMap]:
    """What an average over sliding windows does along every spatial dimension."""
    dims = spatial(site)
    rank = len(dims)
    before, after = site.field().shape, site.shape()
    kernel, stride = site.integers("kernel", rank, 1), site.integers("stride", rank, 1)
    padding = site.integers("padding", rank, 0)
    counted = bool(site.op.attrs.get("count_include_pad", True))
    return {
        dim: window_mean(before[dim], after[dim], kernel[i], stride[i], padding[i], counted)
        for i, dim in enumerate(dims)
    }


def less_average(site: Site) -> Flow | None:
    """The average over the windows of x, less x itself (PoolFormer): one linear map; None where the op is another.

    E[y y′] is that of the average, less both products of the average and x, and that of x. What is constant along the
    map cancels, in the gradient too.
    """
    found = _less_average(site)
    if found is None:
        return None
    source, maps, sign = found
    original = site.known(source)
    x = merged(original)
    table = x.table.collapse_along([axis for dim in maps for axis in x.table.at(dim)])
    y = table.with_values(_less_itself(table, maps, AxisMap.forward))
    mean = x.average * sign * (math.prod(applied.total / applied.size for applied in maps.values()) - 1.0)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, table.dims)
        given = given.collapse_along([axis for dim in maps for axis in given.at(dim)])
        into = given.with_values(_less_itself(given, maps, AxisMap.backward))
        edges = resampled(cotangent.edges, original.shape[2:])
        return {source: Cotangent(tables.regroup(into, original.dims), edges=edges, lean=cotangent.lean)}

    return Flow((Field(y, np.full(len(y.values), mean), sway=x.sway, edges=x.edges),), backward)


def _less_itself(table: Table, maps: dict[int, AxisMap], direction: Direction) -> Array:
    mapped = crossed = table
    for dim, applied in maps.items():
        mapped = _mapped(mapped, dim, applied, partial(direction, applied), applied.size)
        crossed = _mapped(crossed, dim, applied, applied.crossed, applied.size)
    values: Array = mapped.values - 2.0 * crossed.values + table.values
    return values


def _less_average(site: Site) -> tuple[int, dict[int, AxisMap], float] | None:
    """x, the maps of its average and the sign of it, where the op is their difference."""
    op, graph = site.op, site.graph
    if op.function != "sub" or len(op.inputs) != 2 or site.number("alpha", 1.0) != 1.0 or op.attrs.get("reversed"):
        return None
    for place, sign in ((0, 1.0), (1, -1.0)):
        pooled, source = graph.op_of(op.inputs[place]), op.inputs[1 - place]
        if pooled is None or pooled.kind != "pool" or pooled.function != "avg" or pooled.inputs[:1] != (source,):
            continue
        if graph.values[pooled.outputs[0]].shape == graph.values[source].shape:
            return source, average_maps(replace(site, op=pooled)), sign
    return None


def _adaptive_average(site: Site) -> Flow:
    before, after = site.field().shape, site.shape()
    return along_axes(site, {dim: adaptive_mean(before[dim], after[dim]) for dim in spatial(site)})


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


POOLS: dict[str, Callable[[Site], Flow]] = {
    "avg": _average,
    "adaptive_avg": _adaptive_average,
    "max": maximum,
    "adaptive_max": maximum,
}
