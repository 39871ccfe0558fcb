"""GL907: an output that does not depend on the input."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.rule import rule
from gradlint_rules import passage


@rule(code="GL907", name="ignored-input", family="wiring", severity="error", since="0.1.0")
def ignored_input(graph: Graph) -> Iterator[Draft]:
    """A model with inputs of which none has any part in an output."""
    reached = set(graph.inputs)
    for op in graph.ops:
        if reached.intersection(op.inputs):
            reached.update(op.outputs)
    value = passage.output(graph)
    if not graph.inputs or value is None or not reached.isdisjoint(graph.outputs):
        return
    last = graph.op_of(value.id)
    yield Draft(
        message="the output does not depend on the input: no recorded operation leads from one to the other",
        op=None if last is None else last.index,
        ops=() if last is None else (last.index,),
        predicted={"inputs": len(graph.inputs)},
    )
