"""Windows that slide along the axes of a map: what they read of it, and what they write back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from gradlint.signal.edges import evened, levelled, mean_of
from gradlint.signal.patterns import Array
from gradlint.signal.recall import recalled


class Seen(NamedTuple):
    """What a random filter makes of an input that falls off along an axis."""

    read: Array  # the moments of every output position over those of the input, (out,)
    pairs: float  # the same of two different positions, on the whole
    drift: Array  # how E[y(p)ȳ] varies along the outputs where the input has one sign, of mean 1


@dataclass(frozen=True, eq=False)
class Window:
    """A window sliding along one axis: `inside[t]` is the share of output positions where tap t is in bounds."""

    size: int
    out: int
    inside: tuple[float, ...]
    at: Array  # (out, taps): the input position that a tap reads, `size` where it is out of bounds

    @cached_property
    def same(self) -> float:
        """Mean in-bounds share: scales what falls on one position."""
        return sum(self.inside) / len(self.inside)

    @cached_property
    def different(self) -> float:
        """Share of pairs of output positions whose taps are both in bounds, averaged over taps."""
        return self.same if self.out == 1 else self._met / (self.out - 1)

    @cached_property
    def adjoint(self) -> tuple[float, float]:
        """Factors of the adjoint map for the same and for different input positions."""
        return self.same * self.out / self.size, self._met * self.out / max(self.size * (self.size - 1), 1)

    @cached_property
    def _met(self) -> float:
        pairs = [max(share * (share * self.out - 1.0), 0.0) for share in self.inside]
        return sum(pairs) / len(pairs)

    @cached_property
    def whole(self) -> bool:
        """Whether the outputs are the input positions one by one, as of a single tap."""
        return self.at.shape[1] == 1 and self.out == self.size and self.inside == (1.0,)

    def seen(self, edge: Array) -> Seen:
        """What the outputs read of an input of these moments along the axis, which falls off in amplitude as well."""
        return Seen(edge, 1.0, levelled(np.sqrt(edge))) if self.whole else self._seen(edge)

    @recalled
    def _seen(self, edge: Array) -> Seen:
        amplitude = np.sqrt(edge)
        padded = np.zeros(self.size + 1)
        padded[:-1] = amplitude
        taken = padded[self.at]
        summed, squares = np.add.reduce(taken), taken * taken
        read: Array = np.add.reduce(squares, 1) / self.at.shape[1]
        return Seen(read, self._pairs(edge, amplitude, summed, mean_of(read)), levelled(taken.dot(summed)))

    def _pairs(self, edge: Array, amplitude: Array, summed: Array, read: float) -> float:
        """What falls on two positions, from the sum that every tap reads of the amplitudes."""
        if self.out == 1 or self.size == 1:
            return read
        found = float(summed.dot(summed)) / len(summed) - read * self.out
        level = (float(np.add.reduce(amplitude)) ** 2 - float(np.add.reduce(edge))) / (self.size * (self.size - 1.0))
        return found / (self.out * (self.out - 1.0)) / max(level, 1e-300)

    def together(self, near: Array) -> Array:
        """What two output positions of a random filter read of an input of these moments, (out, out): tap by tap."""
        padded = np.pad(near, ((0, 1), (0, 1)))
        read: Array = np.mean([padded[np.ix_(at, at)] for at in self.at.T], axis=0)
        return read

    @cached_property
    def alike(self) -> Array:
        """`together`, over its mean over two different positions, for an input whose positions are all alike."""
        return evened(self.together(np.ones((self.size, self.size))))

    def within(self, near: Array) -> float:
        """Mean of these moments over two different taps of one window that are both in bounds."""
        padded = np.pad(near, ((0, 1), (0, 1)))
        taps = self.at.shape[1]
        inside = self.at < self.size
        pairs = inside[:, :, None] & inside[:, None, :] & ~np.eye(taps, dtype=bool)
        found = padded[self.at[:, :, None], self.at[:, None, :]]
        return float(found[pairs].mean()) if pairs.any() else 1.0

    @recalled
    def kept(self, edge: Array) -> Array:
        """The share of outputs of these moments (of mean 1) at which each tap is in bounds, (taps,)."""
        kept: Array = ((self.at < self.size) * edge[:, None]).mean(0)
        return kept

    def written(self, edge: Array) -> Array:
        """The adjoint: what every input position gets from outputs of these moments, (size,)."""
        if self.whole:
            return edge
        taps = self.at.shape[1]
        return np.bincount(self.at.ravel(), np.repeat(edge / taps, taps), self.size + 1)[: self.size]


def windows(
    sizes: Sequence[int],
    out: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[float],
    dilation: Sequence[int],
) -> list[Window]:
    """The window of every spatial axis of a convolution or pool."""
    return [_sliding(*given) for given in zip(sizes, out, kernel, stride, padding, dilation, strict=True)]


@lru_cache(maxsize=1024)
def _sliding(size: int, out: int, taps: int, stride: int, padding: float, dilation: int) -> Window:
    at = np.arange(out)[:, None] * stride - math.floor(padding) + np.arange(taps)[None] * dilation
    within = (at >= 0) & (at < size)
    return Window(size, out, tuple(float(share) for share in within.mean(0)), np.where(within, at, size))
