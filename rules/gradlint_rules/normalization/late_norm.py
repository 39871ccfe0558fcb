"""GL404: a norm after the one activation that needed it before."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage


@rule(
    code="GL404",
    name="late-norm",
    family="normalization",
    severity="warning",
    since="0.1.0",
    options={"share": 0.5},
)
def late_norm(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Norms that read a bounded activation most of whose units sit at a bound, because no norm stands before it."""
    found = [op for op in graph.ops if _is_late(graph, op) and _stuck(graph, probe, op) > options["share"]]
    if not found:
        return
    worst = max(found, key=lambda op: _stuck(graph, probe, op))
    norms = [norm for op in found for norm in _norms(graph, op)]
    yield Draft(
        message=f"{_stuck(graph, probe, worst):.0%} of the units of this {worst.function} sit at a bound, and the norm "
        "comes after it: before it, it would keep them off",
        op=worst.index,
        ops=tuple(sorted({op.index for op in (*found, *norms)})),
        related=diagnosis.related(graph, [worst, *_norms(graph, worst)[:1]], "the norm"),
        claim=Claim("saturated-share", (worst.index,), options["share"], "above"),
    )


def _is_late(graph: Graph, op: Op) -> bool:
    """Whether a layer feeds the activation directly and a norm is what reads it."""
    if op.kind != "activation" or op.function not in diagnosis.SATURATING or not _norms(graph, op):
        return False
    layer = passage.layer(graph, op)
    return layer is not None and passage.weight(graph, layer) is not None


def _norms(graph: Graph, op: Op) -> list[Op]:
    return [reader for reader in passage.after(graph, op) if reader.kind == "norm"]


def _stuck(graph: Graph, probe: Measurement, op: Op) -> float:
    return QUANTITIES["saturated-share"].function(graph, probe, (op.index,)) or 0.0
