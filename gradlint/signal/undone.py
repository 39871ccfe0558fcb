"""What a later norm by channel undoes: a gradient that is orthogonal to the tensor which that norm reads.

A norm by channel does not see the scale of what it reads, so that Σ δx = 0 in every channel (Euler's theorem) but for
what its ε leaves; a convolution of single channels on the way keeps that. Σ δ is 0 too, but where zeros are padded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from statistics import NormalDist

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.edges import mean_of
from gradlint.signal.field import Cotangent, Field, Orthogonal
from gradlint.signal.kernels import GRID, GRID_WEIGHT
from gradlint.signal.norm_gains import unit_of
from gradlint.signal.norm_plan import Plan
from gradlint.signal.patterns import Array
from gradlint.signal.recall import recalled
from gradlint.signal.site import Contribution, Site, Square
from gradlint.signal.table import Table

ROUNDING = 1e-20  # of a share of a variance


@dataclass(frozen=True)
class Regressed:
    """v(z) on φ(z): v = intercept + slope·φ and a rest, which is the share `unspanned` of Var[v]; `mean` is E[v]."""

    intercept: float
    slope: float
    mean: float
    unspanned: float

    def left(self, square: Square, total: float, part: Orthogonal) -> Square:
        """E[(Σ εv)²] in a channel where E[(Σ εφ)²] is part.rest, for what is `square` without that.

        `total` is E[(Σ ε)²], of which `square` holds mean² times as much.
        """
        free = self.unspanned * max(square.value - self.mean**2 * total, 0.0) + self.intercept**2 * part.level
        rest = self.slope**2 * float(np.mean(part.rest))
        left = (1.0 - part.share) * square.value + part.share * free + rest
        return Square(left, left if rest > 0.0 else square.magnitude)


def regressed(values: Array, other: Array, weight: Array) -> Regressed:
    """Values of v on those of φ under these weights."""
    mean, level = float(values @ weight), float(other @ weight)
    centred, regressor = values - mean, other - level
    variance, scale = float(centred**2 @ weight), float(regressor**2 @ weight)
    if variance <= 0.0 or scale <= 0.0:
        return Regressed(mean, 0.0, mean, 1.0)
    slope = float((centred * regressor) @ weight) / scale
    share = float((centred - slope * regressor) ** 2 @ weight) / variance
    return Regressed(mean - slope * level, slope, mean, share if share > ROUNDING else 0.0)


def left_over(
    site: Site, plan: Plan, y: Field, cotangent: Cotangent, found: Mapping[int, Contribution]
) -> dict[int, Square]:
    """Gradients of γ and β when a later norm of the same channel undoes the scale of φ(y), or of a sum that x is in.

    For a positively homogeneous φ nothing of γ's gradient is left but what the ε of the later norm leaves.
    """
    return _of_function(site, plan, y, cotangent, found) | _of_sum(site, plan, cotangent, found)


def _of_function(
    site: Site, plan: Plan, y: Field, cotangent: Cotangent, found: Mapping[int, Contribution]
) -> dict[int, Square]:
    """Σ εφ(y) = 0 in every channel for the ε of δ = εφ′(y), and the gradients are Σ εφ′(y)x̂ and Σ εφ′(y)."""
    factor, spanned, law = cotangent.factor, cotangent.spanned, y.law
    unit = unit_of(plan, law)
    if factor is None or spanned is None or factor.base.source != law.source or unit is None:
        return {}
    nodes, weight = _rare(math.prod(plan.x.table.sizes))
    z = float(law.mean[0]) + math.sqrt(float(law.variance[0])) * nodes
    slope, total = factor.function.value(z), summed(factor.independent, plan.along)
    out: dict[int, Square] = {}
    for role, values in (("weight", slope * unit.value(z)), ("bias", slope)):
        value = site.value(role)
        square = found.get(value.id) if value is not None else None
        if value is not None and isinstance(square, Square):
            fit = regressed(values, spanned.function.value(z), weight)
            out[value.id] = fit.left(square, total, spanned.part)
    return out


def _of_sum(site: Site, plan: Plan, cotangent: Cotangent, found: Mapping[int, Contribution]) -> dict[int, Square]:
    """The gradient Σ δx̂ of γ where Σ δx = 0 for the x that is normalised: −Σ δ μ/σ is left of it."""
    stream, value, x = cotangent.stream, site.value("weight"), plan.x
    square = found.get(value.id) if value is not None else None
    if stream is None or value is None or not isinstance(square, Square) or stream.source not in (x.source, x.multiple):
        return {}
    means = patterns.average(x.table.values, plan.over, x.table.sizes)
    common = float(x.table.weights @ means.reshape(len(means), -1)[:, -1])
    ratio = max(common, 0.0) / max(x.table.square - common, 1e-300)
    fit = Regressed(intercept=-math.sqrt(ratio), slope=1.0, mean=0.0, unspanned=0.0)
    return {value.id: fit.left(square, 0.0, stream)}


@lru_cache(maxsize=512)
def _rare(count: int) -> tuple[Array, Array]:
    """Quadrature of the standard Gaussian, without what happens to fewer than one of so many entries."""
    inside = np.abs(GRID) < -NormalDist().inv_cdf(0.5 / (2 * count))
    weight = GRID_WEIGHT * inside
    return GRID, weight / weight.sum()


def summed(given: Table, along: tuple[int, ...] | range) -> float:
    """E[(Σ δ)²] over everything but these axes."""
    own = patterns.take_all(given.collapse().values, along)
    axes = [axis for axis in range(len(given.sizes)) if axis not in along]
    return float(patterns.pair_sum(own, range(len(axes)), [given.sizes[axis] for axis in axes])[0])


@dataclass(frozen=True, eq=False)
class Reading:
    """How a filter reads a map: by axis and tap, the shares of outputs, and of their E[δ²], that have it in bounds."""

    inside: Sequence[Array]
    energy: Sequence[Array]

    @property
    def kept(self) -> float:
        """The share of Σ E[δ²] that goes back, the mean over taps."""
        return math.prod(mean_of(energy) for energy in self.energy)

    @property
    def passed(self) -> float:
        """The share of (Σ δ)² that goes back."""
        return math.prod(mean_of(share**2) for share in self.inside)

    def left(self, given: Table) -> float:
        """E[(Σ δ)²] over what goes back, the mean over taps, over Σ E[δ²], where a norm has made Σ δ = 0 over all.

        δ is a sum of independent components, one for every set of axes that it varies along, less Σ δ spread evenly
        over all positions: what varies along no axis leaves nothing.
        """
        if all(share.min() == 1.0 for share in self.inside):
            return 0.0
        table = tables.merge_dims(given.collapse())
        values = patterns.take_all(table.values, table.at(1))
        if table.at(0):
            values = patterns.take(values, 0, 1) - patterns.take(values, 0, 0)
        sizes = table.shape[2:]
        found = float(values.reshape(-1) @ _leaving(sizes, *self.inside, *self.energy))
        return max(found, 0.0) / max(math.prod(sizes) * table.square, 1e-300)


@recalled
def _leaving(sizes: tuple[int, ...], *shares: Array) -> Array:
    """What E[(Σ δ)²] over what goes back counts of the moments of δ, by pattern of the axes of more than one entry."""
    inside, energy = shares[: len(sizes)], shares[len(sizes) :]
    share = reduce(np.multiply.outer, inside)
    counted = np.zeros(2 ** sum(size > 1 for size in sizes))
    for varying in itertools.product((True, False), repeat=len(sizes)):
        axes = list(zip(varying, inside, energy, sizes, strict=True))
        own = reduce(np.multiply.outer, [n * k if varies else (n * f) ** 2 for varies, f, k, n in axes])
        cross = reduce(np.multiply.outer, [n * k if varies else n * n * f for varies, f, k, n in axes])
        whole = math.prod(n if varies else n * n for varies, _, _, n in axes)
        part = own - 2.0 * share * cross + share**2 * whole
        counted += _component(varying, sizes) * float(part.mean())
    return counted


def _component(varying: Sequence[bool], sizes: Sequence[int]) -> Array:
    """The variance component that varies along these axes, by pattern; one of size 1 counts as varying."""
    if not all(varies or size > 1 for varies, size in zip(varying, sizes, strict=True)):
        return np.zeros(1)
    signs = [[-1.0, 1.0] if varies else [1.0, 0.0] for varies, size in zip(varying, sizes, strict=True) if size > 1]
    component: Array = reduce(np.kron, np.array(signs), np.ones(1))
    return component


def before_padding(into: Cotangent, given: Cotangent, read: Reading) -> tuple[Cotangent, float]:
    """The gradient at a map that a filter reads in front of a norm by channel, and its E[(Σ δ)²] in a channel.

    Σ δ, zero where it is read, is zero but for what meets the zeros around the map.
    """
    orthogonal, table, before = given.orthogonal, into.table, given.table
    assert orthogonal is not None
    sizes = [math.prod(part.shape) / part.shape[1] for part in (table, before)]
    arrived = orthogonal.level / max(sizes[1] * before.square, 1e-300)
    left = orthogonal.share * read.left(before) + arrived * read.passed
    level = sizes[0] * table.square * left / max(read.kept, 1e-300)
    return (replace(into, table=_with_sum(table, level)) if orthogonal.share == 1.0 else into), level


def by_single_channels(into: Cotangent, given: Cotangent, x: Field, read: Reading) -> Cotangent:
    """The gradient at an x that is read channel by channel, as it is orthogonal to what is made of it: to x as well.

    Every channel of x may be read by several.
    """
    orthogonal, channels = given.orthogonal, x.shape[1]
    assert orthogonal is not None
    into, level = before_padding(into, given, read)
    rest = orthogonal.rest
    if len(rest) % channels == 0:
        rest = rest.reshape(channels, -1).sum(1)
    return replace(into, orthogonal=replace(orthogonal, source=x.source, rest=rest, level=level))


def _with_sum(given: Table, total: float) -> Table:
    """The table with E[(Σ δ)²] = total in every channel: two different entries of one are less alike than it says."""
    along, count = given.at(1), math.prod(given.shape) / given.shape[1]
    if count < 2.0:
        return given
    excess = (summed(given, along) - total) / (count * (count - 1.0))
    return given.with_values(given.values - excess * _different(given.values.ndim, tuple(along)))


@lru_cache(maxsize=256)
def _different(ndim: int, along: tuple[int, ...]) -> Array:
    """1 at the patterns of two different entries that share these axes."""
    found = np.zeros((1,) + (2,) * (ndim - 1))
    found[patterns.shared(ndim, along)] = 1.0
    found[(0,) + (1,) * (ndim - 1)] = 0.0
    return found


def at_term(into: Cotangent, given: Cotangent, whole: Field, own: Field, other: Field, scale: float) -> Cotangent:
    """The gradient at scale·x, a term of z = scale·x + y, when it is orthogonal to z.

    A term is z by its share s of the variance: x = sz + r, with r independent of z.
    """
    orthogonal, variance = given.orthogonal, whole.variance
    if own.shape != whole.shape or other.shape != whole.shape:
        return replace(into, orthogonal=None, stream=None)
    if orthogonal is None or orthogonal.source != whole.source or not variance > 0.0:
        return replace(into, orthogonal=None, stream=given.stream)
    share, level = min(scale**2 * own.variance / variance, 1.0), scale**2 * orthogonal.level
    beside = 1.0 - share
    rest = orthogonal.rest * (scale**2 * beside / variance)
    return replace(
        into,
        orthogonal=Orthogonal(own.source, orthogonal.rest * share**2, orthogonal.share * share, level),
        stream=Orthogonal(other.source, rest, orthogonal.share * beside, level),
    )


def by_a_gain(into: Contribution, given: Cotangent, gain: Field) -> Contribution:
    """The gradient at an x that is multiplied by one number a channel."""
    stream, square = given.stream, gain.table.square
    if (
        not isinstance(into, Cotangent)
        or stream is None
        or into.table.shape != given.table.shape
        or math.prod(gain.shape) > given.table.shape[1]
    ):
        return into
    return replace(into, stream=replace(stream, rest=stream.rest * square, level=stream.level * square))
