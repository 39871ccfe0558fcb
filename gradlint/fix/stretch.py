"""The part of a graph that a finding is about, read as a trunk: weight ops, the activations between them, blocks."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from gradlint.graph.flow import flow, is_weighted
from gradlint.graph.ir import Graph, Op, Param
from gradlint.graph.merge import between, residuals

LAYERS = frozenset({"linear", "conv"})
SHAPING = frozenset({"reshape", "permute", "copy", "dropout", "expand", "slice", "pad", "split"})
BLOCK = frozenset({"activation", "norm", "dropout", "copy", "reshape"})
# Pointwise functions that people use as activations.
POINTWISE = frozenset({"exp", "square", "pow", "sinh", "cosh", "sin"})
# Softmax as a hidden activation behaves as a saturating one (AutoTrainer, TheDeepChecker: "hidden softmax").
SOFTMAX = frozenset({"softmax", "log_softmax", "softmin"})
FACTORS = frozenset({"sigmoid", "hardsigmoid", "softmax"})
GATING = frozenset({"mul", "matmul", "attention"})


@dataclass(frozen=True)
class Layer:
    """A weight op of the trunk with its parameter, the activation after it and the norm beside it."""

    op: Op
    param: Param | None  # None when the weight is computed (weight norm, spectral norm, a hypernetwork)
    activation: Op | None  # the first trunk activation that its output meets
    normalised: bool  # a norm reads its output, or made its input
    gate: bool  # its output only gates other activations: squeeze-and-excitation, queries and keys
    fan_in: int
    fan_out: int

    @property
    def gain(self) -> float | None:
        """RMS of the weight × √fan_in: √2 is He, 1 LeCun, 0.58 the default of nn.Linear; None when unknown."""
        rms = None if self.param is None else self.param.rms
        return None if rms is None else rms * math.sqrt(self.fan_in)


@dataclass(frozen=True)
class Block:
    """A layer with its norm and activation: an identity fits around it when `stride` is 0, else a projection."""

    start: Op
    end: Op
    source: int  # the value id that goes in
    stride: int = 0


@dataclass(frozen=True)
class Stretch:
    """What the recipes read. `layers` leaves out heads, the last before an output, unless nothing else is there."""

    graph: Graph
    named: frozenset[int]  # the ops that were given
    layers: tuple[Layer, ...]
    heads: tuple[Layer, ...]
    everywhere: tuple[Layer, ...]  # every layer of the graph, heads included
    activations: tuple[Op, ...]  # on the trunk: neither gates nor at the output
    recurrent: tuple[Op, ...]
    outputs: tuple[Op, ...]  # activations and softmaxes between the last layer and the model's output
    blocks: tuple[Block, ...]  # whose output has the shape of their input
    changing: tuple[Block, ...]  # whose output has another one, which a projection reaches
    batch: int
    image_output: bool  # an image goes in and comes out


def stretch(graph: Graph, ops: Iterable[int]) -> Stretch:
    """The stretch between these ops: all that lies on a data path from one to another; the whole graph for none."""
    named = frozenset(ops)
    scope = hull(graph, named) or frozenset(range(len(graph.ops)))
    feeding, driven, gates = _feeding(graph), flow(graph).fed, gating(graph)
    weighted = [op for op in graph.ops if op.kind in LAYERS and op.grad_enabled and op.index in driven]
    layers = [_layer(graph, op, gate=op.index in gates) for op in weighted]
    body = tuple(layer for layer in layers if layer.op.index in scope and layer.op.index in feeding)
    heads = tuple(layer for layer in layers if layer.op.index not in feeding)
    free = [op for op in graph.ops if is_nonlinear(op) and op.index not in gates and not is_gate(graph, op)]
    trunk = [op for op in free if op.index in scope]
    rows = tuple(blocks(graph, body))
    return Stretch(
        graph=graph,
        named=named,
        layers=body or tuple(layer for layer in layers if layer.op.index in scope),
        heads=heads,
        everywhere=tuple(layers),
        activations=tuple(op for op in trunk if op.index in feeding),
        recurrent=tuple(op for op in graph.ops if op.index in scope and op.kind == "recurrent"),
        outputs=tuple(op for op in free if op.index not in feeding),
        blocks=tuple(block for block in rows if not block.stride),
        changing=tuple(block for block in rows if block.stride),
        batch=_batch(graph),
        image_output=_image(graph, graph.outputs) and _image(graph, graph.inputs),
    )


def hull(graph: Graph, given: frozenset[int]) -> frozenset[int]:
    """The given ops and every op on a data path from one of them to another."""
    if not given:
        return given
    after = _closure(graph.ops, given, lambda op: _producers(graph, op))
    before = _closure(graph.ops[::-1], given, lambda op: _consumers(graph, op))
    return after & before


def is_nonlinear(op: Op) -> bool:
    """Whether the op is a pointwise non-linearity that could be another one."""
    if op.kind == "activation" or (op.kind == "softmax" and op.function in SOFTMAX):
        return True
    return op.kind == "elementwise" and op.function in POINTWISE


def is_gate(graph: Graph, op: Op) -> bool:
    """Whether the op's output multiplies another activation: SE, GLU and LSTM gates, attention weights, x·σ(x)."""
    reached = list(through(graph, op, SHAPING))
    return any(_multiplies(graph, other) for other in reached)


