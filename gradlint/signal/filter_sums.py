"""What a convolution needs of its filters: sums over channels and taps, and energies by class of input channels."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gradlint.graph.memo import attached
from gradlint.signal.patterns import Array
from gradlint.signal.rows import weighed
from gradlint.signal.weights import Weight


@lru_cache(maxsize=16)
def _keys(rank: int, *, forward: bool) -> tuple[list[str], list[str]]:
    """Names of a filter's sums for every subset of (channel, taps): with the mapped-to axis kept, and without it."""
    own, other = ("0", "1") if forward else ("1", "0")
    kept, summed = [], []
    for channel, *taps in itertools.product((0, 1), repeat=1 + rank):
        spatial = [str(axis + 2) for axis, one in enumerate(taps) if one]
        inside = [other] * channel
        kept.append("".join(sorted([own, *inside, *spatial])))
        summed.append("".join([*inside, *spatial]))
    return kept, summed


@dataclass(frozen=True, eq=False)
class FilterSums:
    """Sums of a filter bank over channels and taps named by a subset, seen from the output and from the input.

    `relative` is how much the output channels count, of mean 1.
    """

    weight: Weight
    groups: int
    relative: Array | None = None

    def matrix(self, *, out: bool) -> Array:
        """(different, same) sums for every subset of (channel, taps), shape (2, subsets).

        Σ over the subset of (Σ over the others W)² per output channel, and its mean over pairs of output channels; or,
        with `out` false, per input channel, where the channel of a subset is the output's.
        """
        weight = self.weight if self.relative is None else weighed(self.weight, self.relative)
        return _pairs_of(weight, self.groups, out=out)

    def energy(self, counts: tuple[int, ...], n_in: int) -> Array:
        """Share of the filter's energy on every class of input channels."""
        return _energy_of(self.weight, self.groups, counts, n_in)


@attached
def _pairs_of(weight: Weight, groups: int, *, out: bool) -> Array:
    count = weight.shape[0] if out else weight.shape[1] * groups
    same, together = (
        np.array([weight.sums[key] for key in keys]) for keys in _keys(len(weight.shape) - 2, forward=out)
    )
    cross = (together - same) / max(count * (count - 1), 1)
    if groups > 1:
        cross[len(cross) // 2 :] = 0.0
    return np.array([cross, same / count])


@attached
def _energy_of(weight: Weight, groups: int, counts: tuple[int, ...], n_in: int) -> Array:
    square = weight.columns.get("square")
    share = np.asarray(counts, np.float64) / n_in
    if square is None or groups > 1:
        return share
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    energy: Array = np.add.reduceat(square, starts)
    return energy / max(float(energy.sum()), 1e-300)
