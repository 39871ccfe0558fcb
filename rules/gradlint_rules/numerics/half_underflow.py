"""GL808: gradients that a narrower number format rounds to 0."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement, Precision
from gradlint.rule import rule


@rule(
    code="GL808",
    name="half-underflow",
    family="numerics",
    severity="warning",
    since="0.1.0",
    options={"decades": -0.3},
)
def half_underflow(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Parameters whose gradient shrinks by `decades` or more in the format that `--dtype` names."""
    found = probe.precision
    lost = [] if found is None else [path for path, change in found.changes.items() if change < options["decades"]]
    if found is None or not lost:
        return
    worst = min(lost, key=lambda path: found.changes[path])
    readers = [op for op in graph.ops if set(op.params) & set(lost)]
    first = next((op for op in readers if worst in op.params), None)
    yield Draft(
        message=f"{len(lost)} of {len(found.changes)} parameters lose half of their gradient or more in {found.dtype}, "
        f"{worst} most; {_remedy(found, options['decades'])}",
        op=None if first is None else first.index,
        ops=tuple(op.index for op in readers),
        severity="info" if _saved(found, options["decades"]) else "warning",
        claim=Claim("format-change", (worst,), options["decades"], "below"),
        measured={"loss_scale": found.loss_scale, "lost_share": round(found.lost, 4)},
    )


def _saved(found: Precision, limit: float) -> bool:
    """Whether the loss scale that just fits keeps every gradient."""
    scaled = found.loss_scale is not None and found.scaled_overflow_op is None
    return scaled and not any(change < limit for change in found.changes_scaled.values())


def _remedy(found: Precision, limit: float) -> str:
    if found.loss_scale is None:
        return "no loss scale helps there"
    left = sum(change < limit for change in found.changes_scaled.values())
    scale = f"a loss scale of 2^{math.log2(found.loss_scale):.0f}"
    return f"{scale} leaves {left} of them" if left else f"{scale} saves them"
