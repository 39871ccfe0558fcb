"""Sums over few taps: what single entries keep of each other through a random filter of few entries a row.

With ρ_t = w_t/‖w‖, one entry of the output is z = Σ ρ_t x̃_t for standardised entries x̃. The squares ρ_t² of n Gaussian
weights are Dirichlet(½, …, ½), so that Σ ρ_t⁴ is 3/(n + 2) in the mean: not 1/n, as the largest weights count most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from gradlint.signal.field import Field, Tilt
from gradlint.signal.kernels import COARSE, COARSE_WEIGHT, SCORES
from gradlint.signal.patterns import Array
from gradlint.signal.sway import kurtosis

MANY = 256  # taps above which an entry is too small a part of the sum: 3/(n + 2) is 1 %
AT = np.linspace(-8.0, 8.0, 65)  # standardised entries of the input
SHARES = 12  # nodes of the distribution of ρ²


def in_reach(shares: Sequence[float]) -> float:
    """Taps of one axis that count: (Σ s)²/Σ s² of the shares of positions at which each is in bounds.

    A filter of 5 taps on a padded map of 2 reads 2.7 of them, one of 3 taps too.
    """
    return sum(shares) ** 2 / max(sum(share * share for share in shares), 1e-300)


def spike_of(x: Field, taps: float) -> float:
    """Variance s of the log scale of a sum over n taps: 3/(n + 2) of the excess kurtosis of x, as 3(e^s − 1)."""
    law = x.law
    excess = kurtosis(law.function, *law.moments, fixed=False) - 3.0
    return math.log1p(max(excess, 0.0) / (taps + 2.0))


def tail_of(x: Field, taps: float) -> float:
    """Relative variance of Σ y² over a channel's N entries beyond that of Gaussian ones of the same mean correlations.

    For y = Σ_t w_t x_t, Σ y² is |w|² Σ x² and cross terms. The squares vary by K − 1 (K the kurtosis of x), where
    Gaussian ones do by 2; with Σz and Σz² fixed, of (x − E x)² what these do not span is left of K − 1. The cross terms
    add twice the squared autocorrelations of the filter, Σ_{d≠0} (Σ_t w_t w_{t+d})²/|w|⁴ = (n − 1)/(n + 2) in the mean
    over Gaussian weights, which the mean correlations, being 0, leave out.
    """
    law = x.law
    excess = kurtosis(law.function, *law.moments, fixed=x.fixed) * (1.0 + x.sway.variance) - 3.0
    excess -= 2.0 if x.fixed else 0.0
    excess += 2.0 * (taps - 1.0) / (taps + 2.0)
    return max(excess, 0.0) / math.prod(size for dim, size in enumerate(x.shape) if dim != 1)


def passed(tilt: Tilt, x: Field, taps: float) -> Tilt | None:
    """E[δ_x²|x] of δ_x = Σ w_t δ_t, from E[δ_t²|z_t] at the outputs that read x: z_t is ρ_t x̃ and a Gaussian rest.

    A tap counts by ρ_t², and of the dependence on ρ_t x̃ what is even in it is left: the signs of weights are random.
    None where x is not a function of one Gaussian, or the taps are many.
    """
    law = x.law
    if taps > MANY or law.table.profile is not None or len(tilt.values) != len(SCORES):
        return None
    entries = law.function.value(float(law.mean[0]) + math.sqrt(float(law.variance[0])) * SCORES)
    spread = float(entries.std())
    if spread <= 0.0:
        return None
    along = _reading(round(taps, 2)) @ tilt.values
    values: Array = np.interp((entries - entries.mean()) / spread, AT, along)
    level = float(values.mean())
    return Tilt(law.source, values / level) if level > 0.0 else None


@lru_cache(maxsize=32)
def _reading(taps: float) -> Array:
    """The matrix from t at the normal scores to E[n ρ² t(±ρa + √(1 − ρ²) ξ)] at a = AT, ξ ~ N(0, 1)."""
    share, weight = _shares(taps)
    rows = np.zeros((len(AT), len(SCORES)))
    for rho, rest, part in zip(np.sqrt(share), np.sqrt(1.0 - share), weight, strict=True):
        for sign in (-1.0, 1.0):
            at = sign * rho * AT[:, None] + rest * COARSE[None]
            rows += 0.5 * part * _interpolating(at)
    return rows


def _interpolating(at: Array) -> Array:
    """Weights on the normal scores of a linear interpolation at these points, averaged over the Gaussian of COARSE."""
    place = np.clip(np.searchsorted(SCORES, at) - 1, 0, len(SCORES) - 2)
    right = np.clip((at - SCORES[place]) / (SCORES[place + 1] - SCORES[place]), 0.0, 1.0)
    found = np.zeros((len(at), len(SCORES)))
    row = np.broadcast_to(np.arange(len(at))[:, None], at.shape)
    np.add.at(found, (row, place), (1.0 - right) * COARSE_WEIGHT)
    np.add.at(found, (row, place + 1), right * COARSE_WEIGHT)
    return found


def _shares(taps: float) -> tuple[Array, Array]:
    """Nodes and weights of ρ² counted by itself: Beta(3/2, (n − 1)/2), the whole at one tap."""
    if taps <= 1.0:
        return np.ones(1), np.ones(1)
    edges = np.linspace(0.0, 1.0, 400 * SHARES + 1) ** 2
    middle = 0.5 * (edges[1:] + edges[:-1])
    density = np.diff(edges) * np.sqrt(middle) * (1.0 - middle) ** (0.5 * (taps - 3.0))
    density /= density.sum()
    group = np.minimum((np.cumsum(density) * SHARES).astype(int), SHARES - 1)
    weight = np.bincount(group, density, SHARES)
    return np.bincount(group, density * middle, SHARES) / weight, weight
