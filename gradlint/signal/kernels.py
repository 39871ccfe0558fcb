"""Expectations of scalar functions of correlated Gaussians: E[f(z₁)f(z₂)] for z ~ N(m, v) at correlation ρ."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from gradlint.signal.patterns import Array
from gradlint.signal.recall import recalled
from gradlint.signal.scalar import IDENTITY, Scalar

GRID = np.linspace(-8.0, 8.0, 640)  # an even number of points: none of them is the kink at 0
GRID_WEIGHT = np.exp(-0.5 * GRID**2) / np.exp(-0.5 * GRID**2).sum()
COARSE = np.linspace(-6.0, 6.0, 120)
COARSE_WEIGHT = np.exp(-0.5 * COARSE**2) / np.exp(-0.5 * COARSE**2).sum()
SCORES = np.array([NormalDist().inv_cdf((k + 0.5) / 160) for k in range(160)])
SCORES /= math.sqrt(float((SCORES**2).mean()))  # normal scores: points of equal probability, of unit variance
CENTRED = 1e-6  # a mean below this share of the deviation counts as 0
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


@lru_cache(maxsize=32768)
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
    """Σ w_n ρⁿ for every ρ of a vector, or for every row of a matrix with its own weights."""
    powers = np.empty((*rho.shape, weights.shape[-1]))
    powers[..., 0], powers[..., 1:] = 1.0, rho[..., None]
    total: Array = (np.multiply.accumulate(powers, axis=-1) @ weights[..., None])[..., 0]
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


@recalled
def kernel(function: Scalar, mean: Array, variance: Array, rho: Array) -> tuple[Array, Array]:
    """E[f(z₁)f(z₂)] for every entry of ρ, shape (K, 2, …, 2), and E[f(z)], shape (K,).

    mean and variance are the base Gaussian's, shape (K,). Poole et al. 2016 (q and c maps); ReLU family in closed form
    (Cho & Saul 2009); otherwise Mehler's series, and quadrature in the difference above |ρ| = 0.9.
    """
    variance = np.maximum(variance, 0.0)
    if function.slopes is None and function.steps is None:
        return _by_series(function, mean, variance, rho)
    closed = np.abs(mean) <= CENTRED * np.sqrt(variance)
    if closed.all():
        return _closed(function, variance, rho)
    if not closed.any():
        return _by_series(function, mean, variance, rho)
    out, first = np.empty(rho.shape), np.empty(len(variance))
    out[closed], first[closed] = _closed(function, variance[closed], rho[closed])
    out[~closed], first[~closed] = _by_series(function, mean[~closed], variance[~closed], rho[~closed])
    return out, first


def _closed(function: Scalar, variance: Array, rho: Array) -> tuple[Array, Array]:
    if function.slopes is not None:
        spread = variance.reshape((-1,) + (1,) * (rho.ndim - 1))
        return _homogeneous(function.slopes, spread, rho), _homogeneous_mean(function.slopes, variance)
    assert function.steps is not None
    return _step(function.steps, rho), np.full(len(variance), 0.5 * sum(function.steps))


def _by_series(function: Scalar, mean: Array, variance: Array, rho: Array) -> tuple[Array, Array]:
    """Mehler's series for every class with its own law, and quadrature in the difference near |ρ| = 1."""
    laws = list(zip(mean.tolist(), variance.tolist(), strict=True))
    if len(laws) >= MANY and len(set(laws)) >= MANY:
        return _many_laws(function, mean, variance, rho)
    found = [series(function, *law) for law in laws]
    coefficients = np.array([part for part, _ in found])
    flat = rho.reshape(len(rho), -1)
    result: Array = mehler(np.minimum(np.maximum(flat, -SERIES_UP_TO), SERIES_UP_TO), coefficients**2)
    whole = flat >= 1.0 - 1e-12
    result = np.where(whole, np.array([[second] for _, second in found]), result)
    for index, place in zip(*np.nonzero((np.abs(flat) > SERIES_UP_TO) & ~whole), strict=True):
        result[index, place] = _near_one(function, *laws[index], float(flat[index, place]))
    return result.reshape(rho.shape), coefficients[:, 0]


MANY = 12  # different laws from which on the kernels of all are computed at once, by the series alone
BEYOND = 2 * DEGREES  # the power of ρ that what the series lacks of E[f²] goes with


def _many_laws(function: Scalar, mean: Array, variance: Array, rho: Array) -> tuple[Array, Array]:
    """Mehler's series for every class of ρ at its own law, (K, 2, …, 2)."""
    coefficients, second = _many_series(function, mean.tobytes(), variance.tobytes())
    weights = coefficients**2
    rest = np.maximum(second - weights.sum(1), 0.0)
    flat = rho.reshape(len(mean), -1)
    total = mehler(flat, weights) + rest[:, None] * flat**BEYOND
    return np.where(flat >= 1.0 - 1e-12, second[:, None], total).reshape(rho.shape), coefficients[:, 0].copy()


@lru_cache(maxsize=512)
def _many_series(function: Scalar, mean: bytes, variance: bytes) -> tuple[Array, Array]:
    """`series` for many laws: (K, DEGREES) and (K,)."""
    centre, spread = np.frombuffer(mean), np.sqrt(np.frombuffer(variance))
    values = function.value(centre[:, None] + spread[:, None] * GRID)
    return values @ HERMITE.T, (values * values) @ GRID_WEIGHT


def _homogeneous(slopes: tuple[float, float], variance: Array, rho: Array) -> Array:
    """a·max(z, 0) + b·min(z, 0), from the arc-cosine kernel: f = (a−b)·relu + b·z and E[relu(z₁)z₂] = ρv/2."""
    right, left = slopes
    if right == left:
        linear: Array = variance * (left**2 * rho)
        return linear
    angle = np.arccos(np.minimum(np.maximum(rho, -1.0), 1.0))
    rectified = (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2.0 * np.pi)
    values: Array = variance * ((right - left) ** 2 * rectified + (right - left) * left * rho + left**2 * rho)
    return values


def _homogeneous_mean(slopes: tuple[float, float], variance: Array) -> Array:
    mean: Array = (slopes[0] - slopes[1]) * np.sqrt(variance / (2.0 * math.pi))
    return mean


def _step(steps: tuple[float, float], rho: Array) -> Array:
    """E[f(z₁)f(z₂)] of a piecewise constant f at zero mean."""
    right, left = steps
    both = (np.pi - np.arccos(np.minimum(np.maximum(rho, -1.0), 1.0))) / (2.0 * np.pi)
    result: Array = (right - left) ** 2 * both + (right - left) * left + left**2
    return result
