"""The chain-rule product of a finding laid open: one row a layer, folded in the middle for deep chains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradlint.finding import Factor

MOST_ROWS = 6
ENDS = 2  # rows kept at either end when the middle is folded


@dataclass(frozen=True)
class Row:
    """The factors of one layer, in decades; `layers` > 1 for a row that stands for several."""

    module: str
    factors: tuple[tuple[str, float], ...]
    layers: int = 1

    @property
    def decades(self) -> float:
        """Their product."""
        return sum(decades for _, decades in self.factors)


@dataclass(frozen=True)
class Chain:
    """`head`, then `folded` layers whose products lie in `span` (decades), then `tail`; `total` is the product."""

    head: tuple[Row, ...]
    folded: int
    span: tuple[float, float]
    tail: tuple[Row, ...]
    total: Row


def chain(factors: Sequence[Factor]) -> Chain | None:
    """The product as rows, or None when there are no factors."""
    rows = layers(factors)
    if not rows:
        return None
    total = Row(_range(rows), _totals(factors), len(rows))
    if len(rows) <= MOST_ROWS:
        return Chain(tuple(rows), 0, (0.0, 0.0), (), total)
    middle = [row.decades for row in rows[ENDS:-ENDS]]
    return Chain(tuple(rows[:ENDS]), len(middle), (min(middle), max(middle)), tuple(rows[-ENDS:]), total)


def layers(factors: Iterable[Factor]) -> list[Row]:
    """A row begins where a label comes round again: σ′ W | σ′ W | …"""
    groups: list[list[Factor]] = []
    for factor in factors:
        if not groups or factor.label in {seen.label for seen in groups[-1]}:
            groups.append([])
        groups[-1].append(factor)
    return [Row(_name(group), tuple((f.label, f.decades) for f in group)) for group in groups]


def _name(group: Sequence[Factor]) -> str:
    """The module that holds the weight names the row, or else the first one."""
    return next((f.module for f in group if f.label == "W" and f.module), group[0].module) or "(root)"


def _totals(factors: Sequence[Factor]) -> tuple[tuple[str, float], ...]:
    totals: dict[str, float] = {}
    for factor in factors:
        totals[factor.label] = totals.get(factor.label, 0.0) + factor.decades
    return tuple(totals.items())


def _range(rows: Sequence[Row]) -> str:
    return rows[0].module if len(rows) == 1 else f"{rows[0].module} … {rows[-1].module}"
