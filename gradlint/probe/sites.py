"""What a replay knows beforehand of every tensor it will meet, worked out once for a graph."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered
from gradlint.probe.ledger import TINY
from gradlint.probe.units import Function, graph_axis

Key = tuple[int, int]  # call number and position among its outputs; (-1, n) for the n-th input

# Large values whose bounds are taken when the graph is known: those that the functions with a limited domain read.
RANGED = frozenset({"elementwise", "mul", "softmax", "loss", "reduce", "custom", "other"})
# What autograd keeps for the backward pass (torch's derivatives.yaml): the result where the derivative is written in
# terms of it, the operands of these kinds, and nothing of a sum; a view has no memory of its own.
RESULT_KEPT = frozenset({"relu", "sigmoid", "tanh", "softmax", "log_softmax", "exp", "sqrt", "rsqrt", "reciprocal"})
OPERANDS_KEPT = frozenset(
    {"linear", "conv", "matmul", "activation", "norm", "attention", "recurrent", "mul", "pool", "elementwise", "loss"}
)
VIEWS = frozenset({"reshape", "permute", "expand", "slice", "split"})
BYTES = {"float64": 8, "complex64": 8, "complex128": 16, "int64": 8, "float16": 2, "bfloat16": 2, "bool": 1}
SMALL = 1 << 14  # entries; smaller tensors are kept and measured together, larger ones at once
ROOM = 1.05  # what a pass may take of memory, over what the bare one takes at least
FEW = 1 << 20  # bytes that a pass may keep beyond in any case: nothing beside the hundreds of millions of the process
COPIES = 1.25  # copies of what is measured together: the stack, and what is computed of it


@dataclass(frozen=True)
class Sites:
    """What to do at each call of a replay.

    `settled`: no operation works in place, so that a tensor stays what it is. `ranged`: tensors whose bounds are worth
    a pass over their entries. `functions`: those that activations make. `plain`: calls whose outputs are small and stay
    what they are, so that they can be looked at later. `full`: calls after which what was kept of the forward pass is
    measured, and `due` those at whose gradient what was kept of the backward pass is, so that little more memory is
    taken than without.
    """

    settled: bool
    ranged: frozenset[Key]
    functions: Mapping[Key, Function]
    plain: frozenset[int]
    full: frozenset[int]
    due: frozenset[int]


@remembered
def sites(graph: Graph) -> Sites:
    """The sites of a graph."""
    settled = not any(op.inplace for op in graph.ops)
    taken = _taken(graph)
    full = frozenset(_full(graph, taken, settled=settled))
    plain = frozenset(op.index for op in graph.ops if settled and all(_is_small(graph, value) for value in op.outputs))
    return Sites(settled, _ranged(graph), dict(_functions(graph)), plain - full, full, frozenset(_due(graph, taken)))


def _functions(graph: Graph) -> Iterator[tuple[Key, Function]]:
    for op in graph.ops:
        if op.kind == "activation" and op.outputs and len(graph.values[op.outputs[0]].shape) > 1:
            yield (op.index, 0), Function(op.function, graph_axis(graph, op), len(graph.values[op.outputs[0]].shape))


def _ranged(graph: Graph) -> frozenset[Key]:
    """The outputs whose bounds are worth a pass over their entries."""
    read = {value for op in graph.ops if op.kind in RANGED for value in op.inputs} | set(graph.outputs)
    producers = ((value, graph.op_of(value)) for value in read)
    return frozenset((op.index, op.outputs.index(value)) for value, op in producers if op is not None)


@dataclass(frozen=True)
class _Taken:
    """Bytes that a bare pass takes: the values that autograd keeps, and the least that is taken at the worst moment."""

    kept: frozenset[int]
    limit: float


def _taken(graph: Graph) -> _Taken:
    """A bare pass takes at least what autograd keeps of the forward pass, and at least all gradients of parameters."""
    kept = frozenset(_kept(graph))
    gradients = sum(_gradient(graph, path) for path in graph.params)
    least = max(gradients, sum(_bytes(graph, value) for value in kept))
    return _Taken(kept, max(ROOM * least, least + FEW))


def _full(graph: Graph, bare: _Taken, *, settled: bool) -> Iterator[int]:
    """The calls after which what was kept of the forward pass is measured.

    At each call, what the bare pass takes by then, what is kept beyond that, and the largest stack made of it stay
    within the limit.
    """
    taken, extra, stacks = 0.0, 0.0, dict[tuple[int, ...], float]()
    for op in graph.ops:
        for value in op.outputs:
            size, shape = _bytes(graph, value), graph.values[value].shape
            taken += size if value in bare.kept else 0.0
            if not _is_small(graph, value):
                continue
            beyond = 0.0 if settled and value in bare.kept else size
            stack = stacks.get(shape, 0.0) + COPIES * size
            if stacks and taken + extra + beyond + max(stack, *stacks.values()) > bare.limit:
                yield op.index - 1
                extra, stacks, stack = 0.0, {}, COPIES * size
            extra += beyond
            stacks[shape] = stack


def _due(graph: Graph, bare: _Taken) -> Iterator[int]:
    """The calls at whose gradient what was kept of the backward pass is measured: the limit holds there as well."""
    taken, held, last = sum(_bytes(graph, value) for value in bare.kept), 0.0, len(graph.ops)
    ready: set[str] = set()
    for op in reversed(graph.ops):
        size = sum(_copied(graph, value) for value in op.outputs if _is_small(graph, value))
        after = taken - sum(_bytes(graph, value) for value in op.outputs if value in bare.kept)
        after += sum(_gradient(graph, path) for path in op.params if path not in ready)
        if held and max(taken, after) + held + size > bare.limit:
            yield last
            held = 0.0
        held, last, taken = held + size, op.index if size else last, after
        ready |= set(op.params)


def _is_small(graph: Graph, value: int) -> bool:
    return math.prod(graph.values[value].shape) <= SMALL


def _copied(graph: Graph, value: int) -> float:
    """Bytes of a small gradient that is kept, and of its copy in a stack where there is one (see `log_rms_alike`)."""
    return _bytes(graph, value) * (2.0 if math.prod(graph.values[value].shape) <= TINY else 1.0)


def _gradient(graph: Graph, path: str) -> float:
    param = graph.params.get(path)
    return 0.0 if param is None or not param.requires_grad else math.prod(param.shape) * BYTES.get(param.dtype, 4)


def _kept(graph: Graph) -> set[int]:
    """The values that autograd keeps of a forward pass, views by what they are views of."""
    roots: dict[int, int] = {}
    kept: set[int] = set()
    for op in graph.ops:
        operands = [roots.get(value, value) for value in op.inputs]
        if op.kind in VIEWS and operands:
            roots |= dict.fromkeys(op.outputs, operands[0])
        elif _keeps_result(op):
            kept |= set(op.outputs)
        elif op.kind in OPERANDS_KEPT:
            kept |= set(operands)
    return {value for value in kept if graph.values[value].origin == "op"}


def _keeps_result(op: Op) -> bool:
    return op.kind in ("activation", "softmax", "elementwise") and op.function in RESULT_KEPT


def _bytes(graph: Graph, value: int) -> float:
    found = graph.values[value]
    return float(math.prod(found.shape) * BYTES.get(found.dtype, 4))
