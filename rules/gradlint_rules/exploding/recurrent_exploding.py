"""GL203: a recurrent net whose gradient grows from step to step on the way back."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import recurrence


@rule(
    code="GL203",
    name="recurrent-exploding",
    family="exploding",
    severity="warning",
    since="0.1.0",
    options={"decades": 3.0},
)
def recurrent_exploding(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Recurrences of 32 steps or more whose early steps get a far larger gradient than the late ones."""
    for found in recurrence.recurrences(graph, probe):
        growth = found.steps[0] - found.steps[-1]
        if not found.grows or growth < options["decades"]:
            continue
        yield Draft(
            message=f"the gradient grows by {growth:.1f} decades over {len(found.steps)} steps of the {found.name}",
            op=found.ops[0],
            ops=found.ops,
            measured={"gradient-change": growth},
        )
