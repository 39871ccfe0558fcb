"""Moments unit by unit: what the weights that were drawn do to the mean that all samples of a batch share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from gradlint.signal.patterns import Array
from gradlint.signal.scalar import IDENTITY, Scalar, compose, erf

SPACING = 0.75  # of the quadrature in units of z: the trapezoid rule is right to 4e-4 for tanh′², 2π²e^(−π²/spacing)
FEWEST, MOST = 128, 320  # quadrature points
SHARED = np.linspace(-4.0, 4.0, 17)  # points of the part of z that all positions of a sample share
SHARED_WEIGHT = np.exp(-0.5 * SHARED**2) / np.exp(-0.5 * SHARED**2).sum()


class Moments(NamedTuple):
    """E[f], E[f f′] for two positions of one sample, and E[f²], per unit."""

    first: Array
    pair: Array
    second: Array


@dataclass(frozen=True, eq=False)
class Units:
    """A tensor whose entries are function(z): z is Gaussian with one law for every unit (feature, channel).

    `mean`, `shared` and `local` have shape (units,), or (1,) for a tensor of which all entries are alike: the mean over
    samples, the variance that the positions of one sample share, and what is each position's own. `positions` are all
    entries of a unit in one sample; `flat` holds the axes of those that lie in the feature dimension, behind the unit.
    """

    mean: Array
    shared: Array
    local: Array
    positions: int
    function: Scalar = IDENTITY
    flat: tuple[int, ...] = ()

    def on(self, count: int) -> Units:
        """With one entry for each of `count` units."""
        if len(self.mean) == count:
            return self
        mean, shared, local = (np.broadcast_to(part, (count,)) for part in (self.mean, self.shared, self.local))
        return replace(self, mean=mean, shared=shared, local=local)

    @property
    def uniform(self) -> bool:
        """All entries are alike, so that the layout does not matter."""
        return len(self.mean) == 1

    def through(self, function: Scalar) -> Units:
        """function of every entry."""
        return replace(self, function=compose(function, self.function))

    @cached_property
    def moments(self) -> Moments:
        """Of the entries."""
        return expectations(self, lambda z: self.function.value(z), self.function.slopes)

    def gaussian(self) -> Units:
        """The entries themselves as Gaussian."""
        if self.function is IDENTITY:
            return self
        first, pair, second = self.moments
        spread = np.maximum(pair - first**2, 0.0), np.maximum(second - pair, 0.0)
        return Units(first, *spread, self.positions, IDENTITY, self.flat)

    @property
    def square(self) -> float:
        """E[x²] over all entries."""
        return float(self.moments.second.mean())

    @property
    def correlation(self) -> float:
        """Mean cosine between samples."""
        square = self.square
        return float((self.moments.first**2).mean()) / square if square > 0 else 1.0


def expectations(
    units: Units,
    function: Callable[[Array], Array],
    slopes: tuple[float, float] | None,
    steps: tuple[float, float] | None = None,
) -> Moments:
    """Per unit E[f], E[f f′] and E[f²] of f(z); in closed form for piecewise linear (`slopes`) and constant f."""
    if not units.shared.any():
        first, second = _over_local(units.mean, units.local, function, slopes, steps)
        return Moments(first, first**2, second)
    centre = units.mean[:, None] + np.sqrt(units.shared)[:, None] * SHARED
    local = np.broadcast_to(units.local[:, None], centre.shape)
    inner, second = _over_local(centre.reshape(-1), local.reshape(-1), function, slopes, steps)
    inner, second = inner.reshape(centre.shape), second.reshape(centre.shape)
    return Moments(inner @ SHARED_WEIGHT, inner**2 @ SHARED_WEIGHT, second @ SHARED_WEIGHT)


def _over_local(
    mean: Array,
    variance: Array,
    function: Callable[[Array], Array],
    slopes: tuple[float, float] | None,
    steps: tuple[float, float] | None,
) -> tuple[Array, Array]:
    """E[f] and E[f²] for z ~ N(mean, variance)."""
    sigma = np.sqrt(variance)
    if slopes is not None:
        return _rectified(mean, sigma, slopes)
    if steps is not None:
        share = above(mean, sigma)
        return steps[0] * share + steps[1] * (1 - share), steps[0] ** 2 * share + steps[1] ** 2 * (1 - share)
    grid, weight = quadrature(float(sigma.max(initial=0.0)))
    values = function(mean[:, None] + sigma[:, None] * grid)
    return values @ weight, values**2 @ weight


def quadrature(sigma: float) -> tuple[Array, Array]:
    """Points in standard deviations and their weights, fine enough for a function of z ~ N(·, sigma²)."""
    count = int(np.clip(12.0 * sigma / SPACING, FEWEST, MOST)) if math.isfinite(sigma) else MOST
    grid = np.linspace(-6.0, 6.0, count + count % 2)  # an even number: none of them is the kink at 0
    weight = np.exp(-0.5 * grid**2)
    weight /= weight.sum()
    return grid / math.sqrt(float(weight @ grid**2)), weight


def above(mean: Array, sigma: Array) -> Array:
    """P(z > 0)."""
    ratio = np.where(sigma > 0, mean / np.where(sigma > 0, sigma, 1.0), 40.0 * np.sign(mean))
    share: Array = 0.5 * (1.0 + erf(np.clip(ratio, -40.0, 40.0) / math.sqrt(2.0)))
    return share


def density(ratio: Array) -> Array:
    """The standard normal density."""
    found: Array = np.exp(-0.5 * np.minimum(ratio**2, 1e3)) / math.sqrt(2.0 * math.pi)
    return found


def _rectified(mean: Array, sigma: Array, slopes: tuple[float, float]) -> tuple[Array, Array]:
    """a·max(z, 0) + b·min(z, 0): E[max(z, 0)] = mΦ + σφ and E[max(z, 0)²] = (m² + σ²)Φ + mσφ."""
    share = above(mean, sigma)
    tail = sigma * density(mean / np.where(sigma > 0, sigma, 1.0)) * (sigma > 0)
    first, second = mean * share + tail, (mean**2 + sigma**2) * share + mean * tail
    right, left = slopes
    rest = np.maximum(mean**2 + sigma**2 - second, 0.0)
    return right * first + left * (mean - first), right**2 * np.maximum(second, 0.0) + left**2 * rest
