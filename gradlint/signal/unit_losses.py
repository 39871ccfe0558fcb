"""The gradient that a loss sends into an output that is followed unit by unit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from gradlint.signal.patterns import Array
from gradlint.signal.scalar import scalar_function
from gradlint.signal.spread import Spread, whole
from gradlint.signal.units import Units

DRAWS = 512  # virtual logits that the softmax is averaged over
_SIGMOID = scalar_function("sigmoid", {})

Loss = Callable[[Units, int], Spread]  # the output's law, the batch size


def unit(y: Units, samples: int) -> Spread:
    """White N(0, 1) entries."""
    count = len(y.mean)
    return whole(np.eye(count), np.zeros(count), y.positions)


def squared_error(y: Units, samples: int) -> Spread:
    """2(y − t)/N for targets t ~ N(0, 1)."""
    first, _, second = y.moments
    scale = 2.0 / (samples * y.positions * len(first))
    return whole(np.diag(second - first**2 + 1.0), first, y.positions).scaled(scale)


def binary_logits(y: Units, samples: int) -> Spread:
    """(σ(y) − t)/N for targets 0 or 1 with equal chance."""
    assert _SIGMOID is not None
    level, _, second = y.through(_SIGMOID).moments
    own = second - level + 0.5
    return whole(np.diag(own - (level - 0.5) ** 2), level - 0.5, y.positions).scaled(
        1.0 / (samples * y.positions * len(own))
    )


def cross_entropy(y: Units, samples: int) -> Spread:
    """(p − t)/N for uniform random labels, with the mean over virtual logits N(mean, variance) of p and p pᵀ."""
    law = y.gaussian()
    count = len(law.mean)
    logits = law.mean + np.sqrt(law.shared + law.local) * _draws(count)
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits)
    p /= p.sum(1, keepdims=True)
    level = p.mean(0)
    square = p.T @ p / len(p) - (level[:, None] + level) / count + np.eye(count) / count
    mean = level - 1.0 / count
    return whole(square - np.outer(mean, mean), mean, y.positions).scaled(1.0 / (samples * y.positions))


def _draws(count: int) -> Array:
    """Standard normal numbers, the same in every run, and their negatives."""
    half = np.random.default_rng(0).standard_normal((DRAWS // 2, count))
    return np.concatenate([half, -half])


LOSSES: Mapping[str, Loss] = {
    "unit": unit,
    "mse": squared_error,
    "bce_logits": binary_logits,
    "ce": cross_entropy,
}


def decades(square: float) -> float:
    """log10 of the root of a mean square."""
    return 0.5 * math.log10(square) if square > 0 else -math.inf
