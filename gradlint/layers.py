"""The rows of the gradient chart: each operation that weighs, shapes or merges the signal, in the order of the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

from gradlint.finding import Size
from gradlint.graph.ir import Graph, Op
from gradlint.profile import Profile
from gradlint.result import Layer
from gradlint.ways import steps, ways

CHARTED = frozenset(
    {
        "linear",
        "conv",
        "activation",
        "norm",
        "attention",
        "recurrent",
        "embedding",
        "softmax",
        "matmul",
        "add",
        "custom",
    }
)
EMPTY = Profile()


def layers(graph: Graph, predicted: Profile, measured: Profile | None) -> tuple[Layer, ...]:
    """One row per charted op whose output a gradient can reach; RMS values as plain numbers, None where unknown."""
    reached = steps(graph, predicted)
    rows = ((op, _output(graph, op)) for op in _charted(graph))
    return tuple(
        replace(_layer(op, value, predicted, measured or EMPTY), ways=ways(graph, predicted, value))
        if reached.get(value)
        else _layer(op, value, predicted, measured or EMPTY)
        for op, value in rows
    )


def sizes(graph: Graph, measured: Profile) -> tuple[Size, ...]:
    """The same ops in another measured run of the graph: of `layers`, what an intervention changes."""
    return tuple(
        Size(op.index, _rms(measured.activation, value), _rms(measured.gradient, value))
        for op in _charted(graph)
        for value in [_output(graph, op)]
    )


def _output(graph: Graph, op: Op) -> int:
    """The op's output that the rest of the run reads: of an RNN whose last state alone is used, the state."""
    read = (value for value in op.outputs if graph.values[value].consumers or value in graph.outputs)
    return next(read, op.outputs[0])


def _charted(graph: Graph) -> Iterator[Op]:
    return (op for op in graph.ops if op.kind in CHARTED and graph.values[op.outputs[0]].dtype.startswith("float"))


def _layer(op: Op, value: int, predicted: Profile, measured: Profile) -> Layer:
    place = op.span or op.constructed
    return Layer(
        module=op.module_path,
        op=op.function or op.kind,
        kind=op.kind,
        path=place.path if place else None,
        line=place.line if place else None,
        activation_rms=_rms(measured.activation, value),
        gradient_rms=_rms(measured.gradient, value),
        predicted_gradient_rms=_rms(predicted.gradient, value),
        predicted_activation_rms=_rms(predicted.activation, value),
        index=op.index,
    )


def _rms(sizes: Mapping[int, float], value: int) -> float | None:
    """The RMS whose log10 is stored: 0.0 for -inf, None where unknown, not finite, or beyond float64."""
    decades = sizes.get(value)
    if decades is None or math.isnan(decades) or decades > 308:
        return None
    return 0.0 if decades < -320 else 10.0**decades
