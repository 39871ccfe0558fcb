"""GL905: a softmax used as a hidden activation."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage

CARRIED = passage.SHAPING | {"pool", "norm", "activation", "resize", "pad", "concat"}
LOST = -0.5  # decades of gradient that the softmax must take: about log10 of the units it runs over


@rule(code="GL905", name="hidden-softmax", family="wiring", severity="warning", since="0.1.0")
def hidden_softmax(graph: Graph) -> Iterator[Draft]:
    """A softmax after one weight whose shares go into another as data, not as attention or gate."""
    for op in graph.ops:
        if op.kind != "softmax" or op.function != "softmax" or not graph.values[op.outputs[0]].requires_grad:
            continue
        layer = passage.producer(graph, op)
        nexts = list(passage.after(graph, op, CARRIED))
        if layer is None or passage.weight(graph, layer) is None or not nexts:
            continue
        if all(_is_layer(graph, found) and not _is_attention(graph, found) for found in nexts):
            units = _units(graph, op)
            yield Draft(
                message=f"softmax over {units} units as a hidden activation: 1/{units} each, the gradient too",
                op=op.index,
                ops=(op.index,),
                claim=Claim("gradient-change", (op.inputs[0], op.outputs[0]), LOST, "below"),
                predicted={"gradient-change": -math.log10(max(units, 1))},
            )


def _is_layer(graph: Graph, found: Op) -> bool:
    """Whether the op that reads the shares is a layer that multiplies them with a weight of its own."""
    weight = passage.weight(graph, found) if found.kind in ("linear", "conv") else None
    return weight is not None and weight.path not in _tables(graph)


def _tables(graph: Graph) -> set[str]:
    """The weights of embeddings: shares that multiply one mix its rows."""
    return {path for module in graph.modules if module.type == "Embedding" for path in module.params}


def _is_attention(graph: Graph, found: Op) -> bool:
    """Whether what the layer makes of the shares weighs other activations: talking heads mix heads, not units."""
    return any(reader.kind == "matmul" for reader in passage.after(graph, found, passage.SHAPING))


def _units(graph: Graph, op: Op) -> int:
    shape, dim = graph.values[op.outputs[0]].shape, op.attrs.get("dim")
    return shape[dim] if isinstance(dim, int) and shape else 1
