"""GL706: a cross-entropy over one class, which is 0 whatever the model says."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.rule import rule
from gradlint_rules import passage

LOSSES = frozenset({"ce", "nll"})


@rule(code="GL706", name="single-class", family="output", severity="error", since="0.1.0")
def single_class(graph: Graph, loss: str) -> Iterator[Draft]:
    """A last layer with one unit under a loss that compares classes."""
    value = passage.output(graph)
    op = None if value is None or loss not in LOSSES else passage.before(graph, value.id, passage.KEEPING)
    if value is None or op is None or passage.features(graph, op) != 1 or len(value.shape) < 2:
        return
    yield Draft(
        message=f"{loss} over 1 class is 0 whatever the model says",
        op=op.index,
        ops=(op.index,),
        claim=Claim("gradient-size", (value.id,), -12.0, "below"),
        predicted={"classes": 1, "loss": loss},
    )
