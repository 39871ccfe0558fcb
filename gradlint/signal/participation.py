"""How concentrated softmax rows are: moments of Σ a² for Gaussian logits, from equal weights to a single key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gradlint.signal.patterns import Array

WIDEST = 24.0  # deviation of the logits beyond which 1 − E[Σ a²] falls as 1/σ: few keys are within e of the largest
STEP = 0.25  # of the grid of logits: the trapezoidal rule is exact to six digits for these functions of width 1
REACH = 8.0  # deviations, and logits beyond them, that the grid holds
SCORES = np.arange(-5.0, 5.25, 0.25)  # of the standard Gaussian under logits that deviate by two or three
BEYOND = 6.5  # where e^{−e^y} is below 1e-280
SLIGHT = 1e-3  # variance of the logits up to which weights are as good as equal
KNOTS = 256  # numbers of keys, evenly spaced by their logarithms, between which moments are interpolated


class Shares(NamedTuple):
    """What two rows a, a′ of a softmax have in common, for every entry of a covariance of their logits."""

    overlap: Array  # Σ_j E[a_j a′_j]
    jacobian: Array  # E[tr J J′], J = diag(a) − a aᵀ
    rest: Array  # E[(1 − Σ a²)²] of a row, (K,)
    response: Array  # the same times the covariance: E[m m′] for m = Σ a z, as E[m] is Var[z](1 − Σ a²)


def shares(covariance: Array, count: int, rows: Sequence[int] | None = None) -> Shares:
    """The shares of softmax rows over `count` keys, for centred logits of this covariance, (K, 2, …).

    The last entry of a class is a row's own variance. A causal softmax has its rows along the axes `rows`: row i sees i
    keys, and two rows have the fewer in common, of which each is one over the larger number of keys.
    """
    if len(covariance) > 1:
        parts = [shares(covariance[k : k + 1], count, rows) for k in range(len(covariance))]
        return Shares(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    keys = np.arange(1.0 if rows is not None else count, count + 1.0)
    variance = float(covariance.reshape(-1)[-1])
    own = participation(variance, keys)
    shared = _met(covariance[..., None], variance, own.square, keys)
    left = 1.0 - own.square
    rest = np.array([float((1.0 - 2.0 * own.square + own.squared).mean())])
    response = covariance * rest[0]
    if rows is None:
        return Shares(shared[..., 0], _between(shared, own, keys, left)[..., 0], rest, response)
    before = np.concatenate([[0.0], np.cumsum(left)[:-1]]) / np.maximum(keys - 1.0, 1.0)
    alike, unlike = _between(shared, own, keys, left), _between(shared, own, keys, before)
    larger = 2.0 * (keys - 1.0) / max(count * (count - 1.0), 1.0)  # chance that the larger of two rows is this one
    same: list[slice | int] = [slice(None)] * covariance.ndim
    for axis in rows:
        same[axis + 1] = 1

    def averaged(within: Array, across: Array) -> Array:
        found: Array = across @ larger
        found[tuple(same)] = within[tuple(same)].mean(-1)
        return found

    return Shares(averaged(shared, shared), averaged(alike, unlike), rest, response)


def overlap(covariance: Array, count: float) -> Array:
    """Σ_j E[a_j a′_j] of two softmax rows over T keys: e^c/(e^c + T − 1) for a covariance c of their centred logits.

    The last entry is a row's own variance, and c is renormalised so that a row with itself has its `participation`.
    """
    variance, keys = float(covariance.reshape(-1)[-1]), np.array([count])
    return _met(covariance[..., None], variance, participation(variance, keys).square, keys)[..., 0]


def _met(covariance: Array, variance: float, square: Array, keys: Array) -> Array:
    factor = np.ones_like(keys)
    if _uneven(variance):
        odds = square * (keys - 1.0) / np.maximum(1.0 - square, 1e-300)
        factor = np.log(np.maximum(odds, 1.0)) / variance
    return _annealed(covariance * factor, keys)


def _annealed(covariance: Array, keys: Array) -> Array:
    """The average of a ratio as the ratio of averages."""
    grown = np.exp(np.minimum(covariance, 60.0))
    met: Array = grown / (grown + keys - 1.0)
    return met


def _between(shared: Array, own: Participation, keys: Array, left: Array) -> Array:
    """E[tr J J′] between rows of independent logits and a row with itself, in proportion to what they share.

    Independent rows have E[1 − Σ a²]·E[1 − Σ a′²]/(T − 1); `left` is the first factor. To first order in the
    covariance every term of tr J J′ is linear in it, and so is what is shared.
    """
    apart = 1.0 - own.square
    near = (shared - 1.0 / keys) / np.maximum(own.square - 1.0 / keys, 1e-300)
    among = np.maximum(keys - 1.0, 1.0)
    found: Array = left * apart / among + np.clip(near, 0.0, 1.0) * (own.jacobian - apart**2 / among)
    return found


def _uneven(variance: float) -> bool:
    return SLIGHT < variance < math.inf


class Participation(NamedTuple):
    """Moments of softmax rows by their number of keys, s = Σ a²."""

    square: Array  # E[s]
    jacobian: Array  # E[tr J²] = E[s − 2 Σ a³ + s²]
    squared: Array  # E[s²]


def participation(variance: float, keys: Array) -> Participation:
    """The moments of a softmax over so many independent logits of this variance, for every number of keys.

    (Σ e^z)^{−n} = ∫ t^{n−1} e^{−t Σ e^z} dt/Γ(n), with t = e^s: for independent keys E[Σ aⁿ] is T ∫ G_n F^{T−1} ds/Γ(n)
    and E[Σ_{i≠j} a_i² a_j²] is T(T−1) ∫ G_2² F^{T−2} ds/Γ(4), where G_n = E[xⁿ e^{−x}] and F = E[e^{−x}], x = e^{s+z}.
    """
    if not _uneven(variance):
        square = _annealed(np.asarray(variance), keys)
        return Participation(square, square * (1.0 - square), square**2)
    if len(keys) > KNOTS:
        knots = np.unique(np.geomspace(keys[0], keys[-1], KNOTS).round())
        return Participation(*(np.interp(np.log(keys), np.log(knots), part) for part in participation(variance, knots)))
    deviation = math.sqrt(variance)
    if deviation > WIDEST:
        widest, share = participation(WIDEST**2, keys), WIDEST / deviation
        return Participation(
            *(limit + (part - limit) * share for part, limit in zip(widest, (1.0, 0.0, 1.0), strict=True))
        )
    others, second, third, fourth = (part[:, None] for part in _transforms(deviation))
    rest = keys * STEP * others ** (keys - 1.0)
    pairs = keys * (keys - 1.0) * STEP * second**2 * others ** np.maximum(keys - 2.0, 0.0)
    square = np.clip((second * rest).sum(0), 1.0 / keys, 1.0)
    cube, squared = (third * rest).sum(0) / 2.0, (fourth * rest + pairs).sum(0) / 6.0
    alone = keys <= 1.0
    return Participation(
        square,
        np.where(alone, 0.0, np.maximum(square - 2.0 * cube + squared, 0.0)),
        np.where(alone, 1.0, np.clip(squared, square**2, square)),
    )


class Transforms(NamedTuple):
    """F, G₁, G₂, G₃ and G₄ for several deviations of the logits, each (deviations, s), on one grid of this step."""

    parts: tuple[Array, ...]
    step: float


def transforms(deviations: tuple[float, ...]) -> Transforms:
    """The transforms of `participation` for logits of these deviations, of which the widest is the last."""
    widest = min(deviations[-1], WIDEST)
    grid = np.arange(-REACH * (widest + 1.0), REACH * (widest + 1.0) + STEP, STEP)
    weights = np.exp(-0.5 * SCORES**2)
    weights /= weights.sum()
    logits = np.multiply.outer(np.minimum(deviations, WIDEST), SCORES)
    place = np.minimum(grid[None, :, None] + logits[:, None, :], BEYOND)
    size = np.exp(place)
    powers = [np.exp(-size)]
    for _ in range(4):
        powers.append(powers[-1] * size)
    return Transforms(tuple(np.maximum(power @ weights, 1e-300) for power in powers), STEP)


@lru_cache(maxsize=64)
def _transforms(deviation: float) -> tuple[Array, Array, Array, Array]:
    """F, G₂, G₃ and G₄ on a grid of s."""
    grid = np.arange(-REACH * (deviation + 1.0), REACH * (deviation + 1.0) + STEP, STEP)
    step = STEP * min(1.0, deviation)  # of the Gaussian, which may be narrower than 1
    logits = np.arange(-REACH * deviation, REACH * deviation + step, step)
    weights = np.exp(-0.5 * (logits / deviation) ** 2)
    place = np.minimum(grid[:, None] + logits[None, :], BEYOND)
    size = np.exp(place)
    others, second, third, fourth = (np.exp(n * place - size) @ (weights / weights.sum()) for n in (0, 2, 3, 4))
    return np.maximum(others, 1e-300), second, third, fourth
