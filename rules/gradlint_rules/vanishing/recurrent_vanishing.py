"""GL103: a recurrent net without gates whose gradient does not reach the early steps of its sequence."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.probe.health import GATED, SHORT, reaches
from gradlint.profile import Measurement
from gradlint.rule import rule


@rule(
    code="GL103",
    name="recurrent-vanishing",
    family="vanishing",
    severity="warning",
    since="0.1.0",
    options={"share": SHORT},
)
def recurrent_vanishing(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Recurrent ops of 32 steps or more of which the gradient reaches fewer than the given share."""
    for index, share in reaches(graph, probe).items():
        op, steps = graph.ops[index], probe.through_time[index]
        if share >= options["share"] or op.function in GATED:
            continue
        finite = [step for step in steps if step > -float("inf")]
        yield Draft(
            message=f"the gradient reaches {round(share * len(steps))} of {len(steps)} time steps of the {op.function}",
            op=index,
            ops=(index,),
            measured={"reached_share": share, "gradient-change": min(finite) - max(finite) if finite else 0.0},
            cause="recurrent-vanishing",
        )
