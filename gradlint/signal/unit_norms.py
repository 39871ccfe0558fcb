"""A norm over the features with its actual gain: what it does to every unit, and to the gradient on its way back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gradlint.signal.patterns import Array
from gradlint.signal.spread import EXACT, Spread, fresh
from gradlint.signal.unit_step import Beyond, Place, Step, entries
from gradlint.signal.units import Units


@dataclass(frozen=True, eq=False)
class FeatureNorm:
    """y = γ(x − x̄)/σ + β over the n units of one sample, σ² taken at its expectation over samples.

    x̂ = (x − x̄)/σ has the law `mean` + ξ, ξ of variance `spread`, independent between units; `slope` is E[1/σ²].
    """

    mean: Array
    spread: Array
    slope: float
    root: float  # 1/σ
    gain: Array
    centred: bool

    def forward(self, bias: Array) -> Units:
        """The law of y."""
        count = len(self.mean)
        return Units(self.gain * self.mean + bias, np.zeros(count), self.gain**2 * self.spread, 1)

    def coupling(self, given: Spread) -> Array:
        """E[δ_j x̂_j | a_j] over E[δ_j | a_j] for δ = aφ′(y): by Stein's lemma E[x̂] + E[φ″]/E[φ′]·Cov(y, x̂)."""
        if given.bend is None:
            return self.mean
        coupled: Array = self.mean + given.bend * self.gain * self.spread
        return coupled

    def energy(self, given: Spread) -> tuple[Array, Array]:
        """E[δ² x̂] and E[δ² x̂²] over E[δ²]."""
        if given.gate is None:
            return self.mean, self.mean**2 + self.spread
        first, second = given.gate.tilt
        turned = np.sign(self.gain) * np.sqrt(self.spread)
        return self.mean + turned * first, self.mean**2 + 2.0 * self.mean * turned * first + self.spread * second

    def backward(self, given: Spread) -> Spread:
        """δ_x = (D − D̄ − x̂κ)/σ with D = γδ and κ the mean of D x̂ over the units; x̂ varies about its mean by ξ.

        What D has in common with other gradients goes on as it is on average over ξ; what κ varies by is independent.
        """
        count = len(self.mean)
        first, second = self.energy(given)
        parts = self.gain[:, None] * np.column_stack([given.mean, given.factor])
        met = self.coupling(given)[:, None] * parts
        rest = given.rest * self.gain**2
        own = (parts**2).sum(1) + rest
        if count <= EXACT and rest.any():
            extra = np.diag(np.sqrt(rest))
            parts, met = np.hstack([parts, extra]), np.hstack([met, first[:, None] * extra])
            rest = np.zeros(count)
        kappa = met.mean(0)
        vary = max(float((own * second - (met**2).sum(1)).sum()), 0.0) / count**2
        passed = parts - np.outer(self.mean, kappa) - (self.spread / count)[:, None] * parts
        if self.centred:
            passed -= parts.mean(0)
        left = np.maximum(rest - rest * (self.centred + 2.0 * second) / count, 0.0)
        left = left + self.spread * (float(kappa @ kappa) + vary)
        passed = np.column_stack([passed, self.mean * math.sqrt(vary)]) * math.sqrt(self.slope)
        columns = (*given.columns, *fresh(passed.shape[1] - 1 - len(given.columns)))
        bend = None if given.bend is None else given.bend * np.sqrt(given.straight) * self.gain * self.root
        return Spread(passed[:, 0], passed[:, 1:], columns, left * self.slope, None, bend)

    def gradients(self, given: Spread, samples: int) -> tuple[float, float]:
        """Mean square of the gradient at an entry of γ, Σ δx̂, and of β, Σ δ."""
        apart = samples - 1.0
        gain = given.own * self.energy(given)[1] + apart * (given.mean * self.coupling(given)) ** 2
        return samples * float(gain.mean()), samples * float((given.own + apart * given.mean**2).mean())


def fitted(x: Units, gain: Array, eps: float, *, centred: bool) -> FeatureNorm:
    """The norm of a tensor of this law."""
    count = len(x.mean)
    variance = x.shared + x.local
    off = x.mean - x.mean.mean() if centred else x.mean
    own = variance * (1.0 - 2.0 / count) + variance.mean() / count if centred else variance
    square = float((off**2 + own).mean())
    if not square > 0.0:
        raise Beyond("a norm over what does not vary")
    wander = float((2.0 * own**2 + 4.0 * off**2 * own).sum()) / (count * square) ** 2  # of σ², relative
    inverse = 1.0 / (square + eps)
    slope = inverse * (1.0 + wander)
    return FeatureNorm(off * math.sqrt(inverse), own * inverse, slope, math.sqrt(inverse), gain, centred)


def feature_norm(place: Place) -> Step:
    """Layer norm or RMS norm over the features of single positions."""
    shape = place.value().shape
    over = place.op.attrs.get("axes") in ((1,), (-1,))
    if place.op.function not in ("layer_norm", "rms_norm") or len(shape) != 2 or not over:
        raise Beyond("a norm over something else than the features")
    x = place.units().on(shape[1]).gaussian()
    ones = np.ones(shape[1])
    gain = entries(place, "weight", 1) if place.given("weight") else ones
    bias = entries(place, "bias", 1) if place.given("bias") else 0.0 * ones
    norm = fitted(x, gain, place.number("eps", 1e-5), centred=place.op.function == "layer_norm")
    source = place.value().id

    def back(given: Spread) -> tuple[Mapping[int, Spread], Mapping[str, float]]:
        found = dict(zip(("weight", "bias"), norm.gradients(given, place.samples), strict=True))
        names = {role: place.value(role).name for role in found if place.given(role)}
        return {source: norm.backward(given)}, {name: found[role] for role, name in names.items()}

    return Step(norm.forward(bias), back)
