"""What a candidate adds to a model: parameters, and elementwise work as a share of the multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from gradlint.fix.candidate import Normalise, Skip, Step, Swap
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
    """The gains and shifts of the norms that the steps insert (RMSNorm has no shift); nothing else adds parameters."""
    return sum(_norm_parameters(graph, step) for step in steps if isinstance(step, Normalise))


def work(scope: Stretch, steps: Iterable[Step]) -> float:
    """Elementwise operations that the steps add, over the multiply-adds of the model's layers."""
    graph = scope.graph
    total = sum(_entries(graph, layer.op.index) * layer.fan_in for layer in scope.everywhere)
    return sum(_step_work(graph, step) for step in steps) / max(1, total)


def _norm_parameters(graph: Graph, step: Normalise) -> int:
    shape = graph.values[graph.ops[step.op].outputs[0]].shape
    features = shape[-1] if step.function in ("layer_norm", "rms_norm") or len(shape) == 2 else shape[1]
    return features if step.function == "rms_norm" else 2 * features


def _step_work(graph: Graph, step: Step) -> float:
    if isinstance(step, Normalise):
        return NORM_WORK * _entries(graph, step.op)
    if isinstance(step, Skip):
        return _entries(graph, step.end)
    if isinstance(step, Swap):
        before = ACTIVATION_WORK.get(graph.ops[step.op].function, COMMON_WORK)
        return (ACTIVATION_WORK.get(step.function, COMMON_WORK) - before) * _entries(graph, step.op)
    return 0.0


def _entries(graph: Graph, op: int) -> int:
    return math.prod(graph.values[graph.ops[op].outputs[0]].shape)
