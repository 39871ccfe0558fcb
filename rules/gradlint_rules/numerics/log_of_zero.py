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
        if argument.low == 0 and not argument.at_low and _is_density(graph, value):
            yield _underflow(op)
        elif argument.low <= 0:
            yield from _draft(op, value, argument)


def _is_density(graph: Graph, value: int) -> bool:
    """Whether the value is made by products and sums of exp(-d) with d ≥ 0 without bound, which is 0 from 104 on."""
    waiting, seen = [value], set[int]()
    while waiting:
        op = passage.before(graph, waiting.pop(), passage.SHAPING | {"reduce"}, scaled=True)
        if op is None or op.index in seen:
            continue
        seen.add(op.index)
        exponent = ranges(graph).get(op.inputs[0], ANY)
        if op.function == "exp" and exponent.high <= 0 and exponent.low == -math.inf:
            return True
        waiting += graph.data_inputs(op) if op.kind == "mul" else ()
    return False


def _underflow(op: Op) -> Draft:
    return Draft(
        message=f"{op.function} of a sum of exp(-d) that rounds to 0 for a sample far from all: add the logarithms of "
        "the factors and take logsumexp",
        op=op.index,
        ops=(op.index,),
        predicted={"least-entry": 0.0},
        severity="warning",
    )


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
