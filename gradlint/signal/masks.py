"""Attention masks: tensors without a gradient that are added to, or filled into, the logits of a softmax."""

from __future__ import annotations

from gradlint.graph import Graph, Value
from gradlint.graph.causality import causal as causal

PASSING = frozenset({"reshape", "permute", "copy", "expand", "dropout", "add", "mul", "slice"})
HOPS = 8  # ops between the mask and the softmax
ASSUMED = 0.08**2  # decades²: what a mask that hides some keys changes of a prediction without it


def masks_logits(graph: Graph, output: int) -> bool:
    """Whether a value is on its way to a softmax with nothing but layout changes and further masks in between."""
    for _ in range(HOPS):
        consumers = [graph.ops[index] for index in graph.values[output].consumers]
        forward = [op for op in consumers if op.kind not in ("compare", "create")]
        if any(op.kind == "softmax" for op in forward):
            return True
        if len(forward) != 1 or not _passes(forward[0].kind, forward[0].function):
            return False
        output = forward[0].outputs[0]
    return False


def _passes(kind: str, function: str) -> bool:
    return kind in PASSING or function in ("masked_fill", "where")


def constant(graph: Graph, value: Value) -> bool:
    """Whether a tensor carries no gradient."""
    return not value.requires_grad and value.origin in ("buffer", "constant", "op", "input")
