"""Finite width: how much the energy of the features varies from sample to sample and from position to position.

No norm by channel removes it. A function that is not homogeneous sees a mixture of scales instead of one Gaussian, its
output sways more than its input where its second moment grows faster than the input's, and a gradient that comes back
through it is large where the activation is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from gradlint.signal.edges import Edges
from gradlint.signal.kernels import GRID, GRID_WEIGHT, expectation
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import Scalar
from gradlint.signal.table import Axis

COUNT = 8  # scales of equal probability: what happens to fewer samples is not seen in a batch
NODES = np.array([NormalDist().inv_cdf((k + 0.5) / COUNT) for k in range(COUNT)])
NODES /= math.sqrt(float((NODES**2).mean()))
WEIGHTS = np.full(COUNT, 1.0 / COUNT)
NEGLIGIBLE = 1e-3  # variance of the log energy below which one scale is as good as many
LARGEST = 1.5  # variance of the log energy up to which seven nodes describe it


@dataclass(frozen=True)
class Sway:
    """Variance of ln Σ_c x² over samples and positions, and the number of neighbouring positions that share it."""

    variance: float = 0.0
    length: float = 1.0

    def shared(self, positions: float) -> float:
        """Covariance of the log energies at two positions of one sample, averaged over their pairs."""
        return self.variance * min((self.length - 1.0) / max(positions - 1.0, 1.0), 1.0) if positions > 1 else 0.0


NONE = Sway()


class Tokens(NamedTuple):
    """Log energies of tokens: their variance in all heads together, and what is added to it in every single head."""

    together: float
    apart: float


EVEN = Tokens(0.0, 0.0)


class Law(NamedTuple):
    """What depends on the energy of a single token, at several energies."""

    energies: Array
    chances: Array
    jacobian: Array  # E[tr J²] of its row
    given: Array  # E[Σ a²] of its row
    square: Array  # E[Σ a²] of what other rows give to it

    def leaning(self, values: Array, lean: float) -> float:
        """E[δ² f] over E[δ²]E[f] for numbers f of the rows and a gradient δ² ∝ e^lean of the row's token."""
        tilted = self.energies**lean
        return float(self.chances @ (tilted * values)) / float((self.chances @ tilted) * (self.chances @ values))

    def slope(self, values: Array) -> float:
        """d ln(values)/d ln e."""
        logs, sizes = np.log(np.maximum(values, 1e-300)), np.log(self.energies)
        sizes = sizes - float(self.chances @ sizes)
        spread = float(self.chances @ sizes**2)
        return float(self.chances @ (logs * sizes)) / spread if spread > 0.0 else 0.0


@dataclass(frozen=True)
class Window:
    """What a convolution averages: its taps and strides by axis, and the positions that there are before it."""

    kernel: Sequence[int]
    stride: Sequence[int]
    positions: int


POINT = Window((), (), 1)


def drawn(before: Sway, noise: float, window: Window = POINT) -> tuple[Sway, float]:
    """What a random weight sees of an input whose energy is summed over few features: `noise` is its variance.

    A convolution averages the energy over its window. The second number is how much of a gradient's lean on the
    output's energy is one on the input's at the same place.
    """
    parts = []
    for variance, length in ((before.variance, before.length), (noise, 1.0)):
        length = min(length, window.positions)
        wide = min(_smoothed(length, window.kernel), window.positions)
        parts.append((variance * length / wide, wide, length / wide))
    total = sum(variance for variance, _, _ in parts)
    if total <= 0.0:
        return NONE, 1.0
    length = sum(variance * wide for variance, wide, _ in parts) / total
    local = sum(variance * share for variance, _, share in parts) / total
    return Sway(min(total, LARGEST), max(length / math.prod(window.stride), 1.0)), local


