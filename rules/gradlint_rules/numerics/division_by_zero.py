"""GL803: a division by a number that is exactly 0 wherever the units behind it are off."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.ranges import ANY, ranges
from gradlint.rule import rule
from gradlint_rules import passage


@rule(code="GL803", name="division-by-zero", family="numerics", severity="warning", since="0.1.0")
def division_by_zero(graph: Graph) -> Iterator[Draft]:
    """Divisions whose denominator can be exactly 0."""
    known = ranges(graph)
    for op in graph.ops:
        value = _denominator(graph, op)
        if value is None or not graph.values[value].requires_grad:
            continue
        below = known.get(value, ANY)
        if (below.low == 0 and below.at_low) or (below.high == 0 and below.at_high):
            yield Draft(
                message="division by a number that is 0 wherever the units behind it are off",
                op=op.index,
                ops=(graph.values[value].producer or op.index, op.index),
                predicted={"least-entry": 0.0},
            )


def _denominator(graph: Graph, op: Op) -> int | None:
    """The value that the op divides by, or None when it divides by a number or not at all."""
    if op.kind == "elementwise" and op.function == "reciprocal":
        return passage.source(graph, op)
    if op.kind != "mul" or op.function != "div":
        return None
    other = graph.operand(op, "other")
    return None if other is None or other.origin != "op" else other.id
