"""Windows that slide along the axes of a map: what they read of it, and what they write back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from gradlint.signal.edges import evened, levelled
from gradlint.signal.patterns import Array


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

    def _taken(self, vector: Array) -> Array:
        """What every tap reads of a vector along the axis, (out, taps)."""
        taken: Array = np.append(vector, 0.0)[self.at]
        return taken

    def read(self, edge: Array) -> Array:
        """What every output position reads of an input of these moments along the axis, the mean over taps, (out,)."""
        read: Array = self._taken(edge).sum(1) / self.at.shape[1]
        return read

    def pairs(self, edge: Array) -> float:
        """`different` for an input that falls off in amplitude as this edge does in moments."""
        if self.out == 1 or self.size == 1:
            return float(self.read(edge).mean())
        amplitude = np.sqrt(edge)
        read = self._taken(amplitude)
        found = float(((read.sum(0) ** 2) - (read**2).sum(0)).mean()) / (self.out * (self.out - 1.0))
        level = (float(amplitude.sum()) ** 2 - float(edge.sum())) / (self.size * (self.size - 1.0))
        return found / max(level, 1e-300)

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

    def drift(self, edge: Array) -> Array:
        """How E[y(p)ȳ] varies along the outputs of a random filter for an input of this edge and one sign, mean 1."""
        mean = self._taken(np.sqrt(edge))
        return levelled(mean @ (mean.sum(0) / len(mean)))

    def kept(self, edge: Array) -> Array:
        """The share of outputs of these moments (of mean 1) at which each tap is in bounds, (taps,)."""
        kept: Array = ((self.at < self.size) * edge[:, None]).mean(0)
        return kept

    def written(self, edge: Array) -> Array:
        """The adjoint: what every input position gets from outputs of these moments, (size,)."""
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
