"""Samples of unequal energy: a table's classes along the batch axis, and what a norm over the samples makes of them.

A norm over the batch leaves the samples' energies against each other as they are. Attention cubes them, as queries,
keys and values all grow with the energy, until one sample has all there is: then moments that are averaged over the
batch say little. Samples are exchangeable; their classes are in the order of their energies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from gradlint.signal import patterns
from gradlint.signal.patterns import Array
from gradlint.signal.table import Profile, Table

CLASSES = 8  # of samples that are told apart: what happens to fewer samples is not seen in a batch
SLIGHT = 1e-2  # variance of the samples' log energies up to which one class is as good as many


def by_sample(table: Table) -> bool:
    """Whether the table's classes are samples."""
    return table.profile is not None and table.axes[table.profile.axis].batch


def evened(table: Table) -> Table:
    """The table without classes, unless they are samples."""
    return table if by_sample(table) else table.collapse()


def pooled(table: Table, vector: Array) -> Array:
    """A number for every class, as its average over the samples."""
    return np.full(len(vector), float(table.weights @ vector)) if by_sample(table) else vector


def centred(table: Table, values: Array, over: Sequence[int]) -> Array:
    """Moments less the mean over these axes, samples among them: of that, a sample has its own share.

    With a_k the mean of E[x x′] over x′ for a sample k, two entries of samples k and l keep E[x x′] − a_k − a_l + ā.
    """
    assert table.profile is not None
    batch, sizes = table.profile.axis, table.sizes
    samples = sizes[batch]
    share = _with_all(table, values, over)
    mean = np.tensordot(table.weights, share, (0, 0))[None]
    others = (samples * mean - share) / max(samples - 1.0, 1.0)
    gone = patterns.put(batch - sum(axis < batch for axis in over), 2.0 * share - mean, share + others - mean)
    for axis in sorted(set(over) - {batch}):
        gone = patterns.insert(gone, axis)
    return values - gone


def over_all(table: Table, values: Array, over: Sequence[int]) -> Array:
    """Moments averaged over all pairs of these axes, samples among them; the classes go away."""
    return np.tensordot(table.weights, _with_all(table, values, over), (0, 0))[None]


def _with_all(table: Table, values: Array, over: Sequence[int]) -> Array:
    """Moments averaged over these axes between the samples of every class and all samples, (K, …)."""
    assert table.profile is not None
    batch = table.profile.axis
    rest = [axis for axis in over if axis != batch]
    found = patterns.average(values, rest, table.sizes)
    return patterns.average(found, [batch - sum(axis < batch for axis in rest)], _without(table.sizes, rest))


def _without(sizes: Sequence[int], gone: Sequence[int]) -> list[int]:
    return [size for axis, size in enumerate(sizes) if axis not in gone]


def energies(variance: float, samples: int) -> tuple[Array, tuple[int, ...]]:
    """Log-normal energies of mean 1 in so many samples, by class, and the number of samples in each class."""
    classes = min(samples, CLASSES)
    bounds = [round(k * samples / classes) for k in range(classes + 1)]
    counts = tuple(b - a for a, b in itertools.pairwise(bounds))
    scores = np.array([NormalDist().inv_cdf((a + b) / (2.0 * samples)) for a, b in itertools.pairwise(bounds)])
    weights = np.array(counts) / samples
    scores /= math.sqrt(float(weights @ scores**2))
    found = np.exp(math.sqrt(variance) * scores)
    return found / float(weights @ found), counts


def told_apart(table: Table, axes: Sequence[int], variance: float) -> Table:
    """The table with samples whose energy along these axes has this log variance on top of what it has.

    What all positions of a sample have in common stays as it is.
    """
    batch = next((axis for axis, known in enumerate(table.axes) if known.batch), None)
    own = varying(table, axes) / table.weights if axes else np.zeros(0)
    known = _log_variance(own, table.weights) if by_sample(table) and np.all(own > 0.0) else 0.0
    if batch is None or variance + known <= SLIGHT or not np.any(own > 0.0):
        return table
    if by_sample(table):
        grown = np.maximum(own, 1e-300) ** (math.sqrt(1.0 + variance / known) if known > 0.0 else 1.0)
        return _scaled(table, batch, axes, grown / np.maximum(own, 1e-300) / float(table.weights @ grown))
    factor, counts = energies(variance, table.sizes[batch])
    values = np.repeat(table.collapse().values, len(factor), 0)
    return _scaled(Table(table.dims, values, Profile(batch, counts)), batch, axes, factor)


def _scaled(table: Table, batch: int, axes: Sequence[int], factor: Array) -> Table:
    """What differs along these axes within a sample, times a factor by class."""
    places, sizes = [axis - (axis > batch) for axis in axes], [n for at, n in enumerate(table.sizes) if at != batch]
    same, different = patterns.take(table.values, batch, 1), patterns.take(table.values, batch, 0)
    _, common = patterns.joint(same, places, sizes)
    for place in sorted(places):
        common = patterns.insert(common, place)
    scaled = common + (same - common) * factor.reshape((-1,) + (1,) * (same.ndim - 1))
    return Table(table.dims, patterns.put(batch, scaled, different), table.profile)


def _log_variance(own: Array, weights: Array) -> float:
    logs = np.log(own)
    return float(weights @ (logs - weights @ logs) ** 2)


def varying(table: Table, axes: Sequence[int]) -> Array:
    """The share that every class has in what entries which differ along these axes do not have in common."""
    same, different = _met(table, axes, [])
    own = table.weights * np.maximum(same - different, 0.0)
    total = float(own.sum())
    return own / total if total > 0.0 else table.weights


def _met(table: Table, axes: Sequence[int], apart: Sequence[int]) -> tuple[Array, Array]:
    """E[x x′] by class of entries that also agree along these axes, and of those that differ, `apart` different.

    All other axes agree.
    """
    index = tuple(slice(None) if axis in axes else 0 if axis in apart else 1 for axis in range(len(table.axes)))
    values = table.values[(slice(None), *index)].reshape(len(table.values), -1)
    sizes = tuple(table.sizes[axis] for axis in sorted(axes))
    count = math.prod(sizes)
    same, mean = values[:, -1], values @ patterns.chances(sizes)
    return same, same if count == 1 else (mean * count - same) / (count - 1)


class Shares(NamedTuple):
    """The share of E[x²] that entries of one sample do not have in common."""

    own: float  # of what is not common to all samples either
    all: float


def with_others(table: Table, axes: Sequence[int]) -> Shares:
    """How much of a tensor's entries is their own, against others that differ along these axes."""
    if not axes:
        return Shares(1.0, 1.0)
    batch = [axis for axis, known in enumerate(table.axes) if known.batch]
    same, different = (float(table.weights @ part) for part in _met(table, axes, []))
    count = math.prod(table.sizes[axis] for axis in axes)
    one, other = (float(table.weights @ part) for part in _met(table, axes, batch)) if batch else (0.0, 0.0)
    apart = other + (one - other) / count
    varied = max(same - different, 0.0)
    shares = (min(varied / max(whole, 1e-300), 1.0) for whole in (same - max(apart, 0.0), same))
    return Shares(*shares)
