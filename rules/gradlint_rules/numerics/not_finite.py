"""GL805: the probe meets NaN or infinity."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule
from gradlint_rules import passage


@rule(code="GL805", name="not-finite", family="numerics", severity="error", since="0.1.0")
def not_finite(graph: Graph, probe: Measurement) -> Iterator[Draft]:
    """The first op whose output, or else the last whose gradient, is not finite."""
    if probe.nonfinite_op is not None:
        op = graph.ops[probe.nonfinite_op]
        yield _draft(graph, op, f"{_name(op)} is the first operation of the forward pass with NaN or infinity")
    elif (made := _undefined(graph, probe)) is not None:
        source = _name(made) + (" of a row of -inf" if _hides_all(graph, probe, made) else "")
        yield _draft(graph, made, f"{source} makes NaN, which the output leaves out and the gradient does not")
    elif probe.nonfinite_gradient_op is not None:
        op = graph.ops[probe.nonfinite_gradient_op]
        readers = tuple(reader.index for reader in passage.consumers(graph, op))
        yield _draft(graph, op, f"the gradient turns NaN or infinite at {_name(op)}, on the way back", readers)


def _undefined(graph: Graph, probe: Measurement) -> Op | None:
    """The first op that made NaN of numbers, when the gradient is not finite: 0 · NaN is NaN on the way back."""
    if probe.nonfinite_gradient_op is None:
        return None
    nan = {value for value, size in probe.profile.activation.items() if math.isnan(size)}
    return next((op for op in graph.ops if nan.intersection(op.outputs) and nan.isdisjoint(op.inputs)), None)


def _hides_all(graph: Graph, probe: Measurement, op: Op) -> bool:
    """Whether the op is a softmax of logits that hold -inf and nothing as large the other way: a row without a key."""
    if op.kind != "softmax" or probe.profile.activation.get(op.inputs[0]) != math.inf:
        return False
    top = QUANTITIES["greatest-entry"].function(graph, probe, op.inputs[:1])
    return top is not None and top < math.inf


def _draft(graph: Graph, op: Op, message: str, readers: tuple[int, ...] = ()) -> Draft:
    """About the op and its neighbours: what it reads forwards, what reads it backwards, is where the fault may lie.

    An infinite logarithm shows only in the sum over it, an infinite derivative only in the gradient before it.
    """
    read = [graph.values[value].producer for value in graph.data_inputs(op)] if not readers else []
    ops = tuple(sorted({op.index, *readers, *(index for index in read if index is not None)}))
    return Draft(message=message, op=op.index, ops=ops, measured={"finite": False})


def _name(op: Op) -> str:
    return op.function or op.kind
