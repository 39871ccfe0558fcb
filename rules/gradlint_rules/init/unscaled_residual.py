"""GL305: residual branches that are added at full size, block after block."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph import traversal
from gradlint.graph.ir import Graph
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis

BLOCKS = 4
SHARE = 0.5  # of the decades gained that lie between the first and the last addition
KEPT = 0.5  # decades that a signal may gain over all blocks and count as kept: a factor of 3


@rule(code="GL305", name="unscaled-residual", family="init", severity="warning", since="0.1.0")
def unscaled_residual(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Residual branches without a norm whose sum grows with every block until the output or the gradient explodes."""
    found = diagnosis.diagnose(graph, signal, "exploding", "blow-up")
    if found is None:
        return
    skips = [m for m in traversal.residuals(graph) if found.ops[0].index <= m.op <= found.ops[-1].index]
    inside = {op for merge in skips for op in traversal.between(graph, merge)} | {merge.op for merge in skips}
    normed = [op for op in inside if graph.ops[op].kind == "norm"]
    gained = found.cost(graph.ops[op] for op in inside)
    if len(skips) < BLOCKS or normed or abs(gained) < SHARE * abs(found.decades):
        return
    ops = [graph.ops[merge.op] for merge in skips]
    yield Draft(
        message=_message(len(skips), abs(gained)),
        op=ops[0].index,
        module=diagnosis.common(ops) or None,
        ops=found.indices,
        related=diagnosis.related(graph, ops, f"the last of {len(ops)}"),
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
        cause="exploding",
    )


def _message(branches: int, gained: float) -> str:
    """What is wrong: that branches are not scaled by 1/√L, or, where that would not help, the size of their weights.

    A sum x + b(x) grows by √(1 + g²) when the branch multiplies the signal by g, and by √(1 + g²/L) when it is scaled.
    """
    growth = 10 ** (gained / branches)
    scaled = branches / 2 * math.log10(1 + (growth**2 - 1) / branches)
    if scaled <= KEPT:
        return (
            f"{branches} residual branches are added at full size: {gained:.1f} decades in all; scaled by "
            f"1/√{branches}, or started at 0, they would keep the signal"
        )
    return (
        f"{branches} residual branches start too large: each makes its sum {growth:.2g} times what it adds to, "
        f"{gained:.1f} decades in all"
    )