def _smoothed(length: float, kernel: Sequence[int]) -> float:
    """A window adds (k² − 1)/12 to the variance of the weights that mix positions; 1/Σw² as for a Gaussian window."""
    if math.prod(kernel) <= 1:
        return length
    rank = len(kernel)
    spread = sum(k * k - 1.0 for k in kernel) / rank / 12.0
    return float((length ** (2.0 / rank) + 4.0 * math.pi * spread) ** (rank / 2.0))


@lru_cache(maxsize=4096)
def sampling(function: Scalar, mean: float, variance: float, features: float) -> float:
    """Relative variance of the mean square of `features` independent entries function(z)."""
    squares = function.value(mean + math.sqrt(max(variance, 0.0)) * GRID) ** 2
    level = float(squares @ GRID_WEIGHT)
    if not level > 0.0:
        return 0.0
    return max(float((squares / level) ** 2 @ GRID_WEIGHT) - 1.0, 0.0) / max(features, 1.0)


@lru_cache(maxsize=4096)
def kurtosis(function: Scalar, mean: float, variance: float, *, fixed: bool) -> float:
    """E[(f − E f)⁴]/Var[f]² for z ~ N(mean, variance).

    With Σz and Σz² fixed, of (f − E f)² only what these two do not span varies in a sum, as much as if K were that.
    """
    values = function.value(mean + math.sqrt(max(variance, 0.0)) * GRID)
    squares = (values - values @ GRID_WEIGHT) ** 2
    level = float(squares @ GRID_WEIGHT)
    if level <= 0.0:
        return 3.0
    spread = float((squares / level) ** 2 @ GRID_WEIGHT) - 1.0
    if fixed:
        second = (GRID**2 - 1.0) / math.sqrt(2.0)
        for known in (GRID, second):
            spread -= (float((squares * known) @ GRID_WEIGHT) / level) ** 2
        spread += 2.0
    return 1.0 + spread


@dataclass(frozen=True)
class Scales:
    """Moments of a function over the scales that its input takes."""

    square: float  # E_v E[f²] over E[f²] at the mean variance
    mean: float  # E_v E[f] over E[f] there; 1 where that is zero
    shared: float  # E_v E[f]² over E[f]² there
    sway: float  # variance of ln E[f²] over v
    elasticity: float  # its slope against ln v


@lru_cache(maxsize=4096)
def scales(function: Scalar, mean: float, variance: float, sway: float) -> Scales:
    """f at z ~ N(mean, v) for log-normal v of this log variance."""
    level, square = expectation(function, mean, variance)
    pairs = [expectation(function, mean, float(v)) for v in variance * factors_of(sway)]
    levels, squares = (np.array([pair[i] for pair in pairs]) for i in (0, 1))
    if not (square > 0.0 and np.all(squares > 0.0)):
        return Scales(1.0, 1.0, 1.0, sway, 1.0)
    logs = np.log(squares)
    centred = logs - logs @ WEIGHTS
    slope = float((centred * NODES) @ WEIGHTS) / math.sqrt(sway)
    steady = abs(level) <= 1e-9 * math.sqrt(square)
    shift = 1.0 if steady else float(levels @ WEIGHTS) / level
    shared = 1.0 if steady else float(levels**2 @ WEIGHTS) / level**2
    return Scales(float(squares @ WEIGHTS) / square, shift, shared, float(centred**2 @ WEIGHTS), slope)


@lru_cache(maxsize=4096)
def factors_of(sway: float) -> Array:
    """v over its mean at the nodes; not to be written to."""
    factors: Array = np.exp(math.sqrt(sway) * NODES)
    return factors / float(factors @ WEIGHTS)