def gating(graph: Graph) -> frozenset[int]:
    """Ops whose output reaches the rest of the model only as a bounded factor: it decides how much, not what.

    The factor is a sigmoid's or softmax's side of a product, or the query and key of an attention.
    """
    found: set[int] = set()
    for op in reversed(graph.ops):
        edges = [(value, graph.ops[index]) for value in op.outputs for index in graph.values[value].consumers]
        if edges and all(later.index in found or _gates(graph, op, value, later) for value, later in edges):
            found.add(op.index)
    return frozenset(found)


def _gates(graph: Graph, op: Op, value: int, product: Op) -> bool:
    """Whether the value is the bounded side of a product, or a query or key."""
    if product.kind == "attention":
        return value in [v for v, role in zip(product.inputs, product.roles, strict=True) if role in ("query", "key")]
    while op.kind in SHAPING and op.inputs and (producer := graph.op_of(op.inputs[0])) is not None:
        op = producer
    return op.function in FACTORS and _multiplies(graph, product)


def through(graph: Graph, op: Op, kinds: frozenset[str]) -> Iterator[Op]:
    """Ops that read the op's output, nearest first: directly, or through ops of these kinds or scalar arithmetic."""
    seen: set[int] = set()
    waiting = deque([op])
    while waiting:
        for index in _consumers(graph, waiting.popleft()):
            if index in seen:
                continue
            seen.add(index)
            yield graph.ops[index]
            if graph.ops[index].kind in kinds or _scalar(graph, graph.ops[index]):
                waiting.append(graph.ops[index])


def weight_of(graph: Graph, op: Op) -> Param | None:
    """The op's own weight; None when it is computed (weight norm, spectral norm, a hypernetwork)."""
    return graph.param(op) if op.kind in LAYERS else None


def operands(graph: Graph, op: Op) -> tuple[int, ...]:
    """Value ids of the op's inputs that depend on the model's inputs: not parameters or what is made of them."""
    fed = flow(graph).fed
    return tuple(v for v in op.inputs if v in graph.inputs or graph.values[v].producer in fed)


def is_offset(bias: Param) -> bool:
    """Whether the bias decides what its layer makes: weights that keep the signal's size add a deviation of 1 to it."""
    return bias.abs_max is not None and bias.abs_max > 1.0


def bias_of(graph: Graph, op: Op) -> Param | None:
    """The parameter that the op takes as its bias."""
    return graph.param(op, "bias")


def blocks(graph: Graph, layers: Iterable[Layer]) -> Iterator[Block]:
    """The layers a skip fits around, outside residual branches: with the shape that they began with, or another one."""
    branches = {op for merge in residuals(graph) for op in between(graph, merge)}
    for layer in layers:
        if layer.gate or layer.op.index in branches:
            continue
        sources, end = operands(graph, layer.op), _block_end(graph, layer.op)
        if not sources or end is layer.op:
            continue
        source, result = graph.values[sources[0]], graph.values[end.outputs[0]]
        if not _added(graph, end):
            stride = 0 if source.shape == result.shape else _stride(layer.op, source.shape, result.shape)
            if stride is not None:
                yield Block(layer.op, end, source.id, stride)


