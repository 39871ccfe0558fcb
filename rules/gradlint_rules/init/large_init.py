"""GL302: weights too large for the activations between them."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis

SHARE = 0.5  # of the decades gained on the stretch that the weights' surplus gain must explain
SATURATING = 0.3  # mean log10 surplus from which it is the weights that drive bounded activations to their bounds


@rule(code="GL302", name="large-init", family="init", severity="warning", since="0.1.0")
def large_init(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Layers whose init amplifies the signal on a stretch where it explodes, blows up or saturates the activations."""
    found = diagnosis.diagnose(graph, signal, "vanishing", "exploding", "blow-up")
    if found is None:
        return
    large = [layer for layer in found.layers if layer.excess > 0]
    surplus = sum(layer.excess for layer in large)
    if not large or not _explains(found, surplus):
        return
    gain = 10 ** (sum(layer.excess for layer in large) / len(large))
    ops = [layer.op for layer in large]
    yield Draft(
        message=f"the init of {len(large)} layer{'s' * (len(large) > 1)} is too large: {gain:.2g} times the gain that "
        f"the activations need, {surplus:.1f} decades in all",
        op=ops[0].index,
        module=diagnosis.common(ops) or None,
        ops=found.indices,
        related=diagnosis.related(graph, ops, f"gain {large[-1].gain:.2g}"),
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
    )


def _explains(found: diagnosis.Diagnosis, surplus: float) -> bool:
    if found.health.kind == "vanishing":
        return bool(found.saturating) and surplus > SATURATING * len(found.layers)
    return surplus >= SHARE * abs(found.decades)
