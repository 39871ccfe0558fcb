"""GL802: a square root where its argument can be 0, at which its derivative is infinite."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.ranges import ANY, ranges
from gradlint.rule import rule
from gradlint_rules import passage

TINY = 1e-12  # √x has the derivative 5e5 here


@rule(code="GL802", name="root-at-zero", family="numerics", severity="warning", since="0.1.0")
def root_at_zero(graph: Graph) -> Iterator[Draft]:
    """Square roots, and powers below 1, of a number that can be exactly 0 or negative."""
    known = ranges(graph)
    for op in graph.ops:
        value = passage.source(graph, op)
        if not _is_root(op) or value is None or not graph.values[value].requires_grad:
            continue
        argument = known.get(value, ANY)
        if argument.low == 0 and argument.at_low and not _masked(graph, op):
            yield _exact_zero(op)
        elif argument.low < 0:
            yield _perhaps(op, value)


def _masked(graph: Graph, op: Op) -> bool:
    """Whether a rectifier reads the infinite gradient and puts 0 in its place, as its own derivative is 0 there."""
    inner = passage.producer(graph, op)
    return inner is not None and passage.is_rectifier(inner)


def _is_root(op: Op) -> bool:
    if op.kind != "elementwise":
        return False
    exponent = op.attrs.get("exponent")
    return op.function in ("sqrt", "rsqrt") or (
        op.function == "pow" and isinstance(exponent, float) and 0 < abs(exponent) < 1
    )


def _exact_zero(op: Op) -> Draft:
    return Draft(
        message=f"{op.function} of a number that is 0 wherever the units behind it are off: the gradient is NaN there",
        op=op.index,
        ops=(op.index,),
        predicted={"least-entry": 0.0},
    )


def _perhaps(op: Op, value: int) -> Draft:
    return Draft(
        message=f"{op.function} of a number that nothing keeps above 0",
        op=op.index,
        ops=(op.index,),
        claim=Claim("least-entry", (value,), TINY, "below"),
        severity="error",
    )
