"""What a step of the unit-wise prediction sees of an op, and what it answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gradlint.graph import Graph, Op, Value
from gradlint.signal.patterns import Array
from gradlint.signal.spread import Spread
from gradlint.signal.units import Units
from gradlint.signal.weights import entries_of

LARGEST = 1 << 20  # entries of a weight that are followed one by one


class Beyond(Exception):  # noqa: N818 - not an error: the graph is not one that can be followed unit by unit
    """An op, a layout or a size that is not followed unit by unit."""


Back = Callable[[Spread], tuple[Mapping[int, Spread], Mapping[str, float]]]  # by value id, by parameter path


@dataclass(frozen=True, eq=False)
class Step:
    """The law of an op's output, and how its gradient goes back: Spread by value id, squares by parameter path."""

    output: Units
    back: Back


@dataclass(frozen=True, eq=False)
class Place:
    """One op with the laws of its inputs; `samples` is the size of the batch."""

    graph: Graph
    op: Op
    known: Mapping[int, Units]
    samples: int

    def value(self, role: str = "input") -> Value:
        """The operand in this role."""
        found = self.graph.operand(self.op, role)
        if found is None:
            raise Beyond(f"{self.op.kind} without {role}")
        return found

    def given(self, role: str) -> bool:
        """Whether the op has an operand in this role."""
        return self.graph.operand(self.op, role) is not None

    def units(self, role: str = "input") -> Units:
        """The law of the operand in this role."""
        found = self.known.get(self.value(role).id)
        if found is None:
            raise Beyond(f"{role} of {self.op.name}")
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the output."""
        return self.graph.values[self.op.outputs[0]].shape

    def number(self, name: str, default: float) -> float:
        """A numeric attribute."""
        value = self.op.attrs.get(name, default)
        return float(value) if isinstance(value, int | float) else default

    def each(self, name: str, count: int, default: int) -> list[int]:
        """An attribute of one number for every spatial axis."""
        value = self.op.attrs.get(name, default)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return [int(number) for number in value]
        return [int(self.number(name, default))] * count


def entries(place: Place, role: str, rank: int) -> Array:
    """The entries of a weight or bias."""
    value = place.value(role)
    param = place.graph.params.get(value.name) if value.origin == "param" else None
    if param is None or len(param.shape) != rank or math.prod(param.shape) > LARGEST:
        raise Beyond(f"the entries of {value.name or role}")
    found = entries_of(param)
    if found is None:
        raise Beyond(f"the entries of {value.name or role}")
    return found
