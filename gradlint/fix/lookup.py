"""Rows of a table that an argmax chooses: a choice passes no gradient to the scores, a mixture does."""

from __future__ import annotations

from collections.abc import Iterable

from gradlint.fix.candidate import Soften
from gradlint.graph.ir import Graph, Op


def softenings(graph: Graph, ops: Iterable[int]) -> tuple[Soften, ...]:
    """The steps for those of the ops that are an argmax along the last axis, whose index an embedding alone reads.

    None where one of them is read otherwise, or the table has another number of rows than there are scores.
    """
    chosen = [op for index in ops if (op := graph.ops[index]).function == "argmax"]
    found = [_softened(graph, op) for op in chosen]
    return tuple(step for step in found if step is not None) if all(found) else ()


def _softened(graph: Graph, op: Op) -> Soften | None:
    readers = graph.values[op.outputs[0]].consumers
    lookup = graph.ops[readers[0]] if len(readers) == 1 else None
    if lookup is None or lookup.kind != "embedding" or not op.inputs:
        return None
    scores, made = graph.values[op.inputs[0]].shape, graph.values[lookup.outputs[0]].shape
    dim = op.attrs.get("dim")
    last = isinstance(dim, int) and dim in (-1, len(scores) - 1)
    table = graph.param(lookup)
    fits = table is not None and table.shape[0] == scores[-1] and made == (*scores[:-1], table.shape[1])
    return Soften(op.index, lookup.index) if last and fits else None
