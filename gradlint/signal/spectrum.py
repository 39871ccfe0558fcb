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
    share, inverse = _shares(found.values.reshape((*lead, -1)), found.multiplicity.reshape(-1))
    kept = Spectrum((share * math.prod(sizes)).reshape(found.values.shape), found.sizes)
    return kept.moments(), inverse


def divided_by_sample(values: Array, sizes: Sequence[int], weights: Array) -> tuple[Array, Array]:
    """`divided` for x that a norm takes over samples of unequal moments: values (K, 2, …), the first axis the samples'.

    `weights` is the share of the samples in every class. The eigenvalues along the other axes are each class's own;
    along the samples they are those of unequal entries that have nothing in common but their mean.
    """
    samples, inner = sizes[0], sizes[1:]
    same, different = (spectrum(patterns.take(values, 0, which), inner) for which in (1, 0))
    varying = same.values - different.values
    constant = varying / samples + different.values
    whole = samples * np.tensordot(weights, constant, (0, 0))
    count = same.multiplicity
    counts = weights.reshape((-1,) + (1,) * count.ndim) * (samples - 1.0) * count
    eigen = np.concatenate([varying.reshape(-1), whole.reshape(-1)])
    share, inverse = _shares(eigen, np.concatenate([counts.reshape(-1), count.reshape(-1)]))
    kept = np.where(eigen > 0.0, share * math.prod(sizes) / np.where(eigen > 0.0, eigen, 1.0), 0.0)
    varying = varying * kept[: varying.size].reshape(varying.shape)
    constant = constant * kept[varying.size :].reshape(whole.shape)
    own = Spectrum(varying * (1.0 - 1.0 / samples) + constant, same.sizes).moments()
    other = Spectrum(constant - varying / samples, same.sizes).moments()
    return patterns.put(0, own, other), inverse


def _shares(eigen: Array, count: Array) -> tuple[Array, Array]:
    """E[λξ²/Q] for every eigenvalue (last axis) of this multiplicity, and E[1/Q] Σ λ."""
    eigen = np.maximum(eigen, 0.0)
    total = eigen @ count
    safe = np.where(total > 0, total, 1.0)
    relative = eigen / safe[..., None]
    s, weight = _quadrature()
    spread = 2.0 * relative[..., None] * s
    density = np.exp(-0.5 * np.einsum("...kq,k->...q", np.log1p(spread), count)) * weight
    inverse = density.sum(-1)
    share = np.einsum("...kq,...q->...k", relative[..., None] / (1.0 + spread), density)
    return share / np.maximum(share @ count, 1e-300)[..., None], inverse