@lru_cache(maxsize=4096)
def leaning(slope: Scalar, mean: float, variance: float, sway: float, lean: float, share: float) -> tuple[float, float]:
    """For δ_z = δ·slope(z) with E[δ²|v] ∝ v^lean: E[δ_z²] over E[δ²]E[slope²], and δ_z's own lean.

    `share` of the log variance `sway` is what all features have in common; δ leans on that alone.
    """
    square = expectation(slope, mean, variance)[1]
    squares = np.array([expectation(slope, mean, float(v))[1] for v in variance * factors_of(sway)])
    if not (square > 0.0 and np.all(squares > 0.0)):
        return 1.0, lean
    arrived = factors_of(sway) ** (lean * share)
    logs = np.log(squares)
    own = float(((logs - logs @ WEIGHTS) * NODES) @ WEIGHTS) / math.sqrt(sway)
    return float((arrived * squares) @ WEIGHTS) / float(arrived @ WEIGHTS) / square, lean + own


def mixed(parts: Sequence[tuple[float, Sway]]) -> Sway:
    """A sum or concatenation of tensors, each with its share of the variance; one sample sways in all of them alike."""
    total = sum(share for share, _ in parts)
    if total <= 0.0:
        return NONE
    deviation = sum(share * math.sqrt(part.variance) for share, part in parts) / total
    weight = sum(share * part.variance for share, part in parts)
    length = sum(share * part.variance * part.length for share, part in parts) / weight if weight > 0 else 1.0
    return Sway(deviation**2, length)


@lru_cache(maxsize=4096)
def diluted(variance: float, share: float) -> float:
    """Variance of ln(1 − s + s e) for energies e of this log variance that are the share s of all."""
    logs = np.log(1.0 - share + share * factors_of(variance))
    return float(((logs - logs @ WEIGHTS) ** 2) @ WEIGHTS)


@lru_cache(maxsize=4096)
def concentrated(variance: float, share: float) -> float:
    """The log variance of energies that `diluted` makes this of, up to the largest that is told apart."""
    low, high = 0.0, LARGEST
    if share <= 0.0 or diluted(high, share) <= variance:
        return 0.0 if share <= 0.0 else high
    for _ in range(20):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if diluted(middle, share) < variance else (low, middle)
    return 0.5 * (low + high)


def crossed(share: float, features: float) -> float:
    """Variance of ln |c + d|² by 2 c·d, where d has the share s of the energy and c is the same at all positions."""
    return 4.0 * share * (1.0 - share) / features


def unplaced(sway: Sway, edges: Edges) -> Sway:
    """The sway of a map whose positions are not told apart any more: what fell off towards its edges varies."""
    logs = [np.log(np.maximum(edge, 1e-300)) for edge in edges]
    return replace(sway, variance=min(sway.variance + sum(float(log.var()) for log in logs), LARGEST))


def damped(sway: Sway, factor: float) -> Sway:
    """Every log energy times a factor."""
    return replace(sway, variance=sway.variance * factor**2)


def together(axes: Sequence[Axis], features: Sequence[int], lean: float, sway: Sway) -> Array:
    """E[δδ′xx′] over E[δδ′]E[xx′] by shared axes, (1, 2, …): both are large where the energy is.

    `features` are the axes that the energy is summed over. Pairs of different samples are as if independent.
    """
    if lean == 0.0 or sway.variance <= NEGLIGIBLE:
        return np.ones(())
    found: Array = np.ones((1,) + (2,) * len(axes))
    placed = [axis for axis in range(len(axes)) if axis not in features]
    positions = math.prod(axes[axis].size for axis in placed if not axes[axis].batch)
    index: list[slice | int] = [slice(None)] * found.ndim
    for axis in placed:
        if axes[axis].batch:
            index[axis + 1] = 1
    found[tuple(index)] = _grown(lean, sway.shared(positions))
    for axis in placed:
        index[axis + 1] = 1
    found[tuple(index)] = _grown(lean, sway.variance)
    return found


@lru_cache(maxsize=4096)
def _grown(lean: float, variance: float) -> float:
    """E[v^(1 + lean)] over E[v]E[v^lean]."""
    v = factors_of(variance)
    tilted = v**lean
    return float((v * tilted) @ WEIGHTS / (tilted @ WEIGHTS))
