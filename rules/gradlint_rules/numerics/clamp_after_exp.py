"""GL804: an exponential that is bounded only after it has been taken."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.graph.ranges import ANY, ranges
from gradlint.rule import rule
from gradlint_rules import passage

LARGEST = 88.0  # exp overflows float32 above 88.7


@rule(code="GL804", name="clamp-after-exp", family="numerics", severity="warning", since="0.1.0")
def clamp_after_exp(graph: Graph) -> Iterator[Draft]:
    """A clamp that reads an exponential of an unbounded number: 0 · ∞ is NaN on the way back."""
    known = ranges(graph)
    for op in graph.ops:
        inner = passage.producer(graph, op, scaled=True) if op.function == "clamp" else None
        if inner is None or inner.function not in ("exp", "expm1") or not graph.values[op.outputs[0]].requires_grad:
            continue
        value = passage.source(graph, inner)
        if value is not None and known.get(value, ANY).high > LARGEST and isinstance(op.attrs.get("max"), int | float):
            yield Draft(
                message=f"{inner.function} is clamped after it was taken: once it overflows the gradient is NaN",
                op=op.index,
                ops=(inner.index, op.index),
                predicted={"greatest-entry": known.get(value, ANY).high},
            )
