"""The derivative of a function at the units of a tensor: what a gradient meets on its way back through it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradlint.signal.patterns import Array
from gradlint.signal.scalar import IDENTITY, Scalar
from gradlint.signal.units import Moments, Units, above, density, expectations, quadrature


@dataclass(frozen=True, eq=False)
class Gate:
    """φ′(x) for x = function(z) of these units, z Gaussian with its own law at every unit."""

    units: Units
    outer: Scalar

    @cached_property
    def moments(self) -> Moments:
        """Of φ′."""
        return expectations(self.units, self._slope, None, self._steps)

    @cached_property
    def bend(self) -> Array:
        """E[φ″]/E[φ′], with which δφ′ covaries with z (Stein: E[φ′(z) u] = σ E[φ″] for the standardised u)."""
        safe, first = np.where(self._sigma > 0, self._sigma, 1.0), self.moments.first
        if self._steps is not None:
            curvature = (self._steps[0] - self._steps[1]) * density(self.units.mean / safe) / safe
        else:
            values, grid, weight = self._values
            curvature = (values * grid) @ weight / safe
        with np.errstate(divide="ignore", invalid="ignore"):
            bend: Array = np.where((np.abs(first) > 1e-12) & (self._sigma > 0), curvature / first, 0.0)
        return bend

    @cached_property
    def tilt(self) -> tuple[Array, Array]:
        """E[φ′² u] and E[φ′² u²] over E[φ′²], for the standardised u."""
        if self._steps is not None:
            right, left = (step**2 for step in self._steps)
            ratio = self.units.mean / np.where(self._sigma > 0, self._sigma, 1.0)
            share, tail = above(self.units.mean, self._sigma), density(ratio)
            whole = right * share + left * (1.0 - share)
            first, second = (right - left) * tail, whole - (right - left) * ratio * tail
        else:
            values, grid, weight = self._values
            whole, first, second = (values**2 @ (weight * grid**power) for power in (0, 1, 2))
        with np.errstate(divide="ignore", invalid="ignore"):
            known = (whole > 1e-24) & (self._sigma > 0)
            return np.where(known, first / whole, 0.0), np.where(known, second / whole, 1.0)

    @property
    def _steps(self) -> tuple[float, float] | None:
        return self.outer.slopes if self.units.function is IDENTITY else None

    def _slope(self, z: Array) -> Array:
        return self.outer.slope(self.units.function.value(z))

    @cached_property
    def _sigma(self) -> Array:
        sigma: Array = np.sqrt(self.units.shared + self.units.local)
        return sigma

    @cached_property
    def _values(self) -> tuple[Array, Array, Array]:
        """φ′ on a grid of every unit's own law, the grid in standard deviations and its weights."""
        grid, weight = quadrature(float(self._sigma.max(initial=0.0)))
        return self._slope(self.units.mean[:, None] + self._sigma[:, None] * grid), grid, weight
