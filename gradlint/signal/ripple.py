"""Finite width: how much the correlation of two feature vectors varies from pair to pair of samples and positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Ripple:
    """Variance of the correlation over pairs of samples and positions, `amplitude`/`length`.

    A layer of n features adds 1/n; a convolution averages it over neighbouring positions, which `length` counts; φ
    passes on the share r = a₁²/Var φ of a correlation. `own` is the part that the last weight's own fan-in brought in:
    it is also the relative variance of that weight's row norms, and cancels in a norm that follows. Of the rest, the
    gradient's anisotropy takes back the share r′/r with r′ = E[φ′]²/E[φ′²] (all of it in a linear network), which
    leaves `felt`.
    """

    amplitude: float = 0.0
    length: float = 1.0
    own: float = 0.0
    felt: float = 0.0

    @property
    def variance(self) -> float:
        """⟨ρ²⟩ − ⟨ρ⟩² over pairs."""
        return self.amplitude / self.length

    @property
    def excess(self) -> float:
        """What a batch norm's gradient feels of it."""
        return max(self.variance - self.own, 0.0) * self.felt


NONE = Ripple()


def drawn(before: Ripple, features: float, kernel: Sequence[int] = ()) -> Ripple:
    """After a random weight over `features` inputs a tap and a window of `kernel` taps an axis."""
    noise = 1.0 / max(features, 1.0)
    old, own = _smoothed(before.length, kernel), _smoothed(1.0, kernel)
    amplitude = before.amplitude + noise
    variance = before.amplitude / old + noise / own
    return Ripple(amplitude, amplitude / variance, noise / own, before.felt)


def _smoothed(length: float, kernel: Sequence[int]) -> float:
    """A window adds (k² − 1)/12 to the variance of the weights that mix positions; 1/Σw² as for a Gaussian window."""
    if not kernel:
        return length
    rank = len(kernel)
    spread = sum(k * k - 1.0 for k in kernel) / rank / 12.0
    return float((length ** (2.0 / rank) + 4.0 * math.pi * spread) ** (rank / 2.0))


def shrunk(ripple: Ripple, forward: float, backward: float) -> Ripple:
    """After a function that passes on these shares of a correlation, of the tensor and of its gradient."""
    felt = 1.0 - backward / forward if forward > 0 else 0.0
    return Ripple(ripple.amplitude * forward**2, ripple.length, felt=min(max(felt, 0.0), 1.0))


def mixed(parts: Sequence[tuple[float, Ripple]]) -> Ripple:
    """A sum or concatenation of independent tensors, each with its share of the variance."""
    amplitude = sum(share**2 * part.amplitude for share, part in parts)
    variance = sum(share**2 * part.variance for share, part in parts)
    own = sum(share**2 * part.own for share, part in parts)
    felt = sum(share**2 * part.variance * part.felt for share, part in parts)
    if variance <= 0:
        return NONE
    return Ripple(amplitude, amplitude / variance, own, felt / variance)


def settled(ripple: Ripple) -> Ripple:
    """After a norm, which nothing but a function in between lets the next one feel again."""
    return replace(ripple, own=0.0, felt=0.0)
