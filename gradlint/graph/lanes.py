"""Where an axis of the inputs lies in every value: followed through the ops that keep its entries apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered

Fate = Literal["mixed", "scrambled", "gone", "unknown"]


@dataclass(frozen=True)
class Lane:
    """An axis of the inputs inside a value: `count` entries, `inner` apart, within axis `axis` of the value.

    `inner` is 1 and `count` the whole axis where the axis is still one of its own; elsewhere it was merged with others.
    """

    axis: int
    count: int
    inner: int = 1


Where = Lane | Fate
Transfer = Callable[[Graph, Op, Lane], Where]


@remembered
def lanes(graph: Graph) -> tuple[Mapping[int, Where], Mapping[int, Where]]:
    """Where axis 0 and where axis 1 of the inputs lies in each value that depends on them, by value id.

    A Fate says why it lies nowhere: "mixed" (an op combines its entries), "scrambled" (a reshape cuts across it, so
    that no axis of the value is made of it), "gone" (one entry was picked, or it was summed over), "unknown". Only
    inputs that have as many entries on the axis as the first one count; without two entries there is nothing to follow.
    """
    return _followed(graph, 0), _followed(graph, 1)


def _followed(graph: Graph, axis: int) -> Mapping[int, Where]:
    shapes = [graph.values[v].shape for v in graph.inputs]
    sizes = [shape[axis] for shape in shapes if len(shape) > axis]
    found: dict[int, Where] = {
        v: Lane(axis, sizes[0])
        for v, shape in zip(graph.inputs, shapes, strict=True)
        if len(shape) > axis and shape[axis] == sizes[0] > 1
    }
    for op in graph.ops:
        if op.outputs and any(v in found for v in op.inputs):
            found |= dict.fromkeys(op.outputs, _through(graph, op, found))
    return found


def _through(graph: Graph, op: Op, found: Mapping[int, Where]) -> Where:
    """Where the lane lies in the op's output: where its operands agree, the first operand decides."""
    data = [v for v in op.inputs if v in found]
    kept = [v for v in data if isinstance(found[v], Lane)]
    if not kept:
        return next(place for v in data if not isinstance(place := found[v], Lane))
    images = [_image(graph, op, v, found[v]) for v in kept]
    if any(isinstance(found[v], str) and found[v] != "gone" for v in data):
        return next(place for v in data if isinstance(place := found[v], str) and place != "gone")
    return images[0] if len(set(images)) == 1 else "mixed" if "mixed" in images else "unknown"


def _image(graph: Graph, op: Op, value: int, place: Where) -> Where:
    assert isinstance(place, Lane)
    transfer = BY_KIND.get(op.kind)
    beyond = place.axis >= len(graph.values[value].shape)  # a further output of an op, such as the lengths of sequences
    return "unknown" if transfer is None or beyond else transfer(graph, _seen(op, value), place)


def _seen(op: Op, value: int) -> Op:
    """The op with the value as its first input: what the transfers read the shape of."""
    if op.inputs and op.inputs[0] == value:
        return op
    rest = [(v, r) for v, r in zip(op.inputs, op.roles, strict=True) if v != value]
    mine = next(r for v, r in zip(op.inputs, op.roles, strict=True) if v == value)
    fields = {name: getattr(op, name) for name in Op.__dataclass_fields__}
    fields |= {"inputs": (value, *(v for v, _ in rest)), "roles": (mine, *(r for _, r in rest))}
    return Op(**fields)


def _shape(graph: Graph, op: Op) -> tuple[int, ...]:
    return graph.values[op.inputs[0]].shape


def _result(graph: Graph, op: Op) -> tuple[int, ...]:
    return graph.values[op.outputs[0]].shape


def _aligned_right(graph: Graph, op: Op, lane: Lane) -> Where:
    """Pointwise ops: the same axis, counted from the right where the other operand has more of them."""
    axis = lane.axis + len(_result(graph, op)) - len(_shape(graph, op))
    same = axis >= 0 and _result(graph, op)[axis] == _shape(graph, op)[lane.axis]
    return Lane(axis, lane.count, lane.inner) if same else "unknown"


def _same_axis(graph: Graph, op: Op, lane: Lane) -> Where:
    """Ops that change axes after the lane's own and combine nothing along it."""
    before, after = _shape(graph, op), _result(graph, op)
    same = lane.axis < len(after) and before[lane.axis] == after[lane.axis]
    return lane if same else "unknown"


def _leading(graph: Graph, op: Op, lane: Lane) -> Where:
    """Convolutions and pools: they combine everything but axis 0."""
    return _same_axis(graph, op, lane) if lane.axis == 0 else "mixed"


def _linear(graph: Graph, op: Op, lane: Lane) -> Where:
    return "mixed" if lane.axis == len(_shape(graph, op)) - 1 else _same_axis(graph, op, lane)


def _over(graph: Graph, op: Op, lane: Lane) -> Where:
    """A softmax or norm: it combines what lies along its own axes."""
    axes = op.attrs.get("axes", op.attrs.get("dim"))
    over = axes if isinstance(axes, tuple) else (axes,)
    if op.function == "batch_norm":
        return _same_axis(graph, op, lane)  # the statistics of the batch are no leak between predictions
    return "mixed" if lane.axis in over else _same_axis(graph, op, lane)


