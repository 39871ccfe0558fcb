"""GL401: a deep stretch without a normalisation layer that loses or amplifies the signal."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis

LAYERS = 5  # fewer layers than this are mended by their init or activation alone


@rule(code="GL401", name="missing-normalization", family="normalization", severity="warning", since="0.1.0")
def missing_normalization(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """A stretch of weights without a norm between them, when the signal over it makes training suffer."""
    found = diagnosis.diagnose(graph, signal, "vanishing", "exploding", "blow-up")
    if found is None or found.of_kind("norm") or len(found.layers) < LAYERS:
        return
    first = found.layers[0].op
    verb = "loses" if found.decades < 0 else "gains"
    what = "activation" if found.kind == "blow-up" else "gradient"
    yield Draft(
        message=f"{len(found.layers)} layers without normalisation: the {what} {verb} {abs(found.decades):.1f} decades",
        op=first.index,
        module=found.module,
        ops=found.indices,
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
    )
