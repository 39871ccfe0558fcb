"""Handlers of reductions: sums, means, extremes and norms over axes, running sums, the largest entries."""

from __future__ import annotations

from collections.abc import Mapping

from gradlint.onnx.node import Handler, Node, UnsupportedError
from gradlint.onnx.program import Symbol

SIMPLE = {"ReduceMean": "T.mean", "ReduceSum": "T.sum", "ReduceMax": "T.amax", "ReduceMin": "T.amin"}
NORMS = {"ReduceL1": 1.0, "ReduceL2": 2.0}


def _axes(n: Node) -> tuple[int, ...] | None:
    """The axes that go; None where the operator is told to do nothing for an empty list."""
    axes = n.ints(1, "axes")
    if not axes:
        return None if n.attr("noop_with_empty_axes", 0) else tuple(range(n.rank()))
    return tuple(sorted(axis % max(n.rank(), 1) for axis in axes))


def _reduced(n: Node, axes: tuple[int, ...]) -> tuple[tuple[int, ...], bool]:
    keep = bool(n.attr("keepdims", 1))
    sizes = enumerate(n.shape())
    return tuple(1 if i in axes else s for i, s in sizes if keep or i not in axes), keep


def simple(n: Node) -> Symbol:
    """What torch reduces over several axes at once."""
    axes = _axes(n)
    if axes is None:
        return n[0]
    if n.spec.op in ("ReduceMax", "ReduceMin") and any(n.shape()[axis] == 0 for axis in axes):
        raise UnsupportedError("an extreme of nothing")
    return n.out(SIMPLE[n.spec.op], n[0], axes, bool(n.attr("keepdims", 1))) if axes else n[0]


def norm(n: Node) -> Symbol:
    """The 1- and 2-norm."""
    axes = _axes(n)
    if axes is None or not axes:
        return n.out("T.abs", n[0])
    return n.out("L.vector_norm", n[0], NORMS[n.spec.op], axes, bool(n.attr("keepdims", 1)))


def product(n: Node) -> Symbol:
    """One axis after another."""
    axes = _axes(n) or ()
    x, keep = n[0], bool(n.attr("keepdims", 1))
    for axis in reversed(axes):
        shape = [1 if i == axis else s for i, s in enumerate(x.shape or ()) if keep or i != axis]
        x = n.step("T.prod", x, axis, keep, shape=shape, dtype=x.dtype)
    return x


def square_sum(n: Node) -> Symbol:
    """Σ x²."""
    axes = _axes(n)
    squares = n.like("T.square", n[0])
    return n.out("T.sum", squares, axes, bool(n.attr("keepdims", 1))) if axes else squares


def log_sum(n: Node) -> Symbol:
    """log Σ x."""
    axes = _axes(n)
    if not axes:
        return n.out("T.log", n[0])
    shape, keep = _reduced(n, axes)
    return n.out("T.log", n.step("T.sum", n[0], axes, keep, shape=shape, dtype=n[0].dtype))


def log_sum_exp(n: Node) -> Symbol:
    """log Σ exp x."""
    axes = _axes(n)
    return n.out("T.logsumexp", n[0], axes, bool(n.attr("keepdims", 1))) if axes else n[0]


def extreme_place(n: Node) -> Symbol:
    """Where the largest or smallest entry stands, the first or the last of equal ones."""
    axis, keep = n.axis(n.attr("axis", 0)), bool(n.attr("keepdims", 1))
    function = {"ArgMax": "T.argmax", "ArgMin": "T.argmin"}[n.spec.op]
    if not n.attr("select_last_index", 0):
        return n.out(function, n[0], axis, keep)
    shape, dtype = n.results[0]
    place = n.step(function, n.like("T.flip", n[0], (axis,)), axis, keep, shape=shape, dtype=dtype)
    return n.out("M.__rsub__", place, n.shape()[axis] - 1)


def running_sum(n: Node) -> Symbol:
    """Sums up to each place, from either end, with or without the entry itself."""
    axis = n.axis(int(n.number(1)))
    turned = bool(n.attr("reverse", 0))
    x = n.like("T.flip", n[0], (axis,)) if turned else n[0]
    y = n.like("T.cumsum", x, axis)
    if n.attr("exclusive", 0):
        y = n.like("T.sub", y, x)
    return n.like("T.flip", y, (axis,)) if turned else y


def largest(n: Node) -> list[Symbol]:
    """The k largest or smallest entries and their places."""
    count = int(n.number(1, "k"))
    ordered = bool(n.attr("largest", 1)), bool(n.attr("sorted", 1))
    return n.outs("T.topk", n[0], count, n.attr("axis", -1), *ordered)


HANDLERS: Mapping[str, Handler] = {
    **dict.fromkeys(SIMPLE, simple),
    **dict.fromkeys(NORMS, norm),
    "ReduceProd": product,
    "ReduceSumSquare": square_sum,
    "ReduceLogSum": log_sum,
    "ReduceLogSumExp": log_sum_exp,
    "ArgMax": extreme_place,
    "ArgMin": extreme_place,
    "CumSum": running_sum,
    "TopK": largest,
}
