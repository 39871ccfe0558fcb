"""GL301: weights too small for the activations between them, at a depth where it adds up."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis

LAYERS = 2
SHARE = 0.5  # of the decades lost on the stretch that the weights' missing gain must explain


@rule(code="GL301", name="vanishing-init", family="init", severity="warning", since="0.1.0")
def vanishing_init(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Layers on a stretch that loses the gradient, when the gain that their init lacks explains most of the loss."""
    found = diagnosis.diagnose(graph, signal, "vanishing")
    if found is None:
        return
    short = [layer for layer in found.layers if layer.excess < 0]
    missing = sum(layer.excess for layer in short)
    if len(short) < LAYERS or missing > SHARE * found.decades:
        return
    gain = sum(layer.gain for layer in short) / len(short)
    ops = [layer.op for layer in short]
    yield Draft(
        message=f"the init of {len(short)} layers is too small for their activations: gain {gain:.2g} on average, "
        f"{-missing:.1f} decades short in all",
        op=ops[0].index,
        module=diagnosis.common(ops) or None,
        ops=found.indices,
        related=diagnosis.related(graph, ops, f"gain {short[-1].gain:.2g}"),
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
    )
