"""Attention masks: tensors without a gradient that are added to, or filled into, the logits of a softmax."""

from __future__ import annotations

from gradlint.graph import Graph, Op, Value
from gradlint.graph.causality import causal as causal

PASSING = frozenset({"reshape", "permute", "copy", "expand", "dropout", "add", "mul", "slice", "concat"})
HOPS = 8  # ops between the mask and the softmax
ASSUMED = 0.08**2  # decades²: what a mask that hides some keys changes of a prediction without it


def masks_logits(graph: Graph, output: int) -> bool:
    """Whether all that is made of a value is on its way to a softmax, with layout changes and further masks between."""
    pending, met = [(output, 0)], False
    while pending:
        value, hops = pending.pop()
        consumers = [graph.ops[index] for index in graph.values[value].consumers]
        forward = [op for op in consumers if op.kind not in ("compare", "create", "reduce") and _reads(op, value)]
        met = met or any(_hiding(op, value) for op in forward)
        further = [op for op in forward if not _hiding(op, value)]
        if hops == HOPS or not forward or not all(_passes(op.kind, op.function) for op in further):
            return False
        pending += [(op.outputs[0], hops + 1) for op in further]
    return met


def _hiding(op: Op, value: int) -> bool:
    """Whether a softmax reads the value."""
    masked = op.kind == "attention" and dict(zip(op.roles, op.inputs, strict=True)).get("mask") == value
    return op.kind == "softmax" or masked


def _reads(op: Op, value: int) -> bool:
    """Whether the op takes the numbers of a value: `type_as` reads only the type of its second operand."""
    return op.kind != "copy" or op.inputs[0] == value


def _passes(kind: str, function: str) -> bool:
    return kind in PASSING or function in ("masked_fill", "where")


def constant(graph: Graph, value: Value) -> bool:
    """Whether a tensor carries no gradient."""
    return not value.requires_grad and value.origin in ("buffer", "constant", "op", "input")
