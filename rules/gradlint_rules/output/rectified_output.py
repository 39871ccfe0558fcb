"""GL703: a rectifier on the last layer, which leaves half of the targets out of reach and can die for good."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage

AROUND = frozenset({"softmax", "activation"})  # a softmax or sigmoid on top of the rectifier is still the output


@rule(code="GL703", name="rectified-output", family="output", severity="warning", since="0.1.0")
def rectified_output(graph: Graph) -> Iterator[Draft]:
    """A rectifier between the last weight and the model's output."""
    value = passage.output(graph)
    op = None if value is None else passage.before(graph, value.id, scaled=True)
    if op is not None and op.kind in AROUND and not passage.is_rectifier(op):
        op = passage.producer(graph, op)
    if op is None or not passage.is_rectifier(op) or not _follows_weight(graph, op):
        return
    yield Draft(
        message=f"{op.function} on the output units: one that is off for every sample never gets a gradient again",
        op=op.index,
        ops=(op.index,),
        numbers={"dead-share": (op.index,)},
    )


def _follows_weight(graph: Graph, op: Op) -> bool:
    """Whether the rectifier reads a weighted layer: a norm or a sum of two branches in between keeps units from dying.

    A bias added by hand and a product with something fixed (a graph's adjacency) mix samples, not units.
    """
    layer = passage.producer(graph, op)
    while layer is not None and (source := _mixed(graph, layer)) is not None:
        layer = passage.before(graph, source)
    return layer is not None and layer.kind in ("linear", "conv") and passage.weight(graph, layer) is not None


def _mixed(graph: Graph, op: Op) -> int | None:
    """The one operand that a gradient flows back to, of a product with fixed numbers or a sum with a bias."""
    learned = [v for v in graph.data_inputs(op) if graph.values[v].requires_grad]
    fixed = op.kind == "matmul" or (op.kind == "add" and len(graph.data_inputs(op)) == 1)
    return learned[0] if fixed and len(learned) == 1 else None
