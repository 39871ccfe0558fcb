"""Which units (channels or features) of an activation are dead, saturated or constant over the batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from gradlint.graph.ir import Graph, Op
from gradlint.probe.ledger import Ledger

Key = tuple[int, int]

# Bounds of the activations that saturate. 1 % of the distance between two bounds counts as sitting at one.
BOUNDS: Mapping[str, tuple[float, float]] = {
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "hardtanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
}
NEAR = 0.01
# Functions whose derivative is zero where they are: a unit that is zero for every sample gets no gradient.
DYING = frozenset({"relu", "relu6", "threshold", "hardshrink", "softshrink"})
MOSTLY = 0.95  # share of a unit's entries that must sit at a bound (research/field.md A2)

# The function that made a tensor, by the name of its autograd node, for the pass in which the graph is not known yet.
NODES: Mapping[str, str] = {
    "ReluBackward": "relu",
    "ThresholdBackward": "relu",
    "ClampMinBackward": "relu",
    "LeakyReluBackward": "leaky_relu",
    "PreluKernelBackward": "prelu",
    "SigmoidBackward": "sigmoid",
    "HardsigmoidBackward": "hardsigmoid",
    "TanhBackward": "tanh",
    "HardtanhBackward": "relu6",
    "EluBackward": "elu",
    "GeluBackward": "gelu",
    "SiluBackward": "silu",
    "MishBackward": "mish",
    "HardswishBackward": "hardswish",
    "SoftplusBackward": "softplus",
}
# Nodes that say which axis holds the units of what comes after them.
AXES: Mapping[str, int] = {
    "ConvolutionBackward": 1,
    "NativeBatchNormBackward": 1,
    "CudnnBatchNormBackward": 1,
    "NativeGroupNormBackward": 1,
    "AddmmBackward": -1,
    "MmBackward": -1,
    "BmmBackward": -1,
    "LinearBackward": -1,
    "NativeLayerNormBackward": -1,
    "FusedRmsNormBackward": -1,
}
_DEPTH = 8  # nodes looked back at
_TRANSPARENT = frozenset({"activation", "norm", "dropout", "add", "mul", "copy", "elementwise", "pad"})


def measure(ledger: Ledger, keys: list[Key], stacked: Tensor, function: str, axis: int) -> None:
    """Note the shares of dead, saturated and constant units, and the bounds, of tensors stacked along a new first axis.

    Dead: zero for every sample and position, where the derivative is zero too. Saturated: within 1 % of a bound for
    over 95 % of them. Constant: one value for all of them. `axis` is that of the units in each tensor.
    """
    place = axis % (stacked.ndim - 1) + 1
    assert place > 1, "the first axis of an activation holds the samples"
    others = [dim for dim in range(1, stacked.ndim) if dim != place]
    low, high = _bounds(stacked, others)
    ledger.put("low", keys, low.amin(1))
    ledger.put("high", keys, high.amax(1))
    for key in keys:
        ledger.note("count", key, stacked.shape[place])
    several = stacked[0].numel() > stacked.shape[place]
    ledger.put("dead", keys, _share((low == 0) & (high == 0)) if function in DYING else _none(low))
    ledger.put("constant", keys, _share(low == high) if several else _none(low))
    ledger.put("saturated", keys, _saturated(stacked, others, function, low, high))


def activations(graph: Graph, keys: list[Key]) -> Iterable[tuple[str, int, list[int]]]:
    """Of the tensors with these keys, the outputs of activations: function, axis of the units, and places in `keys`."""
    found: dict[tuple[str, int], list[int]] = {}
    for place, (index, position) in enumerate(keys):
        op = graph.ops[index]
        if op.kind == "activation" and position == 0 and op.outputs and len(graph.values[op.outputs[0]].shape) > 1:
            found.setdefault((op.function, graph_axis(graph, op)), []).append(place)
    return [(function, axis, places) for (function, axis), places in found.items()]


def function_of(tensor: Tensor, key: Key, graph: Graph | None) -> str:
    """The activation that made the tensor, or "": from the graph when it is known, else from the autograd node."""
    if tensor.ndim < 2 or key[1]:
        return ""
    if graph is not None:
        op = graph.ops[key[0]]
        return op.function if op.kind == "activation" else ""
    return "" if tensor.grad_fn is None else NODES.get(_stem(tensor.grad_fn.name()), "")


def axis_of(tensor: Tensor) -> int:
    """The axis of the units, from the nearest weighted op behind the tensor's autograd node."""
    node = tensor.grad_fn
    for _ in range(_DEPTH):
        if node is None:
            break
        axis = AXES.get(_stem(node.name()))
        if axis is not None:
            return axis
        node = node.next_functions[0][0] if node.next_functions else None
    return _by_shape(tensor.ndim)


def graph_axis(graph: Graph, op: Op) -> int:
    """The axis of the units of an op's output, from the nearest weighted op behind it."""
    shape = graph.values[op.outputs[0]].shape
    before: Op | None = op
    for _ in range(_DEPTH if len(shape) > 2 else 0):
        data = () if before is None else graph.data_inputs(before)
        before = graph.op_of(data[0]) if data else None
        if before is None or len(graph.values[before.outputs[0]].shape) != len(shape):
            break
        if before.kind == "conv" or (before.kind == "norm" and before.function in ("batch_norm", "group_norm")):
            return 1
        if before.kind in ("linear", "matmul", "recurrent", "embedding") or before.kind == "norm":
            return -1
        if before.kind not in _TRANSPARENT:
            break
    return _by_shape(len(shape))


def _by_shape(dims: int) -> int:
    """Features last in (batch, features) and (batch, tokens, features), channels second in images."""
    return -1 if dims <= 3 else 1


def _bounds(stacked: Tensor, others: list[int]) -> tuple[Tensor, Tensor]:
    """Least and greatest entry of each unit, over the samples first: torch is slow at short inner axes."""
    rest = [dim - 1 for dim in others if dim != 1]
    low, high = stacked.amin(1), stacked.amax(1)
    return (low.amin(rest), high.amax(rest)) if rest else (low, high)


def _saturated(stacked: Tensor, others: list[int], function: str, low: Tensor, high: Tensor) -> Tensor:
    if function not in BOUNDS:
        return _none(low)
    bottom, top = BOUNDS[function]
    near = NEAR * (top - bottom)
    # Asking is free on the CPU only, where it mostly saves the pass over every entry.
    if stacked.device.type == "cpu" and not ((low < bottom + near) | (high > top - near)).any():
        return _none(low)
    at_bound = (stacked < bottom + near) | (stacked > top - near)
    return _share(at_bound.float().mean(others) > MOSTLY)


def _none(units: Tensor) -> Tensor:
    return torch.zeros(units.shape[0], device=units.device)


def _share(units: Tensor) -> Tensor:
    return units.float().mean(1)


def _stem(name: str) -> str:
    return name.rstrip("0123456789")