def _permute(graph: Graph, op: Op, lane: Lane) -> Where:
    dims = op.attrs.get("dims")
    return Lane(dims.index(lane.axis), lane.count, lane.inner) if isinstance(dims, tuple) else "unknown"


def _reshape(graph: Graph, op: Op, lane: Lane) -> Where:
    """The numbers stay in row-major order: the lane's stride is found again among the new axes."""
    before, after = _shape(graph, op), _result(graph, op)
    if math.prod(before) != math.prod(after):
        return "unknown"
    stride = lane.inner * math.prod(before[lane.axis + 1 :])
    end, below = stride * lane.count, 1
    for axis in range(len(after) - 1, -1, -1):
        above = below * after[axis]
        if below <= stride and end <= above and after[axis] > 1:
            whole = stride % below == 0 and above % end == 0
            return Lane(axis, lane.count, stride // below) if whole else "scrambled"
        below = above
    edges = {math.prod(after[axis:]) for axis in range(len(after) + 1)}
    return "unknown" if {stride, end} <= edges else "scrambled"


def _slice(graph: Graph, op: Op, lane: Lane) -> Where:
    """What picks one entry of the lane's axis loses it; what picks along others shifts it."""
    before, after = _shape(graph, op), _result(graph, op)
    index = op.attrs.get("index")
    if isinstance(index, tuple) and "dim" not in op.attrs:
        return _indexed(index, before, after, lane)
    dim = op.attrs.get("dim")
    if dim == lane.axis:
        return "gone" if len(after) < len(before) else "unknown"
    if len(after) < len(before):
        return Lane(lane.axis - (isinstance(dim, int) and dim < lane.axis), lane.count, lane.inner)
    return _same_axis(graph, op, lane)


def _indexed(index: tuple[object, ...], before: tuple[int, ...], after: tuple[int, ...], lane: Lane) -> Where:
    items = list(index)
    if "..." in items:
        at = items.index("...")
        filled = [("slice", None, None, None)] * (len(before) - sum(i is not None for i in items) + 1)
        items[at : at + 1] = filled
    axis = shift = 0
    for item in items:
        if item is None:
            shift += axis <= lane.axis
            continue
        if isinstance(item, str):
            return "unknown"  # a mask or a tensor
        if axis == lane.axis:
            if isinstance(item, int):
                return "gone"
            break
        shift -= isinstance(item, int)
        axis += 1
    place = lane.axis + shift
    kept = 0 <= place < len(after) and after[place] == before[lane.axis]
    return Lane(place, lane.count, lane.inner) if kept else "unknown"


def _reduce(graph: Graph, op: Op, lane: Lane) -> Where:
    dims = op.attrs.get("dims")
    if not isinstance(dims, tuple) or lane.axis in dims or not dims:
        return "gone"
    dropped = 0 if op.attrs.get("keepdim") else sum(isinstance(d, int) and d < lane.axis for d in dims)
    return Lane(lane.axis - dropped, lane.count, lane.inner)


def _joined(graph: Graph, op: Op, lane: Lane) -> Where:
    dim = op.attrs.get("dim")
    if op.function == "stack":
        return Lane(lane.axis + (isinstance(dim, int) and dim <= lane.axis), lane.count, lane.inner)
    return "unknown" if dim == lane.axis else _same_axis(graph, op, lane)


def _product(graph: Graph, op: Op, lane: Lane) -> Where:
    """A product of two activations keeps the axes before the last two, and the rows of its first factor."""
    rank = len(_shape(graph, op))
    last = rank - lane.axis
    if last > 2:
        return _aligned_right(graph, op, lane)
    first = op.roles[0] in ("input", "mat1", "query", "")
    if last == 2 and first and rank == len(_result(graph, op)):
        return lane
    return "mixed" if (last == 1) == first else "unknown"


def _attention(graph: Graph, op: Op, lane: Lane) -> Where:
    """Attention combines what lies along the axis of the keys and, in each head, along the last one."""
    rank = len(_shape(graph, op))
    return "mixed" if lane.axis >= rank - 2 else _same_axis(graph, op, lane)


def _recurrent(graph: Graph, op: Op, lane: Lane) -> Where:
    """A recurrence runs along one axis: the first one unless `batch_first`."""
    rank = len(_shape(graph, op))
    if op.attrs.get("packed"):
        return "unknown"
    if op.attrs.get("cell"):
        return _linear(graph, op, lane)
    time = 1 if op.attrs.get("batch_first") and rank == 3 else 0
    return "mixed" if lane.axis in (time, rank - 1) else _same_axis(graph, op, lane)


def _embedding(graph: Graph, op: Op, lane: Lane) -> Where:
    return lane if len(_result(graph, op)) == len(_shape(graph, op)) + 1 else "unknown"


BY_KIND: Mapping[str, Transfer] = {
    "linear": _linear,
    "conv": _leading,
    "pool": _leading,
    "resize": _leading,
    "matmul": _product,
    "activation": _aligned_right,
    "elementwise": _aligned_right,
    "add": _aligned_right,
    "mul": _aligned_right,
    "dropout": _aligned_right,
    "copy": _aligned_right,
    "expand": _aligned_right,
    "pad": _same_axis,
    "softmax": _over,
    "norm": _over,
    "permute": _permute,
    "reshape": _reshape,
    "slice": _slice,
    "split": _slice,
    "reduce": _reduce,
    "concat": _joined,
    "attention": _attention,
    "recurrent": _recurrent,
    "embedding": _embedding,
}
