"""The gradient unit by unit: its covariance between the units of a layer, given the weights that were drawn."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from gradlint.signal.gate import Gate
from gradlint.signal.patterns import Array

EXACT = 128  # units up to which covariances are followed whole; above, what a layer adds is taken as independent
_column = itertools.count()


@dataclass(frozen=True, eq=False)
class Spread:
    """The gradient δ at a tensor of (units,) laws, as E[δ] + factor·ε + independent parts.

    `mean` is E[δ] over samples (n,). `factor` (n, r) and `columns` (r,): the part shared by all positions of a sample,
    where equal columns of two gradients are one random number ε; `rest` (n,) its variance that is independent between
    units. These hold between two positions on average; `kernels`, one a spatial axis and of mean 1, say how it varies
    from pair to pair (none: it does not). `local` (n, n) is the covariance of what only one position has, None where
    there is one position. `bend` is E[φ″]/E[φ′] of the function that the gradient came through last,
    `gate` that function's derivative.
    """

    mean: Array
    factor: Array
    columns: tuple[int, ...]
    rest: Array
    local: Array | None = None
    bend: Array | None = None
    gate: Gate | None = None
    kernels: tuple[Array, ...] = ()

    @property
    def shared(self) -> Array:
        """Variance that the positions of one sample share, (n,)."""
        total: Array = (self.factor**2).sum(1) + self.rest
        return total

    @property
    def straight(self) -> Array:
        """E[φ′]²/E[φ′²]: the share of `rest` that has its sign from what arrived at φ, (n,)."""
        if self.gate is None:
            return np.ones(len(self.rest))
        first, _, second = self.gate.moments
        share: Array = np.where(second > 0.0, first**2 / np.where(second > 0.0, second, 1.0), 1.0)
        return share

    @property
    def crest(self) -> float:
        """What is shared: its square at one position over its product at two."""
        return math.prod(float(kernel.diagonal().mean()) for kernel in self.kernels)

    @property
    def own(self) -> Array:
        """E[δ²] per unit, (n,)."""
        apart = 0.0 if self.local is None else self.local.diagonal()
        total: Array = (self.mean**2 + self.shared) * self.crest + apart
        return total

    def __add__(self, other: Spread) -> Spread:
        """Gradients of two consumers: what is the same random number adds coherently."""
        columns = (*self.columns, *(c for c in other.columns if c not in set(self.columns)))
        place = {column: at for at, column in enumerate(columns)}
        factor = np.zeros((len(self.mean), len(columns)))
        for part in (self, other):
            factor[:, [place[column] for column in part.columns]] += part.factor
        parts = [part.local for part in (self, other) if part.local is not None]
        local = None if not parts else sum(parts[1:], parts[0])
        rest = self.rest + other.rest
        return Spread(self.mean + other.mean, factor, columns, rest, local, kernels=self._kernels(other))

    def _kernels(self, other: Spread) -> tuple[Array, ...]:
        first, second = (float((part.shared + part.mean**2).sum()) for part in (self, other))
        share = first / (first + second) if first + second > 0 else 0.5
        if not (self.kernels and other.kernels):
            return self.kernels or other.kernels
        return tuple(share * a + (1 - share) * b for a, b in zip(self.kernels, other.kernels, strict=True))

    def condensed(self) -> Spread:
        """The same covariance in as many columns as there are units; forgets which random numbers they were."""
        count = len(self.mean)
        if len(self.columns) <= 2 * count:
            return self
        square = self.factor @ self.factor.T
        scale = float(np.trace(square)) / count
        if not 0.0 < scale < np.inf:
            return self
        root = np.linalg.cholesky(square / scale + 1e-12 * np.eye(count)) * np.sqrt(scale)
        return replace(self, factor=root, columns=fresh(count))

    def scaled(self, number: float) -> Spread:
        """The gradient times a number."""
        local = None if self.local is None else self.local * number**2
        parts = self.mean * number, self.factor * number, self.columns, self.rest * number**2
        return Spread(*parts, local, self.bend, self.gate, self.kernels)

    def gated(self, gate: Gate) -> Spread:
        """The gradient times φ′, which is independent of it: of its square, E[φ′]² stays in the same columns."""
        first, pair, second = gate.moments
        shared = (self.factor**2).sum(1) + self.mean**2
        parts = self.mean * first, first[:, None] * self.factor, self.columns
        if self.local is None:
            rest = self.rest * second + np.maximum(second - first**2, 0.0) * shared
            return Spread(*parts, rest, None, gate.bend, gate, self.kernels)
        rest = self.rest * pair + np.maximum(pair - first**2, 0.0) * shared
        local = np.outer(first, first) * self.local
        np.fill_diagonal(local, np.maximum(self.own * second - (shared + self.rest) * pair * self.crest, 0.0))
        return Spread(*parts, rest, local, gate.bend, gate, self.kernels)


def fresh(count: int) -> tuple[int, ...]:
    """Names of random numbers that nothing else depends on yet."""
    return tuple(itertools.islice(_column, count))


def whole(covariance: Array, mean: Array, positions: int) -> Spread:
    """A gradient of this covariance (n, n) about its mean, independent between the positions of a sample."""
    count = len(mean)
    if positions > 1:
        return Spread(mean, np.zeros((count, 0)), (), np.zeros(count), covariance)
    if count > EXACT:
        return Spread(mean, np.zeros((count, 0)), (), covariance.diagonal().copy())
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    return Spread(mean, root, fresh(count), np.zeros(count))


def with_rest(given: Spread) -> tuple[Array, tuple[int, ...], Array]:
    """Factor and columns with the independent part as columns of its own where that is affordable, and what is left."""
    count = len(given.mean)
    if count > EXACT or not given.rest.any():
        return given.factor, given.columns, given.rest
    factor = np.concatenate([given.factor, np.diag(np.sqrt(given.rest))], axis=1)
    return factor, (*given.columns, *fresh(count)), np.zeros(count)
