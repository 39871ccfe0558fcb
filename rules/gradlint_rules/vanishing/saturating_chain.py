"""GL101: bounded activations in a row whose derivatives multiply to almost nothing."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis

ACTIVATIONS = 2  # one bounded activation is a gate or an output; a chain has at least two between weights
SHARE = 0.5  # of the decades lost on the stretch: below it the weights are to blame (vanishing-init)


@rule(code="GL101", name="saturating-chain", family="vanishing", severity="warning", since="0.1.0")
def saturating_chain(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Bounded activations on a stretch that loses the gradient, when their derivatives lose most of it."""
    found = diagnosis.diagnose(graph, signal, "vanishing")
    if found is None or len(found.saturating) < ACTIVATIONS:
        return
    chain = found.saturating
    lost = found.cost(chain)
    if lost > SHARE * found.decades:
        return
    names = " and ".join(sorted({op.function for op in chain}))
    yield Draft(
        message=f"{len(chain)} {names} activations in a row shrink the gradient by {-lost:.1f} decades, "
        f"{-lost / len(chain):.2f} each",
        op=chain[0].index,
        module=found.module,
        ops=found.indices,
        related=diagnosis.related(graph, chain, f"the last of {len(chain)}"),
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
    )
