"""GL103: a recurrent net without gates whose gradient does not reach the early steps of its sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.probe.health import SHORT, reached
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import recurrence


@rule(
    code="GL103",
    name="recurrent-vanishing",
    family="vanishing",
    severity="warning",
    since="0.1.0",
    options={"share": SHORT},
)
def recurrent_vanishing(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Recurrences of 16 steps or more of which a gradient that fades backwards reaches too small a share."""
    for found in recurrence.recurrences(graph, probe):
        share = reached(found.steps)
        if share >= options["share"] or found.grows:
            continue
        finite = [step for step in found.steps if math.isfinite(step)]
        yield Draft(
            message=f"the gradient reaches {round(share * len(found.steps))} of {len(found.steps)} time steps of the "
            f"{found.name}",
            op=found.ops[0],
            ops=found.ops,
            measured={"reached_share": share, "gradient-change": min(finite) - max(finite) if finite else 0.0},
            cause="recurrent-vanishing",
        )
