"""GL405: a batch norm whose statistics come from so few values that they are noise."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule


@rule(
    code="GL405",
    name="small-norm-batch",
    family="normalization",
    severity="info",
    since="0.1.0",
    options={"values": 2},
)
def small_norm_batch(graph: Graph, options: dict[str, int]) -> Iterator[Draft]:
    """Batch norms over vectors or 1 × 1 maps in a batch of at most `values` samples."""
    found = [op for op in graph.ops if op.kind == "norm" and op.function == "batch_norm" and _is_training(op)]
    small = [op for op in found if 1 < _count(graph, op) <= options["values"]]
    if not small:
        return
    worst = min(small, key=lambda op: _count(graph, op))
    count = _count(graph, worst)
    effect = "each of the two becomes ±1 whatever it was, and no gradient passes" if count == 2 else "that is noise"
    yield Draft(
        message=f"the statistics of {len(small)} batch norm{'s' * (len(small) > 1)} come from {count} values a channel "
        f"in this batch: {effect}",
        op=worst.index,
        ops=tuple(op.index for op in small),
        predicted={"values": count},
    )


def _is_training(op: Op) -> bool:
    return bool(op.attrs.get("batch_stats", True))


def _count(graph: Graph, op: Op) -> int:
    """Values a channel: samples times positions."""
    shape = graph.values[op.outputs[0]].shape
    return math.prod(shape) // shape[1] if len(shape) > 1 and shape[1] else 0
