"""Inputs that mix or weigh what the layers made of other inputs, and carry no signal: an adjacency, a mask, a style."""

from __future__ import annotations

from collections.abc import Mapping

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered

PRODUCTS = frozenset({"mul", "matmul"})


@remembered
def mixing(graph: Graph) -> frozenset[int]:
    """The graph's inputs that only ever multiply, and at least once what weights made of something else.

    A way from such an input to the output says nothing of the layers before the last product: in A·σ(A·X·W₁)·W₂ the
    adjacency A meets the output past W₂ alone, and the signal X past both. What is computed from the input alone (a
    normalised adjacency) counts as the input.
    """
    behind = _behind(graph)
    return frozenset(value for value in graph.inputs if _only_multiplies(graph, 1 << value, behind))


def _behind(graph: Graph) -> Mapping[int, int]:
    """Per value the inputs and embeddings that it depends on, as bits: an embedding counts by its output's number."""
    known = {value: 1 << value for value in graph.inputs}
    for op in graph.ops:
        sources = 0
        for value in op.inputs:
            sources |= known.get(value, 0)
        known |= {value: 1 << value if op.kind == "embedding" else sources for value in op.outputs}
    return known


def _only_multiplies(graph: Graph, source: int, behind: Mapping[int, int]) -> bool:
    met = False
    for op in graph.ops:
        mine = [v for v in op.inputs if behind.get(v, 0) == source]
        if not mine or op.kind == "compare" or _alone(graph, op, source, behind):
            continue
        others = [v for v in graph.data_inputs(op) if behind.get(v, 0) & ~source]
        if op.kind not in PRODUCTS or not others:
            return False
        met = met or any(graph.values[v].requires_grad for v in others)
    return met


def _alone(graph: Graph, op: Op, source: int, behind: Mapping[int, int]) -> bool:
    """Whether the op computes something from the input and from fixed numbers."""
    return not op.params and all(
        behind.get(v, 0) in (0, source) and not graph.values[v].requires_grad for v in op.inputs
    )
