"""Entries that are not Gaussian: sums of a rectified stream and a branch, and gradients that depend on such entries."""

from __future__ import annotations

import hashlib
import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradlint.signal.field import Base, Cotangent, Factor, Field, Tilt, push
from gradlint.signal.kernels import SCORES, expectation, mehler, series
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import Scalar
from gradlint.signal.table import Table

_fresh = itertools.count()
ROUNDING = 1e-12  # of the largest entry


@dataclass(frozen=True, eq=False)
class Sum:
    """x + αy on equal-probability points: `grid`[k, j] = x_k + α y_j, and the sorted sum at the normal scores."""

    grid: Array
    quantiles: Array

    def given_first(self, values: Array) -> Array:
        """E[v(x + αy) | x] on x's points, for v on the sum's points."""
        result: Array = self._looked_up(values).mean(1)
        return result

    def given_second(self, values: Array) -> Array:
        """E[v(x + αy) | y] on y's points."""
        result: Array = self._looked_up(values).mean(0)
        return result

    @cached_property
    def _position(self) -> Array:
        """Where the entries of the grid lie between the quantiles, in steps."""
        steps: Array = np.interp(self.grid.ravel(), self.quantiles, np.arange(float(len(self.quantiles))))
        return steps

    @cached_property
    def _below(self) -> NDArray[np.intp]:
        return np.minimum(self._position.astype(np.intp), len(self.quantiles) - 2)

    def _looked_up(self, values: Array) -> Array:
        found: Array = values[self._below] + (self._position - self._below) * np.diff(values)[self._below]
        return found.reshape(self.grid.shape)


def points(base: Base) -> Array:
    """The entries at the normal scores of the Gaussian under them."""
    spread = math.sqrt(float(base.variance[0]))
    return base.function.value(float(base.mean[0]) + spread * SCORES)


def summed(x: Base, y: Base, alpha: float) -> Sum:
    """The distribution of x + αy for independent x and y."""
    grid = points(x)[:, None] + alpha * points(y)[None, :]
    count = len(SCORES)
    quantiles = np.sort(grid, axis=None).reshape(count, count).mean(1)
    return Sum(grid, quantiles)


def law_of(quantiles: Array, table: Table, mean: float) -> Base | None:
    """A Gaussian copula whose entries have these quantiles, and the given mean and second moments."""
    variance = table.square - mean**2
    spread = float(quantiles.std())
    if variance <= 0 or spread <= 0:
        return None
    function = _interpolated((quantiles - quantiles.mean()) * (math.sqrt(variance) / spread) + mean)
    level, second = expectation(function, 0.0, 1.0)
    scale = math.sqrt(variance / max(second - level**2, 1e-300))
    function = _interpolated(_without_rounding(scale * (function.value(SCORES) - level) + mean))
    rho = _matched(function, table, mean)
    return Base(table.with_values(rho), np.zeros(1), function, ("sum", next(_fresh)))


def _named(values: Array) -> str:
    """A name that only a function through these values has."""
    return hashlib.blake2b(values.tobytes(), digest_size=12).hexdigest()


def _without_rounding(values: Array) -> Array:
    """Entries that are zero up to rounding as zero: a rectifier asks on which side of it they lie."""
    return np.where(np.abs(values) > ROUNDING * np.abs(values).max(), values, 0.0)


def _interpolated(values: Array) -> Scalar:
    """The function through these values at the normal scores, linear beyond them."""
    slope = np.gradient(values, SCORES)

    def value(z: Array) -> Array:
        inside = np.interp(z, SCORES, values)
        low, high = np.minimum(z - SCORES[0], 0.0), np.maximum(z - SCORES[-1], 0.0)
        extended: Array = inside + slope[0] * low + slope[-1] * high
        return extended

    return Scalar(f"quantiles[{_named(values)}]", value, lambda z: np.interp(z, SCORES, slope))


def interpolated(values: Array) -> Scalar:
    """The function of a standard Gaussian that takes these values at the normal scores, flat beyond them."""
    return Scalar(f"points[{_named(values)}]", lambda z: np.interp(z, SCORES, values), np.zeros_like)


def _matched(function: Scalar, table: Table, mean: float) -> Array:
    """Correlations of the copula at which E[f f′] equals the table, by Newton's method on Mehler's series."""
    coefficients, _ = series(function, 0.0, 1.0)
    weights = coefficients**2
    weights[0] = 0.0
    slopes = weights[1:] * np.arange(1.0, len(weights))
    total = float(weights.sum())
    target = np.clip((table.values.ravel() - mean**2) / max(table.square - mean**2, 1e-300), -1.0, 1.0) * total
    rho = np.clip(target / total, -1.0, 1.0)
    for _ in range(4):
        step = (mehler(rho, weights) - target) / np.maximum(mehler(rho, slopes), 1e-3 * total)
        rho = np.clip(rho - step, -1.0, 1.0)
    return np.where(target >= total * (1.0 - 1e-12), 1.0, rho).reshape(table.values.shape)


def split_cotangent(cotangent: Cotangent, whole: Field, part: Field, values: Sum, *, first: bool) -> Cotangent:
    """The gradient of a sum at one summand: the same entries, and what they depend on of that summand."""
    tilt, factor, law = cotangent.tilt, cotangent.factor, part.law
    given = values.given_first if first else values.given_second
    table = cotangent.table
    moved = None if tilt is None or tilt.source != whole.law.source else given(tilt.values)
    new_tilt = None if moved is None else Tilt(law.source, moved / max(float(moved.mean()), 1e-300))
    new_factor = None
    if factor is not None and factor.base.source == whole.law.source:
        spread = math.sqrt(float(whole.law.variance[0]))
        level = factor.function.value(float(whole.law.mean[0]) + spread * SCORES)
        new_factor = _partial_factor(given(level), table, law)
    return Cotangent(table, new_factor, new_tilt, edges=cotangent.edges, lean=cotangent.lean)


def _partial_factor(conditional: Array, table: Table, law: Base) -> Factor:
    """δ ≈ ε·E[d|z]: ε is what is left of the table when the kernel of the conditional mean is divided out."""
    center, spread = float(law.mean[0]), math.sqrt(float(law.variance[0]))
    standard = interpolated(conditional)
    function = Scalar(standard.key, lambda z: standard.value((z - center) / max(spread, 1e-300)), np.zeros_like)
    return Factor(law, _divided(table, law, function), function, partial=True)


def _divided(table: Table, law: Base, function: Scalar) -> Table:
    kernel, _ = push(law, function)
    safe = np.where(np.abs(kernel.values) > 1e-12, kernel.values, np.inf)
    return table.with_values(table.values / safe)
