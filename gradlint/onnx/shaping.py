"""Handlers of operators that move entries about: reshapes, slices, gathers, concatenations, pads, new tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from gradlint.onnx.node import Handler, Node, UnknownEntriesError, UnsupportedError, shape_of
from gradlint.onnx.program import DType, Symbol, dtype_name, known
from gradlint.onnx.shapes import TYPES, MisfitError

MANY = 2**31  # from here on an end of a slice means "to the end"


def _wanted(n: Node) -> tuple[int, ...] | None:
    """The shape of the result, where it was inferred."""
    return n.results[0][0] if n.results else None


def reshape(n: Node) -> Symbol:
    """To a shape in which 0 keeps a dimension and -1 takes what is left."""
    shape = _wanted(n)
    if shape is None:
        given = n.ints(1, "shape") or []
        keep = not n.attr("allowzero", 0)
        shape = tuple(n.shape()[i] if size == 0 and keep else size for i, size in enumerate(given))
    if n[0].shape is not None and min(shape, default=0) >= 0 and prod(n.shape()) != prod(shape):
        raise MisfitError(f"{list(n.shape())} does not reshape to {list(shape)}")
    return n[0] if n[0].shape == shape else n.out("M.reshape", n[0], shape)


def flatten(n: Node) -> Symbol:
    """To a matrix, cut before `axis`."""
    axis = n.attr("axis", 1)
    if axis == 1 and n.rank() > 1:
        return n.out("M.flatten", n[0], 1)
    shape = n.shape()
    axis = axis + len(shape) if axis < 0 else axis
    return n.out("M.reshape", n[0], (prod(shape[:axis]), prod(shape[axis:])))


def transpose(n: Node) -> Symbol:
    """Dimensions in another order, by default the reverse."""
    rank = n.rank()
    order = tuple(n.attr("perm") or range(rank - 1, -1, -1))
    if order == tuple(range(rank)):
        return n[0]
    moved = [axis for axis, source in enumerate(order) if axis != source]
    if len(moved) == 2:
        return n.out("M.transpose", n[0], *moved)
    return n.out("M.permute", n[0], order)


def squeeze(n: Node) -> Symbol:
    """Without dimensions of size 1."""
    shape = n.shape()
    axes = n.ints(1, "axes")
    gone = sorted(
        {axis % len(shape) for axis in axes} if axes is not None else {i for i, s in enumerate(shape) if s == 1}
    )
    if len(gone) == 1:
        return n.out("T.squeeze", n[0], gone[0])
    left = tuple(size for axis, size in enumerate(shape) if axis not in gone)
    return n.out("M.reshape", n[0], left) if gone else n[0]


def unsqueeze(n: Node) -> Symbol:
    """With new dimensions of size 1."""
    axes = n.ints(1, "axes") or []
    if len(axes) == 1:
        return n.out("T.unsqueeze", n[0], axes[0])
    shape, rank = list(n.shape()), n.rank() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        shape.insert(axis, 1)
    return n.out("M.reshape", n[0], tuple(shape))


def expand(n: Node) -> Symbol:
    """Broadcast to a shape; dimensions that the shape has less of keep their size."""
    shape = _wanted(n)
    if shape is None:
        shape = np.broadcast_shapes(n.shape(), tuple(n.ints(1) or ()))
    return n[0] if n[0].shape == shape else n.out("M.expand", n[0], shape)


def tile(n: Node) -> Symbol:
    """Repeated along each dimension."""
    return n.out("M.repeat", n[0], tuple(n.ints(1) or ()))


def concat(n: Node) -> Symbol:
    """One after another along an axis."""
    return n.out("T.cat", [symbol for symbol in n.inputs if symbol is not None], n.attr("axis", 1))


def split(n: Node) -> list[Symbol]:
    """Into pieces of given sizes, or of one size but for the last."""
    axis = n.axis(n.attr("axis", 0))
    sizes = n.ints(1, "split")
    if sizes is None:
        count, whole = n.attr("num_outputs") or len(n.spec.outputs), n.shape()[axis]
        size = -(-whole // count)
        sizes = [size] * (whole // size if size else 0)
        sizes += [whole - sum(sizes)] if len(sizes) < count else []
    return n.outs("T.split", n[0], list(sizes), axis)


def slice_(n: Node) -> Symbol:
    """Pieces along several axes; a negative step is a flip of a piece."""
    starts, ends = n.ints(1, "starts") or [], n.ints(2, "ends") or []
    axes = n.ints(3, "axes") or list(range(len(starts)))
    steps = n.ints(4) or [1] * len(starts)
    shape = list(n.shape())
    index, flipped = [slice(None)] * len(shape), []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape)
        places = range(
            *slice(_near(start), None if end <= -MANY and step < 0 else _near(end), step).indices(shape[axis])
        )
        if step < 0 and len(places):
            index[axis] = slice(places[-1], places[0] + 1, -step)
            flipped.append(axis)
        else:
            index[axis] = slice(places.start, places.stop, step) if len(places) else slice(0, 0)
        shape[axis] = len(places)
    whole = all(piece.indices(size) == (0, size, 1) for piece, size in zip(index, n.shape(), strict=True))
    used = tuple(
        slice(None) if piece.indices(s) == (0, s, 1) else piece for piece, s in zip(index, n.shape(), strict=True)
    )
    while used and used[-1] == slice(None):
        used = used[:-1]
    x = n[0]
    if not whole:
        if not flipped:
            return n.out("M.__getitem__", x, used)
        x = n.step("M.__getitem__", x, used, shape=shape, dtype=x.dtype)
    return n.out("T.flip", x, tuple(flipped)) if flipped else x


def _near(value: int) -> int:
    return max(min(value, MANY), -MANY)


def gather(n: Node) -> Symbol:
    """Rows of a table are an embedding; a single index selects; any other is an index along the axis."""
    axis = n.axis(n.attr("axis", 0))
    index = n[1]
    if index.data is not None and index.data.ndim == 0:
        place = int(index.data)
        return n.out("M.__getitem__", n[0], (slice(None),) * axis + (place,))
    if axis == 0 and n.rank() == 2 and n[0].kind == "param" and index.rank:
        return n.out("F.embedding", index, n[0])
    return n.out("M.__getitem__", n[0], (slice(None),) * axis + (index,))


def gather_elements(n: Node) -> Symbol:
    """One index for each entry of the result."""
    axis = n.axis(n.attr("axis", 0))
    return n.out("T.gather", n[0], axis, _counted(n, n[1], n.shape()[axis]))


def _counted(n: Node, index: Symbol, size: int) -> Symbol:
    """The index counted from the front."""
    if index.data is not None:
        return known(index.name, np.where(index.data < 0, index.data + size, index.data).astype(np.int64))
    wide = index if index.dtype == "int64" else n.like("M.to", index, DType("int64"), dtype="int64")
    return n.like("T.remainder", wide, size)


def gather_nd(n: Node) -> Symbol:
    """Entries at the places that the last axis of the index spells out."""
    return n.out("M.__getitem__", n[0], _places(n, n[1], n.attr("batch_dims", 0)))


def _places(n: Node, index: Symbol, batch: int) -> tuple[Any, ...]:
    shape = shape_of(index)
    count = shape[-1]
    before = tuple(
        known(
            f"{index.name}.{axis}",
            np.arange(shape[axis]).reshape([-1 if i == axis else 1 for i in range(len(shape) - 1)]),
        )
        for axis in range(batch)
    )
    return before + tuple(
        known(f"{index.name}.{k}", index.data[..., k])
        if index.data is not None
        else n.step("M.__getitem__", index, (Ellipsis, k), shape=shape[:-1], dtype=index.dtype)
        for k in range(count)
    )


def scatter_nd(n: Node) -> Symbol:
    """Entries written, or added, at the places that the index spells out."""
    how = n.attr("reduction", "none")
    if how not in ("none", "add"):
        raise UnsupportedError(f"a ScatterND that takes the {how}")
    return n.out("T.index_put", n[0], _places(n, n[1], 0), n[2], how == "add")


def scatter_elements(n: Node) -> Symbol:
    """Entries written, or accumulated, along an axis."""
    axis = n.axis(n.attr("axis", 0))
    index, how = _counted(n, n[1], n.shape()[axis]), n.attr("reduction", "none")
    if how == "none":
        return n.out("T.scatter", n[0], axis, index, n[2])
    reduce = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}[how]
    return n.out("T.scatter_reduce", n[0], axis, index, n[2], reduce=reduce)


def pad(n: Node) -> Symbol:
    """Constant, reflected, replicated or circular."""
    pads, rank = n.ints(1, "pads") or [], n.rank()
    axes = n.ints(3)
    if axes is not None:
        every = [0] * 2 * rank
        for place, axis in enumerate(axes):
            every[axis % rank], every[axis % rank + rank] = pads[place], pads[place + len(axes)]
        pads = every
    mode = n.attr("mode", "constant")
    found = [pads[axis + side * rank] for axis in reversed(range(rank)) for side in (0, 1)]
    while len(found) > 2 and found[-2:] == [0, 0]:
        found = found[:-2]
    if mode == "constant":
        value = n.number(2, "value", 0.0)
        return n.out("F.pad", n[0], tuple(found), "constant", value) if value else n.out("F.pad", n[0], tuple(found))
    limit = 2 * max(rank - 2, 1)
    if len(found) > limit:
        raise UnsupportedError(f"a pad by {mode} over the first dimensions")
    x, shape = n[0], n.shape()
    if rank < 2:
        raise UnsupportedError(f"a pad by {mode} of a vector")
    torch_mode = {"edge": "replicate", "wrap": "circular"}.get(mode, mode)
    wide = 2 * (rank - 2) if rank > 2 else 2
    found += [0] * (wide - len(found))
    return n.out("F.pad", x, tuple(found), torch_mode) if shape else x


def trilu(n: Node) -> Symbol:
    """The upper or lower triangle."""
    return n.out("T.triu" if n.attr("upper", 1) else "T.tril", n[0], int(n.number(1, "", 0) or 0))


def shape(n: Node) -> Symbol:
    """The shape itself, as numbers."""
    return known(n.spec.outputs[0], np.array(n.shape(), np.int64)[n.attr("start", 0) : n.attr("end")])


def size(n: Node) -> Symbol:
    """The number of entries."""
    return known(n.spec.outputs[0], np.int64(prod(n.shape())))


def constant(n: Node) -> Symbol:
    """The value that an attribute holds."""
    given = {name: value for name, value in n.spec.attrs.items() if name.startswith("value") or name == "sparse_value"}
    (name, value), *_ = given.items()
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name not in kinds and name != "value":
        raise UnsupportedError(f"a constant of {name.partition('_')[2] or 'a sparse tensor'}")
    data = np.asarray(value, kinds.get(name))
    return Symbol(n.spec.outputs[0], "buffer", tuple(data.shape), dtype_name(data), data=data)


def filled(n: Node) -> Symbol:
    """A tensor of a given shape and one value."""
    value = np.asarray(n.attr("value", np.zeros(1, np.float32)))
    target = _wanted(n) or tuple(n.ints(0) or ())
    return n.out("T.full", target, value.reshape(-1)[0].item(), dtype=DType(dtype_name(value)))


def range_(n: Node) -> Symbol:
    """Numbers from a start to a limit."""
    start, limit, step = (n.number(i) for i in range(3))
    return n.out("T.arange", start, limit, step, dtype=DType(n[0].dtype))


def eye(n: Node) -> Symbol:
    """The identity, moved off the diagonal by k."""
    rows, columns = n.shape()
    if n.attr("k", 0):
        raise UnsupportedError("an EyeLike beside the diagonal")
    return n.out("T.eye", rows, columns, dtype=DType(TYPES.get(n.attr("dtype"), n[0].dtype)))


def one_hot(n: Node) -> Symbol:
    """The values [off, on] along a new axis; an index beyond the depth is off everywhere."""
    depth, values = int(n.number(1)), n.entries(2).reshape(-1)
    index = n.like("T.remainder", n.like("M.to", n[0], DType("int64"), dtype="int64"), depth)
    shape, rank = shape_of(index), n.rank()
    axis = n.attr("axis", -1) % (rank + 1)
    lifted = (*shape[:axis], 1, *shape[axis:])
    spread = (*shape[:axis], depth, *shape[axis:])
    above, below = n.like("T.ge", n[0], -depth, dtype="bool"), n.like("T.lt", n[0], depth, dtype="bool")
    inside = n.like("T.logical_and", above, below, dtype="bool")
    places = known(
        f"{n.spec.name}.places", np.arange(depth).reshape([depth if i == axis else 1 for i in range(rank + 1)])
    )
    here = n.step(
        "T.eq", n.step("T.unsqueeze", index, axis, shape=lifted, dtype="int64"), places, shape=spread, dtype="bool"
    )
    open_ = n.step("T.unsqueeze", inside, axis, shape=lifted, dtype="bool")
    hot = n.step("T.logical_and", here, open_, shape=spread, dtype="bool")
    hot = n.like("M.to", hot, DType(n[2].dtype), dtype=n[2].dtype)
    return n.out("T.add", n.like("T.mul", hot, (values[1] - values[0]).item()), values[0].item())


def nonzero(n: Node) -> Symbol:
    """The places of what is not zero, one row a dimension."""
    found = n.step("T.nonzero", n[0], shape=None, dtype="int64")
    return n.out("T.t", found)


def einsum(n: Node) -> Symbol:
    """A sum of products by an equation."""
    return n.out("T.einsum", n.attr("equation"), *[symbol for symbol in n.inputs if symbol is not None])


def random_like(n: Node) -> Symbol:
    """Entries drawn in each run."""
    function = {"RandomNormalLike": "T.randn_like", "RandomUniformLike": "T.rand_like", "Bernoulli": "T.bernoulli"}
    return n.out(function[n.spec.op], n[0])


def random(n: Node) -> Symbol:
    """A tensor of a given shape, drawn in each run."""
    target: Sequence[int] = n.attr("shape")
    return n.out({"RandomNormal": "T.randn", "RandomUniform": "T.rand"}[n.spec.op], tuple(target))


def compress(n: Node) -> Symbol:
    """The slices for which a condition holds."""
    condition = n.entries(1)
    axis = n.attr("axis")
    if axis is None:
        raise UnknownEntriesError("a Compress of the flattened tensor")
    kept = known(f"{n.spec.name}.kept", np.flatnonzero(condition).astype(np.int64))
    return n.out("T.index_select", n[0], n.axis(axis), kept)


HANDLERS: Mapping[str, Handler] = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "ScatterElements": scatter_elements,
    "Scatter": scatter_elements,
    "Pad": pad,
    "Trilu": trilu,
    "Shape": shape,
    "Size": size,
    "Constant": constant,
    "ConstantOfShape": filled,
    "Range": range_,
    "EyeLike": eye,
    "OneHot": one_hot,
    "NonZero": nonzero,
    "Einsum": einsum,
    "RandomNormalLike": random_like,
    "RandomUniformLike": random_like,
    "Bernoulli": random_like,
    "RandomNormal": random,
    "RandomUniform": random,
    "Compress": compress,
}
