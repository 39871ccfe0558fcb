"""GL104: an LSTM that forgets half of its state at every step of a long sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.probe.health import reached
from gradlint.profile import Measurement
from gradlint.rule import rule


@rule(
    code="GL104",
    name="closed-forget-gate",
    family="vanishing",
    severity="info",
    since="0.1.0",
    options={"steps": 64, "share": 0.25},
)
def closed_forget_gate(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """LSTMs over `steps` or more whose gradient reaches less than `share` of them, as it fades with every gate."""
    for index, steps in probe.through_time.items():
        op = graph.ops[index]
        share = reached(steps)
        if op.function != "lstm" or len(steps) < options["steps"] or share >= options["share"]:
            continue
        finite = [step for step in steps if math.isfinite(step)]
        if not finite or max(finite[: len(finite) // 4]) >= max(finite[-len(finite) // 4 :]):
            continue
        yield Draft(
            message=f"the gradient reaches {round(share * len(steps))} of {len(steps)} steps: with a bias of 0 the "
            "forget gate keeps half of the state at each; a bias of 1 to 2 keeps more",
            op=index,
            ops=(index,),
            measured={"reached_share": share, "gradient-change": min(finite) - max(finite)},
            cause="recurrent-vanishing",
        )
