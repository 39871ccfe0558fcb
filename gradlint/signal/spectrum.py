"""Ratios of Gaussian quadratic forms over exchangeable axes: what dividing by a deviation does to a spectrum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gradlint.signal import patterns
from gradlint.signal.patterns import Array
from gradlint.signal.recall import recalled

NODES = 48  # Gauss–Legendre nodes on s/(1 + s); the integrals are smooth there


@lru_cache(maxsize=1)
def _quadrature() -> tuple[Array, Array]:
    """Nodes and weights of ∫₀^∞ ds."""
    x, weight = np.polynomial.legendre.leggauss(NODES)
    u = 0.5 * (x + 1.0)
    return u / (1.0 - u), 0.5 * weight / (1.0 - u) ** 2


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Eigenvalues of E[x xᵀ] over index pairs of some axes, axis by axis: 0 constant along it, 1 varying along it.

    The matrices that only ask which axes two indices share commute; their eigenspaces are products of "constant" (of
    dimension 1) and "varying" (n − 1).
    """

    values: Array  # (…, 2, …, 2)
    sizes: tuple[int, ...]

    @property
    def multiplicity(self) -> Array:
        """Dimensions of the eigenspaces."""
        found: Array = np.ones(())
        for size in self.sizes:
            found = np.multiply.outer(found, np.array([1.0, size - 1.0]))
        return found

    def moments(self) -> Array:
        """Back to E[x_i x_j] by shared axes."""
        values = self.values
        offset = values.ndim - len(self.sizes) - 1
        for position, size in enumerate(self.sizes):
            axis = offset + position
            constant, varying = patterns.take(values, axis, 0), patterns.take(values, axis, 1)
            values = patterns.put(axis, (constant + (size - 1.0) * varying) / size, (constant - varying) / size)
        return values


def spectrum(values: Array, sizes: Sequence[int]) -> Spectrum:
    """The spectrum of moments whose last axes are these (of sizes > 1)."""
    offset = values.ndim - len(sizes) - 1
    for position, size in enumerate(sizes):
        axis = offset + position
        same, different = patterns.take(values, axis, 1), patterns.take(values, axis, 0)
        values = patterns.put(axis, same - different, same + (size - 1.0) * different)
    return Spectrum(values, tuple(sizes))


@recalled
def divided(values: Array, sizes: tuple[int, ...]) -> tuple[Array, Array]:
    """E[x xᵀ/s²] and E[1/s²]E[s²], s² = Σx²/n, for Gaussian x with these moments (the last axes), per leading index.

    With eigenvalues λ of multiplicity m and Q = Σ λ ξ²: E[1/Q] = ∫₀^∞ Φ dt and E[λξ²/Q] = ∫ λ/(1 + 2λt) Φ dt with
    Φ(t) = Π (1 + 2λt)^(−m/2) (Magnus 1986). The trace is kept; directions in which x varies most lose.
    """
    found = spectrum(values, sizes)
    lead = values.shape[: values.ndim - len(sizes)]
    eigen = np.maximum(found.values.reshape((*lead, -1)), 0.0)
    count = found.multiplicity.reshape(-1)
    total = eigen @ count
    safe = np.where(total > 0, total, 1.0)
    relative = eigen / safe[..., None]
    s, weight = _quadrature()
    spread = 2.0 * relative[..., None] * s
    density = np.exp(-0.5 * np.einsum("...kq,k->...q", np.log1p(spread), count)) * weight
    inverse = density.sum(-1)
    share = np.einsum("...kq,...q->...k", relative[..., None] / (1.0 + spread), density)
    share = share / np.maximum(share @ count, 1e-300)[..., None]
    kept = Spectrum((share * math.prod(sizes)).reshape(found.values.shape), found.sizes)
    return kept.moments(), inverse
