"""GL503: skip connections whose identity path passes an activation or a dropout in every block."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph import traversal
from gradlint.graph.ir import Graph, Op
from gradlint.profile import Signal
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule
from gradlint_rules import diagnosis

BLOCKS = 4
LOST = -2.0  # decades over all blocks (gradlint.probe.health.DELTA)
FAR = -4.0


@rule(code="GL503", name="blocked-skip", family="architecture", severity="warning", since="0.1.0")
def blocked_skip(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Residual blocks in a row whose sum goes through a bounded activation or dropout that takes the gradient away."""
    sums = [graph.ops[merge.op] for merge in traversal.residuals(graph)]
    crossed = traversal.series_ops(graph)
    sums = [op for op in sums if op.index in set(crossed)]
    if len(sums) < BLOCKS:
        return
    trunk = [graph.ops[index] for index in crossed if sums[0].index <= index <= sums[-1].index]
    blocking = [op for op in trunk if _blocks(op)]
    ends = (sums[0].outputs[0], sums[-1].outputs[0])
    lost = QUANTITIES["gradient-change"].function(graph, signal, ends)
    if len(blocking) < BLOCKS or lost is None or lost > LOST:
        return
    yield Draft(
        message=f"{len(blocking)} skip connections pass a {blocking[0].function or blocking[0].kind}: the identity "
        f"that should keep the gradient loses {-lost:.1f} decades",
        op=blocking[0].index,
        module=diagnosis.common(blocking) or None,
        ops=tuple(op.index for op in trunk),
        related=diagnosis.related(graph, blocking, f"the last of {len(blocking)}"),
        claim=Claim("gradient-change", ends, LOST, "below"),
        severity="error" if lost < FAR else "warning",
        cause="saturating-chain",
    )


def _blocks(op: Op) -> bool:
    """Whether the op keeps part of the signal back wherever it stands on an identity path."""
    if op.kind == "activation":
        return op.function in diagnosis.SATURATING
    return op.kind == "softmax" or (op.kind == "dropout" and bool(op.attrs.get("training")) and op.attrs.get("p") != 0)
