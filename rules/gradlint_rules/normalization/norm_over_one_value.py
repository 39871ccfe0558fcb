"""GL403: a norm over a single value, which is 0 whatever the value is."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.traversal import series_ops
from gradlint.rule import rule
from gradlint_rules import diagnosis

CENTRING = frozenset({"layer_norm", "group_norm", "instance_norm"})


@rule(code="GL403", name="norm-over-one-value", family="normalization", severity="error", since="0.1.0")
def norm_over_one_value(graph: Graph) -> Iterator[Draft]:
    """Layer, group and instance norms whose mean and variance are those of one entry."""
    found = [op for op in graph.ops if op.kind == "norm" and op.function in CENTRING and _group(graph, op) == 1]
    if not found:
        return
    first = found[0]
    crossed = set(series_ops(graph))
    yield Draft(
        message=f"{first.function} over 1 value subtracts the value from itself: its output is constant",
        op=first.index,
        ops=tuple(op.index for op in found),
        related=diagnosis.related(graph, found, f"the last of {len(found)}") if len(found) > 1 else (),
        severity="error" if any(op.index in crossed for op in found) else "info",  # beside a branch, only that is lost
        claim=Claim("gradient-change", (first.inputs[0], first.outputs[0]), -3.0, "below"),
        predicted={"values": 1},
    )


def _group(graph: Graph, op: Op) -> int:
    """How many values share one mean. An instance norm of running statistics does not count."""
    shape, axes = graph.values[op.outputs[0]].shape, op.attrs.get("axes")
    if not isinstance(axes, tuple) or op.attrs.get("batch_stats") is False:
        return 2
    groups = op.attrs.get("groups", 1)
    size = math.prod(shape[axis] for axis in axes if axis < len(shape))
    return size // (groups if isinstance(groups, int) else 1)
