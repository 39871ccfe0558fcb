"""GL407: dropout whose change of variance the running statistics of a batch norm take for the signal's own."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

CARRYING = passage.SHAPING | {"linear", "conv", "pool", "activation"} - {"dropout"}


@rule(
    code="GL407",
    name="dropout-before-norm",
    family="normalization",
    severity="info",
    since="0.1.0",
    options={"p": 0.2},
)
def dropout_before_norm(graph: Graph, options: dict[str, float]) -> Iterator[Draft]:
    """Dropouts of `p` or more before a batch norm, which in evaluation sees signals without the dropout's variance."""
    found = [op for op in graph.ops if op.kind == "dropout" and _rate(op) >= options["p"] and _meets_norm(graph, op)]
    if not found:
        return
    worst = max(found, key=_rate)
    yield Draft(
        message=f"{len(found)} dropout{'s' * (len(found) > 1)} before a batch norm: with p = {_rate(worst):g} training "
        f"has up to {1 / (1 - _rate(worst)):.2g} times the variance that evaluation has",
        op=worst.index,
        module=diagnosis.common(found) or None,
        ops=tuple(op.index for op in found),
        predicted={"variance_ratio": round(1 / (1 - _rate(worst)), 3)},
    )


def _rate(op: Op) -> float:
    rate = op.attrs.get("p", 0.0)
    return float(rate) if isinstance(rate, int | float) and op.attrs.get("training") and rate < 1 else 0.0


def _meets_norm(graph: Graph, op: Op) -> bool:
    return any(
        reader.kind == "norm" and reader.function == "batch_norm" and bool(reader.attrs.get("batch_stats", True))
        for reader in passage.after(graph, op, CARRYING)
    )
