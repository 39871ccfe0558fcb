"""GL809: numbers that a narrower number format cannot hold."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement, Precision
from gradlint.rule import rule


@rule(
    code="GL809",
    name="half-overflow",
    family="numerics",
    severity="error",
    since="0.1.0",
    options={"headroom": 0.6},
)
def half_overflow(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Operations that overflow in the format that `--dtype` names, or come within `headroom` decades of it."""
    found = probe.precision
    if found is None:
        return
    if found.overflow_op is not None:
        yield _overflow(graph, found, found.overflow_op)
    elif found.overflow_gradient_op is not None:
        op = graph.ops[found.overflow_gradient_op]
        yield Draft(
            message=f"the gradient of this {op.function or op.kind} overflows in {found.dtype}, and in full precision "
            "it does not",
            op=op.index,
            ops=(op.index,),
        )
    else:
        yield from _near(graph, found, options["headroom"])


def _overflow(graph: Graph, found: Precision, index: int) -> Draft:
    op = graph.ops[index]
    return Draft(
        message=f"this {op.function or op.kind} overflows in {found.dtype}, and in full precision it does not",
        op=index,
        ops=(index,),
        numbers={"activation-size": op.outputs[:1]},
    )


def _near(graph: Graph, found: Precision, least: float) -> Iterator[Draft]:
    near = {value: room for value, room in found.headroom.items() if room < least}
    if not near:
        return
    value = min(near, key=lambda each: near[each])
    op = graph.op_of(value)
    yield Draft(
        message=f"numbers here come within a factor {10 ** near[value]:.2g} of the largest one in {found.dtype}, and "
        "training moves them",
        op=None if op is None else op.index,
        ops=() if op is None else (op.index,),
        severity="warning" if near[value] < least / 2 else "info",
        claim=Claim("format-headroom", (value,), least, "below"),
    )
