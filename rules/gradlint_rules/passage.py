"""What lies directly before and after an op, seen through the ops that leave the numbers as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from gradlint.graph.ir import Graph, Op, Param, Value
from gradlint.graph.memo import remembered
from gradlint.probe import route

KEEPING = frozenset({"copy", "dropout"})  # the same numbers in the same shape
SHAPING = KEEPING | {"reshape", "permute", "slice", "split", "expand"}  # the same numbers in another shape
RECTIFIERS = frozenset({"relu", "relu6", "threshold"})
GATES = frozenset({"mul", "matmul", "attention"})


def is_rectifier(op: Op) -> bool:
    """Whether the op is zero, with no slope, on one side: ReLU, ReLU6 (which torch writes as a hardtanh from 0) …"""
    return op.function in RECTIFIERS or (op.function == "hardtanh" and op.attrs.get("lower") == 0)


def is_scaling(graph: Graph, op: Op) -> bool:
    """Whether the op adds or multiplies by numbers that no weight or activation is behind."""
    return op.kind in ("add", "mul") and len(graph.data_inputs(op)) == 1 and not op.params


def is_affine(graph: Graph, op: Op) -> bool:
    """Whether the op adds or multiplies by numbers or parameters that no activation is behind: a bias, a gain."""
    return op.kind in ("add", "mul") and len(graph.data_inputs(op)) == 1


def before(graph: Graph, value: int, kinds: frozenset[str] = SHAPING, *, scaled: bool = False) -> Op | None:
    """The op that made the value, seen through ops of these kinds and, with `scaled`, through scalar arithmetic."""
    return _before(graph, value, lambda op: op.kind in kinds or (scaled and is_scaling(graph, op)))


def layer(graph: Graph, op: Op) -> Op | None:
    """The op that made what the op reads, seen through dropout, a bias and a gain: what an activation belongs to."""
    value = source(graph, op)
    return None if value is None else _before(graph, value, lambda seen: seen.kind in KEEPING or is_affine(graph, seen))


def _before(graph: Graph, value: int, through: Callable[[Op], bool]) -> Op | None:
    op = graph.op_of(value)
    while op is not None and through(op):
        data = graph.data_inputs(op)
        op = graph.op_of(data[0]) if data else None
    return op


def after(graph: Graph, op: Op, kinds: frozenset[str] = SHAPING, *, biased: bool = False) -> Iterator[Op]:
    """The ops that read what the op made, seen through ops of these kinds and, with `biased`, through `is_affine`."""
    waiting, seen = list(consumers(graph, op)), set[int]()
    while waiting:
        found = waiting.pop(0)
        if found.index in seen:
            continue
        seen.add(found.index)
        if found.kind in kinds or (biased and is_affine(graph, found)):
            waiting += consumers(graph, found)
        else:
            yield found


def consumers(graph: Graph, op: Op) -> Iterator[Op]:
    """The ops that read one of the op's outputs."""
    for value in op.outputs:
        for index in graph.values[value].consumers:
            yield graph.ops[index]


def source(graph: Graph, op: Op) -> int | None:
    """The value id of the op's first data operand."""
    data = graph.data_inputs(op)
    return data[0] if data else None


def producer(graph: Graph, op: Op, kinds: frozenset[str] = SHAPING, *, scaled: bool = False) -> Op | None:
    """The op behind the first data operand of an op, seen through ops of these kinds."""
    value = source(graph, op)
    return None if value is None else before(graph, value, kinds, scaled=scaled)


def model_input(graph: Graph, layer: Op) -> int | None:
    """The model's own input that the layer reads, seen through ops that leave the numbers as they are."""
    value = source(graph, layer)
    while value is not None and value not in graph.inputs:
        op = graph.op_of(value)
        value = source(graph, op) if op is not None and op.kind in SHAPING else None
    return value


def output(graph: Graph) -> Value | None:
    """The output that a loss is applied to: the first floating one that a gradient can flow back from."""
    floating = [graph.values[v] for v in graph.outputs if graph.values[v].dtype.startswith(("float", "bfloat"))]
    return next((value for value in floating if value.requires_grad), None)


def is_gate(graph: Graph, op: Op) -> bool:
    """Whether what the op made multiplies another activation."""
    return any(found.kind in GATES and len(set(graph.data_inputs(found))) > 1 for found in after(graph, op))


@remembered
def weights(graph: Graph) -> Mapping[int, tuple[str, ...]]:
    """Per op that carries the signal through a weight, the trainable weights it reads (`gradlint.probe.route`)."""
    return route.weights(graph)


def weight(graph: Graph, op: Op) -> Param | None:
    """The weight through which the op carries the signal, or None when it has none."""
    paths = weights(graph).get(op.index, ())
    return graph.params[paths[0]] if paths else None


def features(graph: Graph, op: Op) -> int | None:
    """How many output units a linear map or a convolution has."""
    shape = graph.values[op.outputs[0]].shape
    if op.kind == "conv":
        return shape[1] if len(shape) > 2 else shape[0]
    return shape[-1] if op.kind == "linear" and shape else None
