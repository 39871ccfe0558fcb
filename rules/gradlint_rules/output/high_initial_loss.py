"""GL708: a first loss far above that of a model that knows nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule
from gradlint_rules import passage

LOSSES = frozenset({"ce", "nll", "bce", "bce_logits"})  # an uninformed prediction has a loss that is known


@rule(
    code="GL708",
    name="high-initial-loss",
    family="output",
    severity="warning",
    since="0.1.0",
    options={"note": 0.3, "decades": 1.0},
)
def high_initial_loss(graph: Graph, probe: Measurement, loss: str, options: dict[str, float]) -> Iterator[Draft]:
    """A first loss of more than 10^`decades` times that of an uninformed prediction; a note from 10^`note` on."""
    above = QUANTITIES["loss-above-chance"].function(graph, probe, ())
    value = passage.output(graph)
    known = loss in LOSSES and above is not None and math.isfinite(above)  # else `not-finite` says where it began
    if not known or above is None or above <= options["note"] or value is None:
        return
    loud = above > options["decades"]
    last = graph.op_of(value.id)
    yield Draft(
        message=f"the first loss is {probe.loss_value:.3g}, and {probe.chance_loss:.3g} without any knowledge: the "
        "outputs start too large",
        op=None if last is None else last.index,
        ops=() if last is None else (last.index,),
        severity="warning" if loud else "info",
        claim=Claim("loss-above-chance", (), options["decades" if loud else "note"], "above"),
        numbers={"activation-size": (value.id,)},
    )
