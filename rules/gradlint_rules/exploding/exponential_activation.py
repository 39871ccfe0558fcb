"""GL202: an exponential as the activation between two layers."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.ranges import ANY, ranges
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

EXPONENTIALS = frozenset({"exp", "exp2", "expm1", "sinh", "cosh"})
LARGEST = 20.0  # an argument kept below this is a bounded kernel (e²⁰ = 5e8), not an activation that runs away


@rule(code="GL202", name="exponential-activation", family="exploding", severity="error", since="0.1.0")
def exponential_activation(graph: Graph) -> Iterator[Draft]:
    """Exponentials of a layer's unbounded output that go into another layer."""
    known = ranges(graph)
    found = []
    for op in graph.ops:
        value = passage.source(graph, op) if op.function in EXPONENTIALS else None
        if value is not None and known.get(value, ANY).high > LARGEST and _between_layers(graph, op):
            found.append(op)
    if found:
        yield Draft(
            message=f"{len(found)} {found[0].function} activation{'s' * (len(found) > 1)} between layers: "
            "what one layer adds, the next multiplies",
            op=found[0].index,
            module=diagnosis.common(found) or None,
            ops=tuple(op.index for op in found),
            related=diagnosis.related(graph, found, f"the last of {len(found)}"),
            numbers={"activation-change": (found[0].inputs[0], found[-1].outputs[0])},
            severity=None if len(found) > 1 else "warning",
        )


def _between_layers(graph: Graph, op: Op) -> bool:
    """Whether a weighted layer makes the argument and all that reads the result are weighted layers."""
    layer, readers = passage.producer(graph, op), list(passage.after(graph, op))
    if layer is None or passage.weight(graph, layer) is None or not readers:
        return False
    return all(passage.weight(graph, reader) is not None for reader in readers)
