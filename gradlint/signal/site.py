"""What a transfer function sees of one op, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.graph import Graph, Op, Param, Value
from gradlint.graph.memo import remembered
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.table import Table
from gradlint.signal.weights import (
    Vector,
    Weight,
    field_of,
    stands_for_infinity,
    vector_of,
    weight_from_field,
    weight_of,
)

FEW = 4  # rows of a table of token types: computed indices into it are all the same


class Unanswered(Exception):  # noqa: N818 - not an error: the op's outcome is unknown, and the reason says why
    """No transfer function answers for this op; the message says why."""


class Dependent(Unanswered):
    """The op could be answered if one of its inputs were known."""


@dataclass(frozen=True)
class Square:
    """E[g²] of a parameter's gradient, and the sum of the magnitudes of the terms that it was added up from.

    `count` is how many entries make up E[g²] where they are of very different sizes, (Σ E[g²])²/Σ E[g²]².
    """

    value: float
    magnitude: float
    count: float = math.inf


Contribution = Cotangent | Square
Contributions = Mapping[int, Contribution]  # by value id
Backward = Callable[[Sequence[Cotangent | None]], Contributions]


def credit(found: dict[int, Contribution], value: int, into: Cotangent) -> None:
    """Add what reaches a value to what has reached it from the same op: a tensor may be several of its operands."""
    known = found.get(value)
    found[value] = into if not isinstance(known, Cotangent) else known + into


@dataclass(frozen=True)
class Flow:
    """The fields of an op's outputs, and how cotangents at the outputs become cotangents at the inputs."""

    outputs: tuple[Field | None, ...]
    backward: Backward
    doubt: float = 0.0  # decades² that an assumption adds to what may be off
    returned: float = 0.0  # the same for the gradients that come back


@dataclass(frozen=True, eq=False)
class Labels:
    """An integer tensor: 1 in its table where two entries are surely equal; `random` draws may also meet by chance."""

    field: Field
    random: bool


@dataclass(frozen=True, eq=False)
class Site:
    """One op with the fields of its inputs."""

    graph: Graph
    op: Op
    fields: Mapping[int, Field]
    indices: Mapping[int, Labels]

    def value(self, role: str) -> Value | None:
        """The operand in this role."""
        return self.graph.operand(self.op, role)

    def id(self, role: str) -> int:
        """The id of the operand in this role."""
        value = self.value(role)
        if value is None:
            raise Unanswered(f"{self.op.kind} without {role}")
        return value.id

    def known(self, value: int) -> Field:
        """The field of a value; parameters that are used as data get their exact table."""
        found, given = self.fields.get(value), self.graph.values[value]
        if found is None and is_complex(given) and given.origin == "param":
            raise Unanswered("a parameter of complex numbers")
        if found is None and not is_complex(given):
            param = self._param(value) or self.seen(value)
            found = None if param is None else shaped(field_of(param), given.shape)
        if found is None:
            raise Dependent(f"input {given.name or value} is unknown")
        return found

    def field(self, role: str = "input") -> Field:
        """The field of the operand in this role."""
        return self.known(self.id(role))

    def has(self, role: str) -> bool:
        """Whether the op takes an operand in this role."""
        return self.value(role) is not None

    def _param(self, value: int) -> Param | None:
        """The statistics of a parameter, or of a tensor that was there and is used as one."""
        found = self.graph.values[value]
        if found.origin == "param":
            return self.graph.params.get(found.name)
        fixed = self.graph.fixed.get(value)
        known = fixed is not None and fixed.numbers.shape == found.shape and "total" in fixed.numbers.moments
        return fixed.numbers if fixed is not None and known else None

    def seen(self, value: int) -> Param | None:
        """Data as it was in the recorded run; a truth value counts as 0 or 1, and what hides logits is no number."""
        numbers = self.graph.seen.get(value)
        known = numbers is not None and "total" in numbers.moments
        return numbers if known and numbers is not None and not stands_for_infinity(numbers) else None

    def direct(self, role: str) -> bool:
        """Whether the operand is a parameter itself rather than computed."""
        value = self.value(role)
        return value is not None and value.origin == "param"

    def weight(self, role: str = "weight") -> Weight:
        """The sums of the weight in this role, be it a parameter or computed."""
        value = self.id(role)
        param = self._param(value)
        if param is None:
            return weight_from_field(self.known(value))
        found = weight_of(param)
        if found is None:
            raise Dependent(f"no statistics of {param.path}")
        return found

    def vector(self, role: str) -> Vector | None:
        """The statistics of a bias or gain, or None when the op has none."""
        value = self.value(role)
        if value is None:
            return None
        param = self._param(value.id)
        found = vector_of(param) if param is not None else _vector_of_field(self.known(value.id))
        if found is None:
            raise Dependent(f"no statistics of {value.name}")
        return found

    def labels(self, role: str, rows: int) -> Table:
        """Probability that two indices are equal, for indices below `rows`."""
        found = self.indices.get(self.id(role))
        if found is None:
            raise Dependent("the indices are not known")
        table = found.field.table
        if rows <= FEW and self.graph.values[self.id(role)].origin != "input":
            return table.with_values(np.ones_like(table.values))
        if not found.random:
            return table
        return table.with_values(table.values + (1.0 - table.values) / rows)

    def shape(self, output: int = 0) -> tuple[int, ...]:
        """The shape of an output."""
        return self.graph.values[self.op.outputs[output]].shape

    def number(self, name: str, default: float) -> float:
        """A numeric attribute."""
        value = self.op.attrs.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    def integers(self, name: str, count: int, default: int) -> list[int]:
        """An attribute that gives one integer, or one for every spatial axis."""
        value = self.op.attrs.get(name, default)
        if isinstance(value, int):
            return [value] * count
        if isinstance(value, Sequence) and not isinstance(value, str) and value:
            given = [int(entry) for entry in value]
            return given * count if len(given) == 1 else given
        return [default] * count


def is_complex(value: Value) -> bool:
    """Whether a tensor's numbers are complex."""
    return value.dtype.startswith("complex")


@remembered
def complex_values(graph: Graph) -> frozenset[int]:
    """The ids of all tensors whose numbers are complex."""
    return frozenset(value.id for value in graph.values if is_complex(value))


def entries(value: Value) -> tuple[int, ...]:
    """The shape of a tensor's field: complex numbers are pairs (Re, Im) along a last dimension."""
    return (*value.shape, 2) if is_complex(value) else value.shape


def shaped(field: Field | None, shape: tuple[int, ...]) -> Field | None:
    """The field in a value's own shape: axes of length 1 may have been left out."""
    return field if field is None or field.shape == shape else Field(tables.reshape(field.table, shape), field.mean)


def _vector_of_field(field: Field) -> Vector:
    table = field.table.collapse()
    size = max(1, round(_count(field)))
    cross = float(table.values.reshape(-1)[0]) if table.values.size > 1 else table.square
    return Vector(size, field.average, table.square, cross)


def _count(field: Field) -> float:
    count = 1.0
    for size in field.shape:
        count *= size
    return count


def relabelling(site: Site, forward: Callable[[Field], Field], back: Callable[[Cotangent, Field], Cotangent]) -> Flow:
    """The flow of an op that moves or drops entries of its first operand without new values."""
    source = site.id("input")
    field = site.known(source)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else {source: back(cotangent, field)}

    return Flow((forward(field),), backward)
