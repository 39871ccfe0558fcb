"""GL911: a prediction that sees positions after its own, in a model that means each to see only those before."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft, Severity
from gradlint.graph.ir import Graph
from gradlint.probe.question import leaks
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule

PLAIN = -3.0  # decades from which a few steps of training find what leaks


@rule(
    code="GL911",
    name="causal-leak",
    family="wiring",
    severity="error",
    since="0.1.0",
    options={"decades": -6.0},
)
def causal_leak(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Models with a causal mask or one-sided padding whose output at a position depends on the input after it."""
    for suspect in leaks(graph):
        size = QUANTITIES["later-positions"].function(graph, probe, suspect.subject)
        if size is None or size <= options["decades"]:
            continue
        op = graph.ops[suspect.op]
        severity: Severity = "error" if size > PLAIN else "warning"
        what = "padded on one side" if op.kind == "conv" else "masked"
        yield Draft(
            message=f"this {op.function or op.kind} is {what} to be causal, but the output at a position depends on "
            f"the input after it, by 10^{size:.1f} of what it takes from before",
            op=op.index,
            ops=(op.index,),
            severity=severity,
            claim=Claim("later-positions", suspect.subject, options["decades"], "above"),
        )
