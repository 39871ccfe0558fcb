"""Handlers of operators that hold graphs or sequences: branches, loops, lists of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gradlint.onnx.node import Node, UnknownEntriesError, UnsupportedError, shape_of
from gradlint.onnx.program import Bundle, Symbol, known

UNROLLED = 256  # steps of a loop that are written out


def branch(n: Node) -> list[Symbol]:
    """The branch that the condition takes, where that is the same in every run."""
    truth = bool(n.entries(0).reshape(-1)[0])
    return n.body(n.attr("then_branch" if truth else "else_branch"), ())


def loop(n: Node) -> list[Any]:
    """The body as often as it runs, where that is the same in every run."""
    most = int(n.number(0)) if n.get(0) is not None else None
    going = bool(n.entries(1).reshape(-1)[0]) if n.get(1) is not None else True
    carried: list[Any] = list(n.inputs[2:])
    stacked: list[list[Symbol]] = []
    turn = 0
    while going and (most is None or turn < most):
        if turn >= UNROLLED:
            raise UnsupportedError(f"a Loop of more than {UNROLLED} steps")
        counter, condition = known("turn", np.int64(turn)), known("going", np.bool_(going))
        results = n.body(n.attr("body"), [counter, condition, *carried])
        going = bool(n.emitter.entries(results[0]).reshape(-1)[0])
        kept = len(carried)
        carried, collected = list(results[1 : 1 + kept]), results[1 + kept :]
        stacked = stacked or [[] for _ in collected]
        for every, symbol in zip(stacked, collected, strict=True):
            every.append(symbol)
        turn += 1
    if turn == 0 and len(n.spec.outputs) > len(carried):
        raise UnsupportedError("a Loop that does not run")
    return [*carried, *(_stack(n, every, 0) for every in stacked)]


def scan(n: Node) -> list[Symbol]:
    """The body once for each slice of the scanned inputs."""
    if n.version < 9:
        raise UnsupportedError("a Scan of operator set 8")
    count = n.attr("num_scan_inputs")
    state = [symbol for symbol in n.inputs[: len(n.inputs) - count] if symbol is not None]
    scanned = [n[len(n.inputs) - count + i] for i in range(count)]
    axes = list(n.attr("scan_input_axes") or [0] * count)
    turned = list(n.attr("scan_input_directions") or [0] * count)
    length = shape_of(scanned[0])[axes[0]]
    if length > UNROLLED:
        raise UnsupportedError(f"a Scan of more than {UNROLLED} steps")
    stacked: list[list[Symbol]] = []
    for turn in range(length):
        slices = [
            _selected(n, x, axis, length - 1 - turn if back else turn)
            for x, axis, back in zip(scanned, axes, turned, strict=True)
        ]
        results = n.body(n.attr("body"), [*state, *slices])
        state, collected = results[: len(state)], results[len(state) :]
        stacked = stacked or [[] for _ in collected]
        for every, symbol in zip(stacked, collected, strict=True):
            every.append(symbol)
    places = list(n.attr("scan_output_axes") or [0] * len(stacked))
    back = list(n.attr("scan_output_directions") or [0] * len(stacked))
    ordered = [every[::-1] if turn else every for every, turn in zip(stacked, back, strict=True)]
    return [*state, *(_stack(n, every, axis) for every, axis in zip(ordered, places, strict=True))]


def _selected(n: Node, x: Symbol, axis: int, place: int) -> Symbol:
    shape = shape_of(x)
    axis %= len(shape)
    left = shape[:axis] + shape[axis + 1 :]
    return n.step("M.__getitem__", x, (slice(None),) * axis + (place,), shape=left, dtype=x.dtype)


def _stack(n: Node, every: list[Symbol], axis: int) -> Symbol:
    shape = every[0].shape
    if shape is not None:
        axis %= len(shape) + 1
        shape = (*shape[:axis], len(every), *shape[axis:])
    if all(symbol.data is not None for symbol in every):
        return known("stacked", np.stack([symbol.data for symbol in every if symbol.data is not None], axis))
    return n.step("T.stack", list(every), axis, shape=shape, dtype=every[0].dtype)


# -- sequences ---------------------------------------------------------------------------------------------------------


def construct(n: Node) -> Any:
    """The inputs as a sequence."""
    return Bundle([symbol for symbol in n.inputs if symbol is not None])


def at(n: Node) -> Symbol:
    """One of a sequence."""
    return _items(n)[int(n.number(1))]


def length(n: Node) -> Symbol:
    """How many there are."""
    return known(n.spec.outputs[0], np.int64(len(_items(n))))


def insert(n: Node) -> Any:
    """The sequence with one more."""
    items = list(_items(n))
    place = int(n.number(2)) if n.get(2) is not None else len(items)
    items.insert(place if place >= 0 else place + len(items), n[1])
    return Bundle(items)


def erase(n: Node) -> Any:
    """The sequence with one less."""
    items = list(_items(n))
    del items[int(n.number(1)) if n.get(1) is not None else -1]
    return Bundle(items)


def joined(n: Node) -> Symbol:
    """The sequence as one tensor, along an old or a new axis."""
    items, axis = _items(n), n.attr("axis")
    if n.attr("new_axis", 0):
        return _stack(n, items, axis)
    shapes = [shape_of(item) for item in items]
    axis %= len(shapes[0])
    shape = [sum(s[axis] for s in shapes) if i == axis else size for i, size in enumerate(shapes[0])]
    return n.step("T.cat", list(items), axis, shape=shape, dtype=items[0].dtype)


def pieces(n: Node) -> Any:
    """A tensor cut into a sequence."""
    axis = n.axis(n.attr("axis", 0))
    whole, keep = n.shape(), True
    given = n.get(1)
    if given is None:
        sizes, keep = [1] * whole[axis], bool(n.attr("keepdims", 1))
    elif given.rank == 0:
        size = int(n.number(1))
        sizes = [min(size, whole[axis] - start) for start in range(0, whole[axis], size)]
    else:
        sizes = n.ints(1) or []
    described = [((*whole[:axis], size, *whole[axis + 1 :]), n[0].dtype) for size in sizes]
    found = n.emitter.emit("torch.split", (n[0], sizes, axis), {}, described, n.spec.place)
    if keep:
        return Bundle(list(found))
    left = whole[:axis] + whole[axis + 1 :]
    return Bundle([n.step("T.squeeze", x, axis, shape=left, dtype=x.dtype) for x in found])


def _items(n: Node) -> list[Symbol]:
    bundle: Any = n.inputs[0]
    if not isinstance(bundle, Bundle):
        raise UnknownEntriesError("a sequence that is only known during a run")
    return bundle.items


HANDLERS: Mapping[str, Any] = {
    "If": branch,
    "Loop": loop,
    "Scan": scan,
    "SequenceConstruct": construct,
    "SequenceEmpty": construct,
    "SequenceAt": at,
    "SequenceLength": length,
    "SequenceInsert": insert,
    "SequenceErase": erase,
    "ConcatFromSequence": joined,
    "SplitToSequence": pieces,
}
