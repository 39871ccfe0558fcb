"""Attention masks: tensors without a gradient that are added to, or filled into, the logits of a softmax."""

from __future__ import annotations

from gradlint.graph import Graph, Value

PASSING = frozenset({"reshape", "permute", "copy", "expand", "dropout", "add", "mul", "slice"})
ORDERED = frozenset({"tril", "triu"})
COMPARED = frozenset({"le", "ge", "lt", "gt"})
HOPS = 8  # ops between the mask and the softmax
ANCESTORS = 64
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


def causal(graph: Graph, mask: int) -> bool:
    """Whether a mask hides later positions: cut from a triangle, or from comparing two ranges of positions."""
    pending, seen = [mask], set[int]()
    while pending and len(seen) < ANCESTORS:
        number = pending.pop()
        if number in seen:
            continue
        seen.add(number)
        value = graph.values[number]
        if value.origin == "buffer" and _square(value) and value.dtype in ("bool", "uint8"):
            return True
        op = graph.op_of(number)
        if op is None:
            continue
        if op.function in ORDERED or (op.function in COMPARED and _ranges(graph, op.inputs) >= 2):
            return True
        pending.extend(op.inputs)
    return False


def _square(value: Value) -> bool:
    return len(value.shape) >= 2 and value.shape[-1] == value.shape[-2] > 1


def _ranges(graph: Graph, values: tuple[int, ...]) -> int:
    """How many of the values come from a range of positions."""
    return sum(_range(graph, value) for value in values)


def _range(graph: Graph, value: int) -> bool:
    for _ in range(HOPS):
        op = graph.op_of(value)
        if op is None:
            return False
        if op.function in ("arange", "cumsum"):
            return True
        if not op.inputs:
            return False
        value = op.inputs[0]
    return False
