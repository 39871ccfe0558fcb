"""The operands of a product that is summed over shared indices, and its indices as letters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradlint.signal import table as tables
from gradlint.signal.field import Field
from gradlint.signal.site import Unanswered
from gradlint.signal.table import Axis


@dataclass(frozen=True, eq=False)
class Factor:
    """One operand: its value, its field and a letter for each of its dimensions."""

    value: int
    field: Field
    letters: str


@dataclass(frozen=True, eq=False)
class Letters:
    """The letters of a product in order – those of the result, then those summed over – with their atomic axes."""

    order: str
    result: str
    axes: Mapping[str, tuple[Axis, ...]]

    @property
    def summed(self) -> str:
        """The letters that the result lacks."""
        return "".join(c for c in self.order if c not in self.result)

    def at(self, letters: str) -> list[int]:
        """Positions of the axes of some letters, in the order of all."""
        starts = dict(
            zip(self.order, itertools.accumulate((len(self.axes[c]) for c in self.order), initial=0), strict=False)
        )
        return [starts[c] + i for c in letters for i in range(len(self.axes[c]))]

    @property
    def sizes(self) -> list[int]:
        """Sizes of all axes."""
        return [axis.size for c in self.order for axis in self.axes[c]]

    def size(self, letters: str) -> int:
        """Number of index values that some letters run over."""
        return math.prod(axis.size for c in letters for axis in self.axes[c])


def lettered(factors: Sequence[Factor], result: str) -> Letters:
    """The letters of all operands. Raises Unanswered for an operand with a diagonal."""
    order = "".join(dict.fromkeys(result + "".join(factor.letters for factor in factors)))
    axes: dict[str, tuple[Axis, ...]] = dict.fromkeys(order, ())
    for factor in factors:
        if len(set(factor.letters)) < len(factor.letters):
            raise Unanswered("a diagonal")
        for letter, own in zip(factor.letters, factor.field.dims, strict=True):
            axes[letter] = tables.refine(axes[letter], own) if axes[letter] and own else axes[letter] or own
    return Letters(order, result, axes)
