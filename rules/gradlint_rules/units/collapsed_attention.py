"""GL604: an attention whose logits are so large at the start that its softmax picks one key."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule
from gradlint_rules import attention, diagnosis

FOCUSED = 0.5  # Σ p² of the weights, where they are a value of their own
SHARE = 0.5  # of the model's attentions: where most are open, the residual path carries the signal past the others


@rule(
    code="GL604",
    name="collapsed-attention",
    family="units",
    severity="warning",
    since="0.1.0",
    options={"decades": 0.3},
)
def collapsed_attention(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Attentions whose measured logits lie `decades` above the RMS at which a softmax over their keys freezes."""
    found, all_of_them = [], attention.attentions(graph)
    for each in all_of_them:
        size = each.size(graph, probe)
        focus = QUANTITIES["attention-focus"].function(graph, probe, each.weights) if each.weights else None
        if size is not None and size > each.limit + options["decades"] and (focus is None or focus > FOCUSED):
            found.append((size, each))
    if not found:
        return
    size, worst = max(found, key=lambda pair: pair[0] - pair[1].limit)
    ops = [each.op for _, each in found]
    yield Draft(
        message=f"logits of RMS {10**size:.2g} over {worst.keys} keys leave each query one of them: a softmax freezes "
        f"from {10**worst.limit:.2g} on",
        op=worst.op.index,
        ops=tuple(op.index for op in ops),
        related=diagnosis.related(graph, ops, f"{len(ops)} attentions like it") if len(ops) > 1 else (),
        severity="warning" if len(found) >= SHARE * len(all_of_them) and not worst.normed else "info",
        claim=Claim("attention-focus", worst.weights, FOCUSED, "above")
        if worst.weights
        else Claim(worst.quantity, worst.subject, worst.limit + options["decades"], "above"),
    )
