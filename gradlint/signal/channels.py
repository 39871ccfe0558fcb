"""Channels that differ: one class of moments for each, where the gains of a norm set them apart."""

from __future__ import annotations

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.patterns import Array
from gradlint.signal.table import Profile, Table
from gradlint.signal.weights import Vector

VARIED = 0.02  # relative variance of the channels' moments from which on they are told apart
LARGEST = 2048  # channels up to which each is a class of its own


def varied(levels: Array) -> bool:
    """Whether these numbers, one a channel, are far from equal."""
    level = float(levels.mean())
    return 1 < len(levels) <= LARGEST and float(levels.var()) > VARIED * level**2


def _crossed(levels: Array) -> Array:
    """Every number times the mean of the others."""
    crossed: Array = levels * (levels.sum() - levels) / max(len(levels) - 1, 1)
    return crossed


def apart(table: Table, axis: int) -> Table:
    """The table with a class for every index of the axis."""
    fine = Profile(axis, (1,) * table.sizes[axis])
    if table.profile is None:
        return Table(table.dims, np.repeat(table.values, table.sizes[axis], axis=0), fine)
    if table.profile.axis != axis:
        return apart(table.collapse(), axis)
    return Table(table.dims, table.values[tables.class_of(table.profile.counts, fine.counts)], fine)


def gained(table: Table, axis: int, gain: Array) -> Table:
    """Every channel times its own gain."""
    split = apart(table, axis)
    same, different = patterns.take(split.values, axis, 1), patterns.take(split.values, axis, 0)
    shape = (-1,) + (1,) * (same.ndim - 1)
    values = patterns.put(axis, same * (gain**2).reshape(shape), different * _crossed(gain).reshape(shape))
    return Table(split.dims, values, split.profile)


def shifted(table: Table, axis: int, shift: Array) -> Table:
    """Every channel of a table of classes by channel, of zero mean, plus its own number."""
    same, different = patterns.take(table.values, axis, 1), patterns.take(table.values, axis, 0)
    shape = (-1,) + (1,) * (same.ndim - 1)
    values = patterns.put(axis, same + (shift**2).reshape(shape), different + _crossed(shift).reshape(shape))
    return Table(table.dims, values, table.profile)


def gains_of(gain: Vector | None, size: int) -> Array | None:
    """The gains of a norm by channel, where they are known and vary."""
    if gain is None or gain.values is None or gain.uniform or len(gain.values) != size:
        return None
    if not varied(gain.values**2):
        return None
    return gain.values
