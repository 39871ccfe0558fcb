"""GL102: the probe finds weights that next to no gradient reaches."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import diagnosis


@rule(code="GL102", name="measured-vanishing", family="vanishing", severity="warning", since="0.1.0")
def measured_vanishing(graph: Graph, probe: Measurement) -> Iterator[Draft]:
    """The stretch on which the measured gradient is lost, whatever the cause."""
    found = diagnosis.diagnose(graph, probe, "vanishing")
    if found is None or found.health.m is None:
        return
    place = found.layers[0].op if found.layers else found.ops[0]
    yield Draft(
        message=f"the gradient that reaches {found.health.weakest} is {-found.health.m:.1f} decades below the weight; "
        f"{-found.decades:.1f} of them are lost over {len(found.ops)} operations",
        op=place.index,
        module=found.module,
        ops=found.indices,
        related=diagnosis.related(graph, found.ops, "the last operation of the stretch"),
        measured={"relative-gradient": found.health.m, "gradient-change": found.decades},
        severity=found.severity,
        factors=found.factors,
    )
