"""GL801: a logarithm of a number that can be 0 or less."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.ranges import ANY, Range, ranges
from gradlint.rule import rule
from gradlint_rules import passage

LOGARITHMS = frozenset({"log", "log2", "log10"})
TINY = 1e-30  # float32 has no normal number below 1.2e-38; a log argument this small has no usable gradient


@rule(code="GL801", name="log-of-zero", family="numerics", severity="error", since="0.1.0")
def log_of_zero(graph: Graph) -> Iterator[Draft]:
    """Logarithms whose argument can be 0, negative, or a probability that rounds to 0."""
    known = ranges(graph)
    for op in graph.ops:
        value = passage.source(graph, op)
        if op.function not in LOGARITHMS or value is None or not graph.values[value].requires_grad:
            continue
        argument = known.get(value, ANY)
        if argument.low <= 0:
            yield from _draft(op, value, argument)


def _draft(op: Op, value: int, argument: Range) -> Iterator[Draft]:
    """A zero is an error if the probe sees one; a probability only rounds to 0, which one pass may not show."""
    if argument.low == 0 and argument.high <= 1 and not argument.at_low:
        yield Draft(
            message=f"{op.function} of a probability that rounds to 0 once the model is sure",
            op=op.index,
            ops=(op.index,),
            predicted={"least-entry": 0.0},
            severity="warning",
            cause="log-of-probability",
        )
    elif argument.low < 0 or argument.at_low:
        low = "0" if argument.low == 0 else "negative" if math.isinf(argument.low) else f"{argument.low:.3g}"
        yield Draft(
            message=f"{op.function} of a number that can be {low}: the gradient is not finite there",
            op=op.index,
            ops=(op.index,),
            claim=Claim("least-entry", (value,), TINY, "below"),
        )
