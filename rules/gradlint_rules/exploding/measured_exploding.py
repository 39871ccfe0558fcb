"""GL201: the probe finds a gradient or an output that grows out of bounds."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

MOST = 0.5  # of the decades: what the input accounts for is not the layers' doing


@rule(code="GL201", name="measured-exploding", family="exploding", severity="warning", since="0.1.0")
def measured_exploding(graph: Graph, probe: Measurement) -> Iterator[Draft]:
    """The stretch on which the measured gradient or activation grows, whatever the cause."""
    found = diagnosis.diagnose(graph, probe, "exploding", "blow-up")
    if found is None:
        return
    yield Draft(
        message=_message(found, probe),
        op=found.costliest.index,
        module=found.module,
        ops=found.indices,
        related=diagnosis.related(graph, found.ops, "the last operation of the stretch"),
        measured=_numbers(found),
        severity=found.severity,
        factors=found.factors,
    )


def _message(found: diagnosis.Diagnosis, probe: Measurement) -> str:
    health = found.health
    over = f"over {len(found.ops)} operations"
    if found.kind == "exploding" and health.c is not None:
        fed = _fed(found, probe)
        if fed > MOST * health.c:
            return (
                f"inputs of RMS {10**fed:.3g} make {health.strongest}'s gradient {health.c:.1f} decades more than last"
            )
        return f"the gradient grows towards the input: {health.c:.1f} decades more at {health.strongest} than last"
    if health.s is not None:
        return f"the output starts at 10^{health.s:.1f}: activations grow by {found.decades:.1f} decades {over}"
    return f"activations grow by {found.decades:.1f} decades {over}"


def _fed(found: diagnosis.Diagnosis, probe: Measurement) -> float:
    """log10 RMS of the model's input where the layer behind the verdict reads it: its gradient δ·xᵀ grows with it."""
    graph, strongest = found.graph, found.health.strongest
    for index, paths in passage.weights(graph).items():
        given = passage.model_input(graph, graph.ops[index]) if strongest in paths else None
        if given is not None:
            return probe.profile.activation.get(given, 0.0)
    return 0.0


def _numbers(found: diagnosis.Diagnosis) -> dict[str, float]:
    health = found.health
    if found.kind == "exploding" and health.c is not None:
        return {"elasticity-excess": health.c, "gradient-change": found.decades}
    return {"activation-size": health.s or 0.0, "activation-change": found.decades}