def _stride(op: Op, first: tuple[int, ...], last: tuple[int, ...]) -> int | None:
    """The step of the projection between two shapes, 1 for features; None where no projection fits."""
    if len(first) != len(last) or first[0] != last[0]:
        return None
    if op.kind == "linear":
        return 1 if first[:-1] == last[:-1] else None
    ratios = {max(1, round(before / after)) for before, after in zip(first[2:], last[2:], strict=True)}
    stride = ratios.pop() if len(ratios) == 1 else 0
    reached = [(before - 1) // stride + 1 for before in first[2:]] if stride else []
    return stride if stride and reached == list(last[2:]) else None


def _layer(graph: Graph, op: Op, *, gate: bool) -> Layer:
    param = weight_of(graph, op)
    after = [other for other in through(graph, op, SHAPING | {"norm", "pool", "add", "mul"}) if is_nonlinear(other)]
    fan_in, fan_out = _fans(graph, op, param)
    return Layer(op, param, after[0] if after else None, _normalised(graph, op), gate, fan_in, fan_out)


def _fans(graph: Graph, op: Op, param: Param | None) -> tuple[int, int]:
    """(fan_in, fan_out) of the weight, or of a computed one by the features of input and output."""
    if param is not None:
        return max(1, param.fan_in), max(1, param.fan_out)
    data, out = operands(graph, op), graph.values[op.outputs[0]].shape
    shape = graph.values[data[0]].shape if data else ()
    return (shape or (1,))[-1], (out or (1,))[-1]


def _normalised(graph: Graph, op: Op) -> bool:
    if any(other.kind == "norm" for other in through(graph, op, SHAPING)):
        return True
    producer = graph.op_of(op.inputs[0]) if op.inputs else None
    while producer is not None and producer.kind in SHAPING:
        producer = graph.op_of(producer.inputs[0])
    return producer is not None and producer.kind == "norm"


def _block_end(graph: Graph, op: Op) -> Op:
    """The last op of the single-file chain of norms and activations after the weight op."""
    end = op
    while True:
        readers = _consumers(graph, end)
        if len(readers) != 1 or graph.ops[readers[0]].kind not in BLOCK or is_gate(graph, graph.ops[readers[0]]):
            return end
        end = graph.ops[readers[0]]


def _added(graph: Graph, op: Op) -> bool:
    """Whether the op's output is already added to another tensor."""
    readers = (graph.ops[index] for index in _consumers(graph, op))
    return any(reader.kind == "add" and len(operands(graph, reader)) > 1 for reader in readers)


def _scalar(graph: Graph, op: Op) -> bool:
    """Whether the op adds or multiplies by something that is not an activation."""
    return op.kind in ("add", "mul") and len(operands(graph, op)) == 1


def _multiplies(graph: Graph, op: Op) -> bool:
    return op.kind in GATING and (op.kind == "attention" or len(operands(graph, op)) > 1)


def _feeding(graph: Graph) -> frozenset[int]:
    """Ops whose output reaches a later weight op: what is left lies at the model's output."""
    found: set[int] = set()
    for op in reversed(graph.ops):
        for index in _consumers(graph, op):
            later = graph.ops[index]
            if index in found or is_weighted(later) or later.kind == "attention":
                found.add(op.index)
    return frozenset(found)


def _closure(ops: tuple[Op, ...], given: frozenset[int], near: Callable[[Op], Iterable[int]]) -> frozenset[int]:
    """The given ops and those that `near` leads to one of them; `ops` in an order in which near ones come first."""
    found = set(given)
    for op in ops:
        if any(index in found for index in near(op)):
            found.add(op.index)
    return frozenset(found)


def _producers(graph: Graph, op: Op) -> list[int]:
    producers = (graph.values[value].producer for value in op.inputs)
    return [index for index in producers if index is not None]


def _consumers(graph: Graph, op: Op) -> list[int]:
    return [index for value in op.outputs for index in graph.values[value].consumers]


def _batch(graph: Graph) -> int:
    shapes = [graph.values[value].shape for value in graph.inputs]
    return next((shape[0] for shape in shapes if shape), 1)


def _image(graph: Graph, values: tuple[int, ...]) -> bool:
    """Whether one of the values is (batch, channels, height, width) with more than one position."""
    shapes = [graph.values[value].shape for value in values]
    return any(len(shape) == 4 and shape[-1] * shape[-2] > 1 for shape in shapes)
