"""Which units (channels or features) of an activation are dead, saturated or constant over the batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

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


class Function(NamedTuple):
    """The activation that makes a tensor, the axis of its units, and the number of its axes."""

    name: str
    axis: int
    dims: int


_DEPTH = 8  # nodes looked back at
_TRANSPARENT = frozenset({"activation", "norm", "dropout", "add", "mul", "copy", "elementwise", "pad"})


def measure(ledger: Ledger, keys: list[Key], function: str, least: Tensor, most: Tensor, entries: int) -> None:
    """Note the shares of dead and constant units of tensors of so many entries, from bounds of shape (tensors, units).

    Dead: zero for every sample and position, where the derivative is zero too. Constant: one value for all of them.
    """
    count = least.shape[1]
    ledger.fill("count", keys, count)
    if function in DYING:
        ledger.put("dead", keys, ((least == 0) & (most == 0)).sum(1), lambda found: found / count)
    else:
        ledger.fill("dead", keys, 0.0)
    if entries > count:
        ledger.put("constant", keys, (least == most).sum(1), lambda found: found / count)
    else:
        ledger.fill("constant", keys, 0.0)


def saturation(
    ledger: Ledger,
    keys: list[Key],
    stacked: Callable[[], Tensor],
    function: Function,
    within: tuple[float, float] | None,
) -> None:
    """Note the share of units that are within 1 % of a bound of the function for over 95 % of their entries.

    `within` are the least and the greatest of all entries, where they are known: it mostly saves the pass over them.
    """
    if function.name not in BOUNDS:
        ledger.fill("saturated", keys, 0.0)
        return
    bottom, top = BOUNDS[function.name]
    near = NEAR * (top - bottom)
    if within is not None and within[0] >= bottom + near and within[1] <= top - near:
        ledger.fill("saturated", keys, 0.0)
        return
    entries = stacked()
    at_bound = (entries < bottom + near) | (entries > top - near)
    place = function.axis % function.dims + 1
    others = [dim for dim in range(1, entries.ndim) if dim != place]
    share = at_bound.sum(others, dtype=torch.float32) / (at_bound[0].numel() // at_bound.shape[place])
    units = at_bound.shape[place]
    ledger.put("saturated", keys, (share > MOSTLY).sum(1), lambda found: found / units)


def bounds(entries: Tensor, function: Function) -> Tensor:
    """The least and the greatest entry of each unit of a large tensor: (2, units).

    Over the samples first: torch is slow at short inner axes.
    """
    low, high = gather(entries.amin(0).unsqueeze(0), entries.amax(0).unsqueeze(0), function)
    return torch.cat([low, high])


def gather(low: Tensor, high: Tensor, function: Function) -> tuple[Tensor, Tensor]:
    """The bounds of each unit (tensors, units), from those over the samples: (tensors, …) without the first axis."""
    place = function.axis % function.dims
    assert place > 0, "the first axis of an activation holds the samples"
    rest = [dim for dim in range(1, low.ndim) if dim != place]
    return (low.amin(rest), high.amax(rest)) if rest else (low, high)


def function_of(tensor: Tensor) -> Function | None:
    """The activation that made the tensor, by its autograd node, for the pass in which the graph is not known yet."""
    if tensor.ndim < 2 or tensor.grad_fn is None:
        return None
    name = NODES.get(_stem(tensor.grad_fn.name()))
    return None if name is None else Function(name, axis_of(tensor), tensor.ndim)


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


def _stem(name: str) -> str:
    return name.rstrip("0123456789")
