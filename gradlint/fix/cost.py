"""What a candidate adds to a model: parameters, and elementwise work as a share of the multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from gradlint.fix.candidate import Normalise, Prenormalise, Skip, Step, Swap
from gradlint.fix.stretch import Stretch
from gradlint.graph.ir import Graph

# Operations an element, forward: a comparison is 1, an exponential about 8 (its polynomial), a norm two passes.
ACTIVATION_WORK: Mapping[str, float] = {
    "identity": 0,
    "relu": 1,
    "relu6": 2,
    "leaky_relu": 2,
    "hardtanh": 2,
    "elu": 9,
    "selu": 10,
    "sigmoid": 10,
    "silu": 11,
    "tanh": 12,
    "gelu": 14,
    "softmax": 12,
    "log_softmax": 12,
}
NORM_WORK = 8.0
COMMON_WORK = 10.0  # an activation the table does not name


def parameters(graph: Graph, steps: Iterable[Step]) -> int:
    """Those of the norms that the steps insert (RMSNorm has no shift) and of projections; nothing else adds any."""
    return sum(_step_parameters(graph, step) for step in steps)


def work(scope: Stretch, steps: Iterable[Step]) -> float:
    """Elementwise operations that the steps add, over the multiply-adds of the model's layers."""
    graph = scope.graph
    total = sum(_entries(graph, layer.op.index) * layer.fan_in for layer in scope.everywhere)
    return sum(_step_work(graph, step) for step in steps) / max(1, total)


def _step_parameters(graph: Graph, step: Step) -> int:
    if isinstance(step, Normalise):
        return _norm_parameters(graph, step)
    if isinstance(step, Prenormalise):
        return graph.values[step.source].shape[-1] * (1 if step.function == "rms_norm" else 2)
    return math.prod(widths(graph, step)) if isinstance(step, Skip) and step.stride else 0


def widths(graph: Graph, step: Skip) -> tuple[int, int]:
    """How many features, or channels of a convolution, go into a block and come out."""
    axis = -1 if graph.ops[step.start].kind == "linear" else 1
    last = graph.values[graph.ops[step.end].outputs[0]].shape
    return graph.values[step.source].shape[axis], last[axis]


def _norm_parameters(graph: Graph, step: Normalise) -> int:
    shape = graph.values[graph.ops[step.op].outputs[0]].shape
    features = shape[-1] if step.function in ("layer_norm", "rms_norm") or len(shape) == 2 else shape[1]
    return features if step.function == "rms_norm" else 2 * features


def _step_work(graph: Graph, step: Step) -> float:
    if isinstance(step, Normalise):
        return NORM_WORK * _entries(graph, step.op)
    if isinstance(step, Prenormalise):
        return NORM_WORK * math.prod(graph.values[step.source].shape)
    if isinstance(step, Skip):
        return _entries(graph, step.end) * (widths(graph, step)[0] if step.stride else 1)
    if isinstance(step, Swap):
        before = ACTIVATION_WORK.get(graph.ops[step.op].function, COMMON_WORK)
        return (ACTIVATION_WORK.get(step.function, COMMON_WORK) - before) * _entries(graph, step.op)
    return 0.0


def _entries(graph: Graph, op: int) -> int:
    return math.prod(graph.values[graph.ops[op].outputs[0]].shape)
