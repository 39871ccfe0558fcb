"""Residual branches of a graph: the last weight of each one, which is what residual initialisations scale."""

from __future__ import annotations

from collections.abc import Mapping

from gradlint.fix.stretch import BLOCK, SHAPING, operands, weight_of
from gradlint.graph.ir import Graph, Op, Param


def branch_ends(graph: Graph) -> tuple[Param, ...]:
    """The last parameter of every residual branch: the gain of its last norm, or its last weight; one an addition.

    A branch is the operand of an addition that depends on the other operand, the skip. With a projection on the skip
    the two have an ancestor in common and the longer one is the branch.
    """
    ancestors = ancestors_of(graph)
    ends = (_branch(graph, op, ancestors) for op in graph.ops if op.kind == "add")
    found = (_last_param(graph, end) for end in ends if end is not None)
    return tuple({param.path: param for param in found if param is not None}.values())


def ancestors_of(graph: Graph) -> dict[int, int]:
    """For every activation the set of values that it depends on, itself included, as bits of an integer: 1 << value."""
    found = {value: 1 << value for value in graph.inputs}
    for op in graph.ops:
        bits = 0
        for value in operands(graph, op):
            bits |= found[value]
        for value in op.outputs:
            found[value] = bits | 1 << value
    return found


def _branch(graph: Graph, add: Op, ancestors: Mapping[int, int]) -> int | None:
    """The value that the branch of this addition ends in."""
    ends = operands(graph, add)
    if len(ends) != 2 or ends[0] == ends[1]:
        return None
    left, right = ends
    if ancestors[right] >> left & 1:
        return right
    if ancestors[left] >> right & 1:
        return left
    if not ancestors[left] & ancestors[right]:
        return None
    return max(ends, key=lambda end: _weights(graph, ancestors[end]))


def _weights(graph: Graph, bits: int) -> int:
    """How many weighted ops produced values of the set."""
    return sum(1 for op in graph.ops if weight_of(graph, op) is not None and bits >> op.outputs[0] & 1)


def _last_param(graph: Graph, end: int) -> Param | None:
    """The weight or norm gain nearest the branch's end, walking back in single file."""
    op = graph.op_of(end)
    while op is not None:
        param = graph.param(op) if op.kind == "norm" else weight_of(graph, op)
        if param is not None:
            return param
        inputs = operands(graph, op)
        passes = op.kind in BLOCK | SHAPING or (op.kind == "mul" and len(inputs) == 1)  # a layer scale
        op = graph.op_of(inputs[0]) if inputs and passes else None
    return None
