"""GL102: the probe finds weights that next to no gradient reaches."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import diagnosis


@rule(code="GL102", name="measured-vanishing", family="vanishing", severity="warning", since="0.1.0")
def measured_vanishing(graph: Graph, probe: Measurement) -> Iterator[Draft]:
    """The stretch on which the measured gradient is lost, whatever the cause."""
    found = diagnosis.diagnose(graph, probe, "vanishing")
    if found is None or found.health.m is None:
        return
    yield Draft(
        message=_message(found, found.health.m),
        op=found.costliest.index,
        module=found.module,
        ops=found.indices,
        related=diagnosis.related(graph, found.ops, "the last operation of the stretch"),
        measured={"relative-gradient": found.health.m, "gradient-change": found.decades},
        severity=found.severity,
        factors=found.factors,
    )


def _message(found: diagnosis.Diagnosis, m: float) -> str:
    weakest = found.health.weakest
    if not math.isfinite(m):
        return f"no gradient at all reaches {weakest}: none gets past {_name(found.costliest)}"
    over = f"over {len(found.ops)} operation{'s' * (len(found.ops) > 1)}"
    return f"the gradient of {weakest} is {-m:.1f} decades below the weight: {-found.decades:.1f} are lost {over}"


def _name(op: Op) -> str:
    name = op.function or op.kind
    return f"{name} in {op.module_path}" if op.module_path else name
