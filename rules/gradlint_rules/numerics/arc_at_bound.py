"""GL807: an inverse sine, cosine or hyperbolic tangent of a number that reaches ±1."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.graph.ranges import ANY, Range, ranges
from gradlint.rule import rule
from gradlint_rules import passage

ARCS = frozenset({"acos", "asin", "atanh"})
NEAR = 1.0 - 1e-7  # the largest float32 below 1 is 1 - 6e-8


@rule(code="GL807", name="arc-at-bound", family="numerics", severity="warning", since="0.1.0")
def arc_at_bound(graph: Graph) -> Iterator[Draft]:
    """Arc functions whose argument is clamped to ±1, or not bounded at all."""
    known = ranges(graph)
    for op in graph.ops:
        value = passage.source(graph, op)
        if op.function not in ARCS or value is None or not graph.values[value].requires_grad:
            continue
        argument = known.get(value, ANY)
        if _clamped(argument):
            yield Draft(
                message=f"{op.function} of a number that is clamped to ±1, where its derivative is infinite",
                op=op.index,
                ops=(op.index,),
                predicted={"greatest-entry": argument.high},
            )
        elif argument.high > 1:
            yield Draft(
                message=f"{op.function} of a number that nothing keeps below 1",
                op=op.index,
                ops=(op.index,),
                claim=Claim("greatest-entry", (value,), NEAR, "above"),
                severity="error",
            )


def _clamped(argument: Range) -> bool:
    return (argument.high == 1 and argument.at_high) or (argument.low == -1 and argument.at_low)
