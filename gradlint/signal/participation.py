"""How concentrated softmax rows are: E[Σ a²] for Gaussian logits, from equal weights to one key that has it all."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gradlint.signal.table import Array

WIDEST = 24.0  # deviation of the logits beyond which 1 − E[Σ a²] falls as 1/σ: few keys are within e of the largest
STEP = 0.25  # of the grid of logits: the trapezoidal rule is exact to six digits for these functions of width 1
REACH = 8.0  # deviations, and logits beyond them, that the grid holds
BEYOND = 6.5  # where e^{−e^y} is below 1e-280
SLIGHT = 1e-3  # variance of the logits up to which weights are as good as equal


def overlap(covariance: Array, lead: Array | float) -> Array:
    """Σ_j E[a_j a′_j] of two softmax rows whose centred logits have this covariance, the last entry one row's variance.

    e^c T/(e^c + T − 1)/T for a covariance c, renormalised so that a row with itself has its `participation`. `lead` is
    Σ_j a_j a′_j at equal logits: 1/T, or the average share of keys that two causal rows have in common.
    """
    count = 1.0 / np.asarray(lead, np.float64)
    own = float(np.asarray(covariance).reshape(-1)[-1])
    rate = renormalised(own, float(count.reshape(-1)[-1]))
    grown = np.exp(np.minimum(np.asarray(covariance) * rate, 60.0))
    return np.asarray(grown / (grown + count - 1.0))


def renormalised(variance: float, count: float) -> float:
    """The factor by which a covariance counts less where few keys have all the weight."""
    if not _uneven(variance, count):
        return 1.0
    share = participation(variance, count).square
    return math.log(max(share * (count - 1.0) / max(1.0 - share, 1e-300), 1.0)) / variance


def jacobian(logits: Array, lead: Array | float) -> float:
    """E[Σ a²(1 − 2a + Σa²)], the squared Jacobian of a row of these logits, over its value at E[Σ a²] in every row."""
    count = 1.0 / float(np.asarray(lead, np.float64).reshape(-1)[-1])
    variance = float(np.asarray(logits).reshape(-1)[-1])
    if not _uneven(variance, count):
        return 1.0
    found = participation(variance, count)
    return found.jacobian / max(found.square * (1.0 - found.square), 1e-300)


def _uneven(variance: float, count: float) -> bool:
    return SLIGHT < variance < math.inf and count > 1.0 + 1e-9


class Participation(NamedTuple):
    """E[Σ a²] and E[Σ a²(1 − 2a + Σ a²)] of softmax rows."""

    square: float
    jacobian: float


@lru_cache(maxsize=4096)
def participation(variance: float, count: float) -> Participation:
    """The moments of a softmax over `count` independent logits of this variance.

    (Σ e^z)^{−n} = ∫ t^{n−1} e^{−t Σ e^z} dt/Γ(n), with t = e^s: for independent keys E[Σ aⁿ] is T ∫ G_n F^{T−1} ds/Γ(n)
    and E[Σ_{i≠j} a_i² a_j²] is T(T−1) ∫ G_2² F^{T−2} ds/Γ(4), where G_n = E[xⁿ e^{−x}] and F = E[e^{−x}], x = e^{s+z}.
    """
    deviation = math.sqrt(variance)
    if deviation > WIDEST:
        widest, share = participation(WIDEST**2, count), WIDEST / deviation
        return Participation(1.0 - (1.0 - widest.square) * share, widest.jacobian * share)
    grid = np.arange(-REACH * (deviation + 1.0), REACH * (deviation + 1.0) + STEP, STEP)
    step = STEP * min(1.0, deviation)  # of the Gaussian, which may be narrower than 1
    logits = np.arange(-REACH * deviation, REACH * deviation + step, step)
    weights = np.exp(-0.5 * (logits / deviation) ** 2)
    place = np.minimum(grid[:, None] + logits[None, :], BEYOND)
    size = np.exp(place)
    others, second, third, fourth = (np.exp(n * place - size) @ (weights / weights.sum()) for n in (0, 2, 3, 4))
    others = np.maximum(others, 1e-300)
    rest = count * STEP * others ** (count - 1.0)
    pairs = count * (count - 1.0) * STEP * second**2 * others ** (count - 2.0)
    square, cube = float((second * rest).sum()), float((third * rest).sum()) / 2.0
    squared = float((fourth * rest + pairs).sum()) / 6.0
    return Participation(min(max(square, 1.0 / count), 1.0), max(square - 2.0 * cube + squared, 0.0))
