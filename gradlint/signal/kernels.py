"""Expectations of scalar functions of correlated Gaussians: E[f(z₁)f(z₂)] for z ~ N(m, v) at correlation ρ."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from gradlint.signal.scalar import IDENTITY, Scalar
from gradlint.signal.table import Array

GRID = np.linspace(-8.0, 8.0, 640)  # an even number of points: none of them is the kink at 0
GRID_WEIGHT = np.exp(-0.5 * GRID**2) / np.exp(-0.5 * GRID**2).sum()
COARSE = np.linspace(-6.0, 6.0, 120)
COARSE_WEIGHT = np.exp(-0.5 * COARSE**2) / np.exp(-0.5 * COARSE**2).sum()
SCORES = np.array([NormalDist().inv_cdf((k + 0.5) / 160) for k in range(160)])
SCORES /= math.sqrt(float((SCORES**2).mean()))  # normal scores: points of equal probability, of unit variance
DEGREES = 48  # terms of the Hermite series; ρ^48 < 1 % for ρ ≤ SERIES_UP_TO
SERIES_UP_TO = 0.9


def _hermite() -> Array:
    rows = np.zeros((DEGREES, len(GRID)))
    rows[0], rows[1] = 1.0, GRID
    for n in range(2, DEGREES):
        rows[n] = (GRID * rows[n - 1] - math.sqrt(n - 1) * rows[n - 2]) / math.sqrt(n)
    weighted: Array = rows * GRID_WEIGHT
    return weighted


HERMITE = _hermite()  # orthonormal Hermite polynomials times the quadrature weight, (DEGREES, len(GRID))


@lru_cache(maxsize=8192)
def series(function: Scalar, mean: float, variance: float) -> tuple[Array, float]:
    """Hermite coefficients a_n of f(m + √v·u), so that E[f(z₁)f(z₂)] = Σ a_n² ρⁿ (Mehler), and E[f²]."""
    values = function.value(mean + math.sqrt(variance) * GRID)
    coefficients = HERMITE @ values
    return coefficients, float((values * values) @ GRID_WEIGHT)


def expectation(function: Scalar, mean: float, variance: float) -> tuple[float, float]:
    """E[f(z)] and E[f(z)²] for z ~ N(mean, variance)."""
    coefficients, second = series(function, mean, max(variance, 0.0))
    return float(coefficients[0]), second


def mehler(rho: Array, weights: Array) -> Array:
    """Σ w_n ρⁿ for every ρ of a vector."""
    powers = np.empty((len(rho), len(weights)))
    powers[:, 0], powers[:, 1:] = 1.0, rho[:, None]
    total: Array = np.multiply.accumulate(powers, axis=1) @ weights
    return total


def linear_share(function: Scalar, mean: float, variance: float) -> float:
    """a₁²/Var f: the share of a small correlation that f passes on."""
    if function is IDENTITY:
        return 1.0
    coefficients, second = series(function, mean, max(variance, 0.0))
    spread = second - float(coefficients[0]) ** 2
    return float(coefficients[1]) ** 2 / spread if spread > 1e-12 * second else 0.0


@lru_cache(maxsize=65536)
def _near_one(function: Scalar, mean: float, variance: float, rho: float) -> float:
    """E[f(z₁)f(z₂)] at |ρ| > 0.9 as E[f²] − E[(f(z₁) − f(z₂))²]/2: no cancellation as ρ → 1."""
    sign = 1.0 if rho > 0 else -1.0
    common, local = math.sqrt((1.0 + abs(rho)) / 2.0), math.sqrt((1.0 - abs(rho)) / 2.0)
    scale = math.sqrt(variance)
    centre = scale * common * GRID[::2, None]
    offset = scale * local * COARSE[None, :]
    first, second = function.value(mean + centre + offset), function.value(mean + sign * (centre - offset))
    weight = GRID_WEIGHT[::2] / GRID_WEIGHT[::2].sum()
    if sign < 0:
        return float(weight @ (first * second) @ COARSE_WEIGHT)
    square = expectation(function, mean, variance)[1]
    return square - 0.5 * float(weight @ ((first - second) ** 2) @ COARSE_WEIGHT)


def kernel(function: Scalar, mean: Array, variance: Array, rho: Array) -> tuple[Array, Array]:
    """E[f(z₁)f(z₂)] for every entry of ρ, shape (K, 2, …, 2), and E[f(z)], shape (K,).

    mean and variance are the base Gaussian's, shape (K,). Poole et al. 2016 (q and c maps); ReLU family in closed form
    (Cho & Saul 2009); otherwise Mehler's series, and quadrature in the difference above |ρ| = 0.9.
    """
    out, first = np.empty(rho.shape), np.empty(len(variance))
    for members in _groups(mean, variance):
        m, v = float(mean[members[0]]), max(float(variance[members[0]]), 0.0)
        out[members], first[members] = _one_law(function, m, v, rho[members])
    return out, first


def _groups(mean: Array, variance: Array) -> list[NDArray[np.intp]]:
    """Classes that share their law."""
    if len(variance) == 1:
        return [np.zeros(1, np.intp)]
    keys: dict[tuple[float, float], list[int]] = {}
    for index, law in enumerate(zip(mean.tolist(), variance.tolist(), strict=True)):
        keys.setdefault(law, []).append(index)
    return [np.asarray(members, np.intp) for members in keys.values()]


def _one_law(function: Scalar, mean: float, variance: float, rho: Array) -> tuple[Array, float]:
    if abs(mean) <= 1e-6 * math.sqrt(variance):
        if function.slopes is not None:
            return _homogeneous(function.slopes, variance, rho), _homogeneous_mean(function.slopes, variance)
        if function.steps is not None:
            return _step(function.steps, rho), 0.5 * sum(function.steps)
    coefficients, second = series(function, mean, variance)
    flat = rho.ravel()
    result: Array = mehler(np.clip(flat, -SERIES_UP_TO, SERIES_UP_TO), coefficients**2)
    result[flat >= 1.0 - 1e-12] = second
    for value in {float(r) for r in flat[(np.abs(flat) > SERIES_UP_TO) & (flat < 1.0 - 1e-12)]}:
        result[flat == value] = _near_one(function, mean, variance, value)
    return result.reshape(rho.shape), float(coefficients[0])


def _homogeneous(slopes: tuple[float, float], variance: float, rho: Array) -> Array:
    """a·max(z, 0) + b·min(z, 0), from the arc-cosine kernel: f = (a−b)·relu + b·z and E[relu(z₁)z₂] = ρv/2."""
    right, left = slopes
    angle = np.arccos(np.clip(rho, -1.0, 1.0))
    rectified = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2.0 * np.pi)
    values: Array = variance * ((right - left) ** 2 * rectified + (right - left) * left * rho + left**2 * rho)
    return values


def _homogeneous_mean(slopes: tuple[float, float], variance: float) -> float:
    return (slopes[0] - slopes[1]) * math.sqrt(variance / (2.0 * math.pi))


def _step(steps: tuple[float, float], rho: Array) -> Array:
    """E[f(z₁)f(z₂)] of a piecewise constant f at zero mean."""
    right, left = steps
    both = (np.pi - np.arccos(np.clip(rho, -1.0, 1.0))) / (2.0 * np.pi)
    result: Array = (right - left) ** 2 * both + (right - left) * left + left**2
    return result
