"""Whether a model means each position to see only those before it: triangular masks and one-sided padding."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.graph.ir import Graph, Op, Value

ORDERED = frozenset({"tril", "triu"})
COMPARED = frozenset({"le", "ge", "lt", "gt"})
HOPS = 8  # ops between the mask and the softmax
ANCESTORS = 64


def causal(graph: Graph, mask: int) -> bool:
    """Whether a mask hides later positions: cut from a triangle, or from comparing two ranges of positions."""
    for number in ancestors(graph, mask):
        value = graph.values[number]
        if value.origin == "buffer" and _square(value) and value.dtype in ("bool", "uint8"):
            return True
        op = graph.op_of(number)
        if op is not None and (op.function in ORDERED or (op.function in COMPARED and _ranges(graph, op.inputs) >= 2)):
            return True
    return False


def ancestors(graph: Graph, value: int) -> Iterator[int]:
    """The value and what it was computed from, nearest first, ANCESTORS of them at most."""
    pending, seen = [value], set[int]()
    while pending and len(seen) < ANCESTORS:
        number = pending.pop()
        if number in seen:
            continue
        seen.add(number)
        yield number
        op = graph.op_of(number)
        pending.extend(() if op is None else op.inputs)


def masked(graph: Graph) -> Iterator[tuple[Op, int | None]]:
    """The ops that attend under a mask, with the mask; None for an attention that is told to be causal."""
    for op in graph.ops:
        if op.kind == "attention":
            mask = graph.operand(op, "mask")
            if op.attrs.get("causal"):
                yield op, None
            elif mask is not None:
                yield op, mask.id
        elif op.kind == "softmax":
            yield from ((op, mask) for mask in _masks(graph, op))


def _masks(graph: Graph, softmax: Op) -> Iterator[int]:
    """The tensors without a gradient that were filled into, or added to, the softmax's logits."""
    value = softmax.inputs[0]
    for _ in range(HOPS):
        op = graph.op_of(value)
        if op is None or op.kind in ("matmul", "linear"):
            return
        constants = [v for v in op.inputs if not graph.values[v].requires_grad]
        if op.kind == "add" or op.function in ("masked_fill", "where"):
            yield from constants
        following = [v for v in op.inputs if graph.values[v].requires_grad]
        if not following:
            return
        value = following[0]


def shifted(graph: Graph) -> Iterator[Op]:
    """The convolutions over time that are padded before the first step alone, or cut back to that afterwards."""
    for op in graph.ops:
        data = graph.data_inputs(op) if op.kind == "conv" else ()
        if not data or len(graph.values[op.outputs[0]].shape) != 3:
            continue
        before = graph.op_of(data[0])
        readers = [graph.ops[reader] for reader in graph.values[op.outputs[0]].consumers]
        if (before is not None and _pads_before(before)) or any(map(_chops, readers)):
            yield op


def _pads_before(op: Op) -> bool:
    """Whether the op puts something before the first step and nothing after the last one."""
    sides = op.attrs.get("pad") if op.kind == "pad" else None
    return isinstance(sides, tuple) and len(sides) >= 2 and sides[0] > 0 == sides[1]


def _chops(op: Op) -> bool:
    """Whether the op cuts off the last steps: `x[..., :-p]`."""
    index = op.attrs.get("index") if op.kind == "slice" else None
    last = index[-1] if isinstance(index, tuple) and index else None
    if not isinstance(last, tuple | list) or len(last) != 4:
        return False
    return last[1] in (None, 0) and _negative(last[2])


def _negative(stop: object) -> bool:
    return isinstance(stop, int) and stop < 0


def _square(value: Value) -> bool:
    return len(value.shape) >= 2 and value.shape[-1] == value.shape[-2] > 1


def _ranges(graph: Graph, values: tuple[int, ...]) -> int:
    """How many of the values come from a range of positions."""
    return sum(_range(graph, value) for value in values)


def _range(graph: Graph, value: int) -> bool:
    for _ in range(HOPS):
        op = graph.op_of(value)
        if op is None:
            return False
        if op.function in ("arange", "cumsum"):
            return True
        if not op.inputs:
            return False
        value = op.inputs[0]
    return False
