"""Where the taps of a window land: shares of positions, forward and backward, for one or several spatial axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gradlint.signal.patterns import Array


@dataclass(frozen=True, eq=False)
class Line:
    """The taps along one axis: tap t reads input `at[t, p]` at output p where `inside[t, p]`; (taps, outputs)."""

    size: int
    at: NDArray[np.intp]
    inside: NDArray[np.bool_]

    @property
    def share(self) -> Array:
        """Share of the outputs at which a tap is in bounds."""
        shares: Array = self.inside.mean(1)
        return shares

    @property
    def hits(self) -> Array:
        """Share of the inputs that a tap reaches."""
        shares: Array = self.inside.sum(1) / self.size
        return shares

    def carried(self, kernel: Array) -> Array:
        """E[δ_q δ_q′] at the inputs from that at the outputs, (inputs, inputs): a random filter's taps do not mix."""
        into = np.zeros((self.size, self.size))
        for at, inside in zip(self.at, self.inside, strict=True):
            outputs = np.nonzero(inside)[0]
            into[np.ix_(at[outputs], at[outputs])] += kernel[np.ix_(outputs, outputs)]
        return into / len(self.at)

    def met(self, kernel: Array) -> Array:
        """Mean of the kernel over pairs of outputs, those out of a tap's bounds counted as 0, per tap."""
        inside = self.inside.astype(np.float64)
        mean: Array = np.einsum("tp,pq,tq->t", inside, kernel, inside, optimize=True) / kernel.size
        return mean


@dataclass(frozen=True, eq=False)
class Taps:
    """The taps of a linear map over the positions of a unit, row-major over its axes (none: a single position)."""

    lines: tuple[Line, ...]
    positions: int = 1  # of a map without axes, which treats each position alike

    @property
    def before(self) -> int:
        """Positions of the input."""
        return math.prod(line.size for line in self.lines) if self.lines else self.positions

    @property
    def after(self) -> int:
        """Positions of the output."""
        return math.prod(line.at.shape[1] for line in self.lines) if self.lines else self.positions

    @cached_property
    def share(self) -> Array:
        """Share of outputs at which a tap is in bounds, (T,)."""
        return _product([line.share for line in self.lines])

    @cached_property
    def hits(self) -> Array:
        """Share of inputs that a tap reaches, (T,)."""
        return _product([line.hits for line in self.lines])

    @cached_property
    def border(self) -> Array:
        """Covariance between output positions of the taps that are in bounds, (T, T); 0 without padding."""
        joint: Array = np.ones((1, 1))
        for line in self.lines:
            inside = line.inside.astype(np.float64)
            joint = np.kron(joint, inside @ inside.T / inside.shape[1])
        covariance: Array = joint - np.outer(self.share, self.share)
        return covariance

    def kernels(self, given: tuple[Array, ...]) -> list[Array]:
        """One kernel for every axis of the output: those given, or ones, where all positions have one gradient."""
        return [given[axis] if given else np.ones((line.at.shape[1],) * 2) for axis, line in enumerate(self.lines)]

    def carried(self, given: tuple[Array, ...]) -> tuple[tuple[Array, ...], float]:
        """Kernels at the input, of mean 1, and the mean of their product over what `hits` says of equal positions."""
        gain, found = 1.0, []
        for line, kernel in zip(self.lines, self.kernels(given), strict=True):
            into = line.carried(kernel)
            level = float(into.mean())
            gain *= level / max(float((line.hits**2).mean()), 1e-300)
            found.append(into / max(level, 1e-300))
        return tuple(found), gain

    def met(self, given: tuple[Array, ...]) -> float:
        """Share of the pairs of outputs, weighted by the kernels, at which a tap is in bounds; mean over taps."""
        parts = [line.met(kernel) for line, kernel in zip(self.lines, self.kernels(given), strict=True)]
        return float(_product(parts).mean())


def _product(parts: Sequence[Array]) -> Array:
    total: Array = np.ones(1)
    for part in parts:
        total = np.kron(total, part)
    return total


def sliding(
    before: Sequence[int],
    after: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[float],
    dilation: Sequence[int],
) -> Taps:
    """The taps of a convolution or pool over several axes."""
    lines = []
    for size, length, taps, step, pad, gap in zip(before, after, kernel, stride, padding, dilation, strict=True):
        at = np.arange(length)[None] * step - math.floor(pad) + np.arange(taps)[:, None] * gap
        lines.append(Line(size, at, (at >= 0) & (at < size)))
    return Taps(tuple(lines))


def covering(sizes: Sequence[int]) -> Taps:
    """One tap for every position and a single output: a layer over flattened positions."""
    ones = [1] * len(sizes)
    return sliding(sizes, ones, sizes, ones, [0] * len(sizes), ones)
