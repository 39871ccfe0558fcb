"""GL702: an output that is squashed although the loss squashes it again."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph import traversal
from gradlint.graph.ir import Graph
from gradlint.rule import rule
from gradlint_rules import passage

# What each loss expects, and the functions that it must not be given.
EXPECTS = {"ce": "logits", "bce_logits": "logits", "nll": "log-probabilities"}
SQUASHING = frozenset({"sigmoid", "tanh", "hardsigmoid", "hardtanh", "softsign"})
WRONG = {
    "ce": SQUASHING | {"softmax"},
    "bce_logits": SQUASHING | {"softmax", "log_softmax", "logsigmoid"},
    "nll": SQUASHING | {"softmax"},
}
SHRINKING = frozenset({"softmax", "sigmoid"})  # tanh has slope 1 at 0: it is its range that confines the logits
SHRINKS = -0.3  # decades that the second squashing must take off the gradient: σ′ ≤ ¼ takes 0.6, softmax about log10 K


@rule(code="GL702", name="squashed-logits", family="output", severity="error", since="0.1.0")
def squashed_logits(graph: Graph, loss: str) -> Iterator[Draft]:
    """A softmax, sigmoid or tanh at the output in front of a loss that applies its own."""
    value = passage.output(graph)
    found = () if value is None else traversal.makers(graph, value.id)  # no further back than a guess of the loss looks
    if not found or found[-1].function not in WRONG.get(loss, ()):
        return
    op = found[-1]
    yield Draft(
        message=f"the output is a {op.function}, but {loss} takes {EXPECTS[loss]} and squashes them itself",
        op=op.index,
        ops=tuple(made.index for made in found),
        claim=Claim("gradient-change", (op.inputs[0], op.outputs[0]), SHRINKS, "below")
        if op.function in SHRINKING
        else None,
        predicted={"loss": loss},
    )
