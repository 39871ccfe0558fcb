"""GL806: a softmax written as exp(x) / exp(x).sum(), which overflows."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.ranges import ANY, ranges
from gradlint.rule import rule
from gradlint_rules import passage

LARGEST = 88.0  # exp overflows float32 above 88.7
SUMS = frozenset({"sum", "mean", "cumsum"})
SHIFTS = frozenset({"max", "amax", "logsumexp", "logcumsumexp"})


@rule(code="GL806", name="naive-softmax", family="numerics", severity="warning", since="0.1.0")
def naive_softmax(graph: Graph) -> Iterator[Draft]:
    """Exponentials of unbounded numbers, divided by their own sum."""
    known = ranges(graph)
    for op in graph.ops:
        parts = _parts(graph, op)
        if parts is None or not graph.values[op.outputs[0]].requires_grad:
            continue
        exponential = parts[0]
        value = passage.source(graph, exponential)
        if value is None or known.get(value, ANY).high < LARGEST or _is_shifted(graph, exponential):
            continue
        yield Draft(
            message="a softmax written by hand: an exponential of more than 88 makes it infinity over infinity",
            op=op.index,
            ops=(exponential.index, op.index),
            predicted={"greatest-entry": known.get(value, ANY).high},
        )


def _parts(graph: Graph, op: Op) -> tuple[Op, Op] | None:
    """The exponential and its sum when the op divides the one by the other."""
    if op.kind != "mul" or op.function != "div":
        return None
    other = graph.operand(op, "other")
    total = None if other is None else passage.before(graph, other.id, scaled=True)
    exponential = passage.producer(graph, op)
    if total is None or exponential is None or total.function not in SUMS or exponential.function != "exp":
        return None
    summed = passage.producer(graph, total)
    if summed is None or summed.function != "exp":
        return None
    return (exponential, total) if passage.source(graph, summed) == passage.source(graph, exponential) else None


def _is_shifted(graph: Graph, exponential: Op) -> bool:
    """Whether the largest entry was subtracted before the exponential."""
    shift = passage.producer(graph, exponential)
    if shift is None or shift.kind != "add":
        return False
    sources = (passage.before(graph, value) for value in graph.data_inputs(shift))
    return any(found is not None and found.function in SHIFTS for found in sources)
