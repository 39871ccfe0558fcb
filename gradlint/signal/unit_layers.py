"""Layers with their actual weights: how they move the mean and the variances of every unit, and the gradient back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gradlint.signal.patterns import Array
from gradlint.signal.spread import EXACT, Spread, with_rest
from gradlint.signal.taps import Taps
from gradlint.signal.units import Units


@dataclass(frozen=True, eq=False)
class Layer:
    """y = Σ_t W_t x_t + b with `weights` (T, out, in) and their taps."""

    weights: Array
    bias: Array | None
    taps: Taps

    @property
    def inward(self) -> Array:
        """Σ_t W_t by the share of outputs that a tap counts for, (out, in)."""
        return _summed(self.taps.share, self.weights)

    def forward(self, x: Units) -> Units:
        """The law of y: means exactly, variances as if the units of x were independent."""
        x = x.on(self.weights.shape[2]).gaussian()
        summed = self.inward
        mean = summed @ x.mean
        shared = summed**2 @ x.shared
        local = np.einsum("t,toi,i->o", self.taps.share, self.weights**2, x.local, optimize=True)
        local += self._borders(x)
        if self.taps.after == 1:
            shared, local = np.zeros_like(local), shared + local
        if self.bias is not None:
            mean = mean + self.bias
        return Units(mean, shared, np.maximum(local, 0.0), self.taps.after)

    def _borders(self, x: Units) -> Array:
        """Variance over positions of what the mean and the shared part of x become, where taps are out of bounds."""
        border = self.taps.border
        if not np.abs(border).max() > 1e-12:
            return np.zeros(self.weights.shape[1])
        means = self.weights @ x.mean
        found: Array = np.einsum("to,ts,so->o", means, border, means, optimize=True)
        if x.shared.any():
            found = found + np.einsum("toi,ts,soi,i->o", self.weights, border, self.weights, x.shared, optimize=True)
        return found

    def backward(self, given: Spread) -> Spread:
        """The gradient at x."""
        summed = _summed(self.taps.hits, self.weights).T
        factor, columns, rest = with_rest(given)
        kernels, gain = self.taps.carried(given.kernels)
        local = None if self.taps.before == 1 else self._local(given.local)
        parts = math.sqrt(gain) * summed @ given.mean, math.sqrt(gain) * summed @ factor, columns
        return Spread(*parts, gain * summed**2 @ rest, local, kernels=kernels)

    def _local(self, local: Array | None) -> Array:
        count = self.weights.shape[2]
        if local is None:
            return np.zeros((count, count))
        if max(self.weights.shape[1:]) > EXACT:
            return np.diag(np.einsum("t,toi,o->i", self.taps.hits, self.weights**2, local.diagonal(), optimize=True))
        mixed = np.einsum("op,tpi->toi", local, self.weights, optimize=True)
        found: Array = np.einsum("t,toi,toj->ij", self.taps.hits, self.weights, mixed, optimize=True)
        return found

    def gradients(self, x: Units, given: Spread, samples: int) -> tuple[float, float]:
        """Mean square of the gradient at an entry of the weight and of the bias (0.0 without one).

        Σ over pairs of samples and positions of E[δδ′]E[xx′]; δ and x of one sample covary by Stein's lemma, as
        E[δ_o x_j] = E[δ_o](E[x_j] + E[φ″]/E[φ′]·Cov(z_o, x_j)).
        """
        x = x.on(self.weights.shape[2])
        first, pair, second = x.moments
        after = self.taps.after
        same = float(self.taps.share.mean()) * after
        pairs = self.taps.met(given.kernels) * after**2
        shared = given.shared + given.mean**2
        plain, met = self._met(x, given)
        loose = given.rest * (1.0 - given.straight)  # what φ′ varies by: of no sign
        total = same * (given.own.sum() * second.sum() - shared.sum() * given.crest * pair.sum())
        total += pairs * float((shared - loose) @ met + loose.sum() * plain + shared.sum() * (pair - first**2).sum())
        total += pairs * (samples - 1.0) * float(given.mean**2 @ met)
        bias = after * (given.own - shared * given.crest) + after**2 * (shared + (samples - 1.0) * given.mean**2)
        entry = samples * float(total) / len(met) / len(first)
        return entry, 0.0 if self.bias is None else samples * float(bias.mean())

    def _met(self, x: Units, given: Spread) -> tuple[float, Array]:
        """Σ_j E[x_j]², and the same as δ_o sees it in two places at once, mean over the taps, (out,)."""
        first = x.moments.first
        plain = float(first @ first)
        if given.bend is None:
            return plain, np.full(self.weights.shape[1], plain)
        spread = x.gaussian()
        own = self.weights * spread.local + self.weights.sum(0) * spread.shared
        met: Array = ((first + given.bend[:, None] * own) ** 2).mean(0).sum(1)
        return plain, met


def _summed(shares: Array, weights: Array) -> Array:
    """Σ_t share_t W_t, (out, in)."""
    if len(weights) == 1:
        return np.asarray(weights[0] if shares[0] == 1.0 else weights[0] * shares[0])
    summed: Array = np.tensordot(shares, weights, (0, 0))
    return summed
