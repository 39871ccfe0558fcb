"""Sums divided by a sum with the same weights: (Σ w v)/(Σ w), as linear attention has them, found from the quotient."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.graph import Graph, Op

HOPS = 8
SAME_ENTRIES = frozenset({"reshape", "permute", "slice", "expand", "copy"})
PRODUCTS = frozenset({"matmul", "mul"})


def common_scale(graph: Graph, numerator: int, divisor: int) -> bool:
    """Whether both are products with one tensor, so that the quotient does not change with that tensor's scale.

    Katharopoulos et al. 2020, eq. 4: φ(q)ᵀ Σ φ(k) vᵀ over φ(q)ᵀ Σ φ(k).
    """
    first, second = (set(_factors(graph, value)) for value in (numerator, divisor))
    return bool(first & second)


def _factors(graph: Graph, value: int) -> Iterator[int]:
    """The values that a product behind a value is linear in; ε may have been added to it."""
    op = _behind(graph, value)
    if op is not None and op.kind == "reduce" and op.function == "sum":
        op = _behind(graph, op.inputs[0])
    if op is not None and op.kind in PRODUCTS and op.function != "div":
        for operand in op.inputs:
            yield _root(graph, operand)


def _behind(graph: Graph, value: int) -> Op | None:
    """The op that computed the entries of a value."""
    return graph.op_of(_root(graph, value))


def _root(graph: Graph, value: int) -> int:
    """The value whose entries these are, up to their order, and a number added to all."""
    for _ in range(HOPS):
        op = graph.op_of(value)
        if op is None or not op.inputs or not (_relabels(op) or _adds_number(op) or op.function == "clamp"):
            return value
        value = op.inputs[0]
    return value


def _relabels(op: Op) -> bool:
    return op.kind in SAME_ENTRIES and op.function != "gather"


def _adds_number(op: Op) -> bool:
    return op.kind == "add" and op.function == "add" and len(op.inputs) == 1
