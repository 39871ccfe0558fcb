"""GL502: many layers with batch normalisation and no skip, whose gradient grows by a factor per layer."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.traversal import series_ops
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

NORMS = 12  # 1.22^12 is 1.0 decades
GROWTH = 2.0  # decades at which 8 of 18 nets of the study fail with Adam (research/signal.md §5)
FAR = 4.0


@rule(code="GL502", name="batchnorm-chain", family="architecture", severity="warning", since="0.1.0")
def batchnorm_chain(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """A chain of weights and batch norms that every path crosses, over which the gradient grows towards the input."""
    crossed = [graph.ops[index] for index in series_ops(graph)]
    norms = [op for op in crossed if _is_batch_norm(op)]
    joins = [op for op in crossed if op.kind in ("add", "concat") and len(set(graph.data_inputs(op))) > 1]
    if len(norms) < NORMS or any(norms[0].index < op.index < norms[-1].index for op in joins):
        return
    first, last = norms[0].outputs[0], norms[-1].outputs[0]
    grown = _grown(signal, first, last)
    if grown is None or grown < GROWTH:
        return
    weighted = [op for op in crossed if op.index in passage.weights(graph)]
    yield Draft(
        message=f"{len(norms)} batch norms in a row without a skip connection: the gradient grows {grown:.1f} decades "
        f"towards the input, {10 ** (grown / (len(norms) - 1)):.2f} times per layer",
        op=norms[0].index,
        module=diagnosis.common(norms) or None,
        ops=tuple(sorted({op.index for op in (*norms, *weighted)})),
        related=diagnosis.related(graph, norms, f"the last of {len(norms)}"),
        claim=Claim("gradient-change", (first, last), GROWTH, "above"),
        severity="error" if grown > FAR else "warning",
        cause="missing-skip",
    )


def _is_batch_norm(op: Op) -> bool:
    return op.kind == "norm" and op.function == "batch_norm" and bool(op.attrs.get("batch_stats", True))


def _grown(signal: Signal, first: int, last: int) -> float | None:
    sizes = signal.profile.gradient
    return sizes[first] - sizes[last] if first in sizes and last in sizes else None
