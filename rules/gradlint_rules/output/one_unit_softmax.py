"""GL701: a softmax over a single unit, which is 1 whatever the unit says."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage


@rule(code="GL701", name="one-unit-softmax", family="output", severity="error", since="0.1.0")
def one_unit_softmax(graph: Graph) -> Iterator[Draft]:
    """A softmax along the unit axis of a layer that has one unit."""
    for op in graph.ops:
        if op.kind != "softmax" or not graph.values[op.outputs[0]].requires_grad:
            continue
        layer = passage.producer(graph, op, passage.KEEPING)
        if layer is None or passage.features(graph, layer) != 1 or not _along_units(graph, op, layer):
            continue
        yield Draft(
            message=f"{op.function} over the 1 unit of {layer.module_path or 'the layer before it'} is constant",
            op=op.index,
            ops=(layer.index, op.index),
            claim=Claim("gradient-change", (op.inputs[0], op.outputs[0]), -6.0, "below"),
            cause="one-unit-softmax",
        )


def _along_units(graph: Graph, op: Op, layer: Op) -> bool:
    """Whether the softmax runs along the axis that the layer's units lie on."""
    rank = len(graph.values[op.outputs[0]].shape)
    dim = op.attrs.get("dim")
    axis = (1 if rank > 2 else 0) if layer.kind == "conv" else rank - 1
    return isinstance(dim, int) and dim % rank == axis
