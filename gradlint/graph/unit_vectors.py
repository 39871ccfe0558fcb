"""Values whose vectors along one axis have at most length 1: what a product of two of them can be is bounded."""

from __future__ import annotations

from collections.abc import Mapping

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered

KEEPING = frozenset({"copy", "expand", "slice", "split"})  # vectors that stay whole, where the rank stays
SHIFTED = frozenset({"clamp", "add"})  # a norm that is kept above a small number


@remembered
def unit_axes(graph: Graph) -> Mapping[int, int]:
    """Per value the axis along which its vectors have length 1 or less: `normalize(x)`, `x / x.norm()`, and parts."""
    known: dict[int, int] = {}
    for op in graph.ops:
        axis = _axis(graph, op, known)
        if axis is not None:
            known |= {
                v: axis for v in op.outputs if len(graph.values[v].shape) == len(graph.values[op.inputs[0]].shape)
            }
    return known


def is_cosine(graph: Graph, op: Op) -> bool:
    """Whether each entry of a product is that of two vectors of length 1 at most, and so lies in -1 … 1."""
    if op.kind not in ("matmul", "linear") or len(op.inputs) != 2:
        return False
    axes = unit_axes(graph)
    first, second = op.inputs
    if first not in axes or second not in axes:
        return False
    ranks = [len(graph.values[value].shape) for value in op.inputs]
    inner = 1 if op.kind == "linear" or ranks[1] == 1 else ranks[1] - 2
    return axes[first] == ranks[0] - 1 and axes[second] == (0 if ranks[1] == 1 else inner)


def _axis(graph: Graph, op: Op, known: Mapping[int, int]) -> int | None:
    if op.function == "normalize":
        return _euclidean(op, "axes")
    if op.function == "div" and len(op.inputs) == 2:
        return _divided(graph, op)
    moved = known.get(op.inputs[0]) if op.inputs else None
    if moved is None or op.kind == "concat":
        return _joined(op, known) if op.kind == "concat" else None
    if op.kind == "permute":
        dims = op.attrs.get("dims")
        return dims.index(moved) if isinstance(dims, tuple) and moved in dims else None
    return moved if op.kind in KEEPING else None


def _joined(op: Op, known: Mapping[int, int]) -> int | None:
    axes = {known.get(value) for value in op.inputs}
    axis = axes.pop()
    return axis if not axes and axis is not None and op.function == "cat" and op.attrs.get("dim") != axis else None


def _divided(graph: Graph, op: Op) -> int | None:
    """The axis of x / ‖x‖, of which the norm may be kept above a small number."""
    norm = graph.op_of(op.inputs[1])
    while norm is not None and norm.function in SHIFTED and len(norm.inputs) == 1:
        norm = graph.op_of(norm.inputs[0])
    whole = (
        norm is not None and norm.function == "norm" and norm.attrs.get("keepdim") and norm.inputs[0] == op.inputs[0]
    )
    return _euclidean(norm, "dims") if norm is not None and whole else None


def _euclidean(op: Op, name: str) -> int | None:
    """The one axis of a norm of order 2."""
    axes = op.attrs.get(name)
    return axes[0] if isinstance(axes, tuple) and len(axes) == 1 and op.attrs.get("p", 2.0) in (2, 2.0, "fro") else None
