"""What is known of a weight or a vector parameter: sums over its axes, from the parameter's moments or from a field."""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.graph import HIDING, Param
from gradlint.graph.memo import remembered
from gradlint.signal import table as tables
from gradlint.signal.field import Field, from_sums
from gradlint.signal.patterns import Array

SMALL = 1 << 14  # entries up to which a weight's sums come with the entries themselves


@dataclass(frozen=True, eq=False)
class Weight:
    """A weight of shape (out, in, *taps) by its sums.

    `sums[S]` = Σ over the axes in S of (Σ over the others of W)², S as digits; `total` = ΣW. `rows` and `columns` map
    "sum" and "square" to one number per index of axis 0 and 1, `filters[S]` is `sums[S]` per index of axis 0; each
    may be missing.
    """

    shape: tuple[int, ...]
    sums: Mapping[str, float]
    total: float
    rows: Mapping[str, Array]
    columns: Mapping[str, Array]
    filters: Mapping[str, Array]
    values: Array | None = None

    @property
    def square(self) -> float:
        """ΣW²."""
        return self.sums["".join(map(str, range(len(self.shape))))]

    def transposed(self) -> Weight:
        """Axes 0 and 1 swapped."""
        order = [1, 0, *range(2, len(self.shape))]
        name = {str(old): str(new) for new, old in enumerate(order)}
        sums = {"".join(sorted(name[axis] for axis in kept)): value for kept, value in self.sums.items()}
        shape = tuple(self.shape[axis] for axis in order)
        values = None if self.values is None else np.swapaxes(self.values, 0, 1)
        return Weight(shape, sums, self.total, self.columns, self.rows, {}, values)


@dataclass(frozen=True)
class Vector:
    """A bias or a gain: its mean, mean square, mean product of two different entries, and its entries where known."""

    size: int
    mean: float
    square: float
    cross: float
    values: Array | None = None

    @property
    def uniform(self) -> bool:
        """Every entry is the same number."""
        return self.square - self.mean**2 <= 1e-12 * self.square


@remembered
def weight_of(param: Param) -> Weight | None:
    """The weight's sums from its moments, or from its mean and standard deviation alone; None when neither is known."""
    moments = param.moments
    if not param.finite:
        return None
    if "sums" not in moments:
        return _expected(param)
    return Weight(
        param.shape,
        numbers_of(moments["sums"]),
        float(moments["total"]),  # type: ignore[arg-type]
        _vectors(moments.get("rows")),
        _vectors(moments.get("columns")),
        _vectors(moments.get("filters")),
        entries_of(param) if math.prod(param.shape) <= SMALL else None,
    )


def entries_of(param: Param) -> Array | None:
    """The entries themselves, or None when they are not known or not finite."""
    values = param.moments.get("values")
    if not param.finite or not isinstance(values, str):
        return None
    return _decoded(values).reshape(param.shape)


def weight_from_field(field: Field) -> Weight:
    """The sums of a computed weight (standardised, reparametrised) from its second moments."""
    table = field.table.collapse()
    shape, sums = field.shape, {}
    for size in range(len(shape) + 1):
        for kept in itertools.combinations(range(len(shape)), size):
            rest = [dim for dim in range(len(shape)) if dim not in kept]
            summed = tables.total(table, rest)
            count = math.prod(shape[dim] for dim in kept)
            sums["".join(map(str, kept))] = summed.square * count
    return Weight(shape, sums, field.average * math.prod(shape), {}, {}, {})


@remembered
def vector_of(param: Param) -> Vector | None:
    """A parameter read as a flat vector."""
    weight = weight_of(param)
    if weight is None:
        return None
    size = math.prod(param.shape)
    square, mean = weight.square / size, weight.total / size
    cross = (weight.total**2 - weight.square) / (size * (size - 1)) if size > 1 else square
    return Vector(size, mean, square, cross, None if weight.values is None else weight.values.reshape(-1))


def field_of(param: Param) -> Field | None:
    """A parameter that is used as data (a position embedding, a class token): its exact table."""
    weight = weight_of(param)
    return None if weight is None else from_sums(param.shape, dict(weight.sums), weight.total)


def _expected(param: Param) -> Weight | None:
    """Sums expected of independent entries with the parameter's mean and standard deviation."""
    if param.mean is None or param.std is None:
        return None
    return expected_weight(param.shape, param.mean, param.std)


def expected_weight(shape: Sequence[int], mean: float, std: float) -> Weight:
    """Sums expected of independent entries: Σ over S of ((n m)² + n s²), n entries summed each."""
    count = math.prod(shape)
    sums = {}
    for size in range(len(shape) + 1):
        for kept in itertools.combinations(range(len(shape)), size):
            outside = math.prod(shape[axis] for axis in kept)
            inside = count // outside
            sums["".join(map(str, kept))] = outside * ((inside * mean) ** 2 + inside * std**2)
    values = np.full(tuple(shape), mean) if std == 0.0 and count <= 1 << 16 else None
    return Weight(tuple(shape), sums, count * mean, {}, {}, {}, values)


def numbers_of(mapping: object) -> dict[str, float]:
    """Sums by their axes."""
    assert isinstance(mapping, Mapping)
    return {str(key): float(value) for key, value in mapping.items()}


def _vectors(mapping: object) -> dict[str, Array]:
    if not isinstance(mapping, Mapping):
        return {}
    return {str(key): _decoded(value) for key, value in mapping.items()}


def _decoded(text: str) -> Array:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float64)


def stands_for_infinity(numbers: Param) -> bool:
    """Whether a softmax reads these numbers as minus infinity."""
    return not numbers.finite or ((numbers.abs_max or 0.0) >= HIDING and (numbers.mean or 0.0) < 0.0)
