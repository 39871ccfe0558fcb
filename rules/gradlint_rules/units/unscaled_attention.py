"""GL603: an attention whose logits are not divided by √d, and so large that its softmax picks one key."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import attention, diagnosis

NARROW = 16  # entries of a query up to which √d is 4 or less and no scale is needed
FAR = 0.3  # decades beyond the limit from which training suffers; nearer to it, a few steps can repair the logits


@rule(code="GL603", name="unscaled-attention", family="units", severity="warning", since="0.1.0")
def unscaled_attention(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Attentions without the factor 1/√d whose logits have an RMS at which the softmax freezes on one key."""
    found = []
    for each in attention.attentions(graph):
        if each.scale != 1.0 or each.width is None or each.width <= NARROW:
            continue
        size = each.size(graph, signal)
        if size is not None and size > each.limit:
            found.append((size, each))
    if not found:
        return
    size, worst = max(found, key=lambda pair: pair[0] - pair[1].limit)
    ops = [each.op for _, each in found]
    yield Draft(
        message=f"the products of queries and keys are not divided by √{worst.width}: logits of RMS {10**size:.2g} "
        f"over {worst.keys} keys leave each query one of them",
        op=ops[0].index,
        ops=tuple(op.index for op in ops),
        related=diagnosis.related(graph, ops, f"{len(ops)} attentions like it") if len(ops) > 1 else (),
        claim=Claim(worst.quantity, worst.subject, worst.limit, "above"),
        severity="warning" if size > worst.limit + FAR and not worst.normed else "info",
        predicted={"scale": 1.0, "needed_scale": round(float(worst.width or 1) ** -0.5, 4)},
    )
