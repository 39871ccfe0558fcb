"""GL705: an output whose range the loss cannot take."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.graph.ranges import ANY, ranges
from gradlint.rule import rule
from gradlint_rules import passage

# What each loss takes, and the ends of that range.
TAKES = {"bce": ("probabilities", 0.0, 1.0), "nll": ("log-probabilities", -float("inf"), 0.0)}
MARGIN = 1e-3  # rounding of a log-softmax, far below what a logit would be


@rule(code="GL705", name="wrong-range", family="output", severity="error", since="0.1.0")
def wrong_range(graph: Graph, loss: str) -> Iterator[Draft]:
    """Outputs without the sigmoid or log-softmax that binary cross-entropy or negative log-likelihood need."""
    value = passage.output(graph)
    if value is None or loss not in TAKES:
        return
    what, low, high = TAKES[loss]
    known = ranges(graph).get(value.id, ANY)
    op = passage.before(graph, value.id)
    if op is None or (known.low >= low and known.high <= high):
        return
    above = known.low >= low  # a logit is rarely above 1 at the start, and as often negative as not
    yield Draft(
        message=f"{loss} takes {what}, and nothing keeps the output {'below' if above else 'above'} "
        f"{high if above else low:g}",
        op=op.index,
        ops=(op.index,),
        claim=Claim("greatest-entry", (value.id,), high + MARGIN, "above")
        if above
        else Claim("least-entry", (value.id,), low - MARGIN, "below"),
        predicted={"loss": loss},
    )
