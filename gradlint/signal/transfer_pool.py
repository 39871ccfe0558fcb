"""Pools, reductions, interpolation and padding: fixed linear maps along single axes, and the maximum over a window."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.edges import resampled
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.norm_plan import merged
from gradlint.signal.site import Contributions, Flow, Site, Unanswered
from gradlint.signal.table import Array, Axis, Table
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


def _average(site: Site) -> Flow:
    dims = spatial(site)
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
