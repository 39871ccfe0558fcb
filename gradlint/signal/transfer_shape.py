"""Views, permutations, broadcasts, slices and splits: the same entries in another layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gradlint.signal import layout
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Unanswered, credit
from gradlint.signal.stages import Stage, exact
from gradlint.signal.stages import flow as stage_flow
from gradlint.signal.sway import unplaced
from gradlint.signal.table import Axis, Dims, Table
from gradlint.signal.transfer_embedding import gathered
from gradlint.signal.transfer_pick import gather, largest, several
from gradlint.signal.transfer_unfold import slid, unfold


@dataclass(frozen=True)
class Step:
    """One relabelling and its adjoint on the input's layout; `key` tells it from others."""

    key: object
    forward: Callable[[Table], Table]
    back: Callable[[Table, Dims], Table]
    keeps_positions: bool = False  # whether it only touches the channels


def follow(site: Site, steps: Sequence[Step], value: int | None = None) -> Flow:
    """The flow of an op that is a chain of relabellings of its first operand."""
    source = site.id("input") if value is None else value
    fields = [site.known(source)]
    for step in steps:
        moved = fields[-1].relabelled(step.forward, step.key)
        fields.append(replace(moved, edges=fields[-1].edges) if step.keeps_positions else moved)
    still = all(step.keeps_positions for step in steps)
    if not still:
        fields[-1] = replace(fields[-1], sway=unplaced(fields[-1].sway, fields[0].edges))

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        if not steps:
            return {source: cotangent}
        table = cotangent.table
        for step, field in zip(reversed(steps), reversed(fields[:-1]), strict=True):
            table = step.back(table, field.dims)
        edges = cotangent.edges if still else ()
        return {source: Cotangent(table, edges=edges, lean=cotangent.lean, echo=cotangent.echo)}

    return Flow((fields[-1],), backward)


def viewed(shape: Sequence[int]) -> Step:
    """The same entries in another shape."""
    shape = tuple(shape)

    def back(table: Table, dims: Dims) -> Table:
        before = Table(dims, _NOTHING).shape
        return tables.regroup(tables.reshape(table, before), dims)

    return Step(("view", shape), lambda table: tables.reshape(table, shape), back)


_NOTHING = tables.constant((), 0.0).values


def permuted(order: Sequence[int]) -> Step:
    """The dimensions in another order."""
    order = tuple(order)
    inverse = [order.index(dim) for dim in range(len(order))]
    return Step(
        ("permute", order),
        lambda table: tables.permute(table, order),
        lambda table, dims: tables.regroup(tables.permute(table, inverse), dims),
    )


def narrowed(dim: int, start: int, length: int) -> Step:
    """`length` consecutive indices of a dimension."""
    return Step(
        ("narrow", dim, start, length),
        lambda table: layout.restricted(table, dim, start, length),
        lambda table, dims: layout.embedded(table, dims, dim, start),
        keeps_positions=dim == 1,
    )


def _squeezed(dim: int) -> Step:
    return Step(
        ("squeeze", dim),
        lambda table: tables.squeeze(table, [dim]),
        lambda table, dims: layout.unsqueezed(table, dim),
    )


def _unsqueezed(dim: int) -> Step:
    return Step(
        ("unsqueeze", dim),
        lambda table: layout.unsqueezed(table, dim),
        lambda table, dims: tables.squeeze(table, [dim]),
    )


def _thinned(dim: int, length: int) -> Step:
    """Every n-th index, or any other selection that keeps indices exchangeable."""
    return Step(
        ("thin", dim, length),
        lambda table: layout.resized(table, dim, length),
        lambda table, dims: layout.spread(table, dims, dim),
    )


def _reordered(dim: int, key: object) -> Step:
    """Indices in another order (flip, roll): a profile along the dimension is lost, moments are not."""
    return Step(
        ("reorder", dim, key),
        lambda table: table.collapse_along(table.at(dim)),
        lambda table, dims: tables.regroup(table.collapse_along(table.at(dim)), dims),
    )


def reshape(site: Site) -> Flow:
    """view, flatten, squeeze, unsqueeze, unflatten."""
    if site.op.function == "values":
        raise Unanswered(f"no transfer function for {site.op.function}")
    return follow(site, [viewed(site.shape())])


def permute(site: Site) -> Flow:
    """permute, transpose, movedim; a channel shuffle is a view, a transpose and a view."""
    if site.op.function == "channel_shuffle":
        return follow(site, _shuffle(site))
    dims = site.op.attrs.get("dims")
    if not isinstance(dims, Sequence):
        raise Unanswered("the permutation is not known")
    return follow(site, [permuted([int(dim) for dim in dims])])


def _shuffle(site: Site) -> list[Step]:
    shape = site.shape()
    groups = int(site.number("groups", 1))
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    order = (0, 2, 1, *range(3, len(split)))
    return [viewed(split), permuted(order), viewed(shape)]


def expand(site: Site) -> Flow:
    """expand and repeat: the tensor is constant along the new axes, and gradients add over them."""
    function = site.op.function
    if function == "unfold":
        return unfold(site)
    if function == "broadcast_tensors":
        return _together(site)
    if function not in ("expand", "expand_as", "repeat", "repeat_interleave"):
        raise Unanswered(f"no transfer function for {function}")
    source = site.field()
    shape, before = site.shape(), source.shape
    before = (1,) * (len(shape) - len(before)) + before
    target: list[tuple[Axis, ...]] = []
    interleave = function == "repeat_interleave"
    lifted: list[int] = []
    for size, length in zip(shape, before, strict=True):
        lifted.extend([length, size // length] if interleave else [size // length, length])
    for position, size in enumerate(lifted):
        kept = position % 2 == (0 if interleave else 1)
        axes = (Axis(size),) if size > 1 else ()
        target.append(axes if not kept else ())
    return _repeated(site, source, before, lifted, shape, interleave=interleave)


def _together(site: Site) -> Flow:
    """Several tensors broadcast to one shape."""
    dims = tables.dims_of(site.shape())
    fields = [site.known(value) for value in site.op.inputs]
    targets = [
        tuple(a or b for a, b in zip(((),) * (len(dims) - len(field.dims)) + field.dims, dims, strict=True))
        for field in fields
    ]
    outputs = tuple(
        field.relabelled(lambda table, target=target: tables.expand(table, target), ("broadcast", target))  # type: ignore[misc]
        for field, target in zip(fields, targets, strict=True)
    )

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        found: dict[int, Contribution] = {}
        for value, field, cotangent in zip(site.op.inputs, fields, cotangents, strict=True):
            if cotangent is not None:
                into = Cotangent(tables.sum_to(cotangent.table, field.dims))
                credit(found, value, into)
        return found

    return Flow(outputs, backward)


def _repeated(
    site: Site, source: Field, before: Sequence[int], lifted: Sequence[int], shape: Sequence[int], *, interleave: bool
) -> Flow:
    """x as (…, 1, n, …), broadcast along the new axes, and viewed in the target shape."""
    opened: list[int] = []
    for length in before:
        opened.extend([length, 1] if interleave else [1, length])

    def broadcast(table: Table) -> Table:
        dims = tuple(
            table.dims[position] or ((Axis(size),) if size > 1 else ()) for position, size in enumerate(lifted)
        )
        return tables.expand(table, dims)

    steps = [
        viewed(opened),
        Step(("repeat", tuple(lifted)), broadcast, tables.sum_to),
        viewed(shape),
    ]
    return follow(site, steps)


def split(site: Site) -> Flow:
    """chunk, split, unbind: every part with the gradient put back where it was."""
    source = site.id("input")
    x = site.known(source)
    dim = int(site.number("dim", 0))
    sizes = site.op.attrs.get("sizes")
    if not isinstance(sizes, Sequence):
        raise Unanswered("the sizes of the parts are not known")
    drop = site.op.function == "unbind"
    chains, start = [], 0
    for size in sizes:
        chains.append([narrowed(dim, start, int(size)), *([_squeezed(dim)] if drop else [])])
        start += int(size)
    flows = [follow(site, chain) for chain in chains]

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        total: Cotangent | None = None
        for flow, cotangent in zip(flows, cotangents, strict=False):
            if cotangent is not None:
                part = flow.backward([cotangent])[source]
                assert isinstance(part, Cotangent)
                total = part if total is None else total + part
        return {} if total is None else {source: total.on(x.dims)}

    outputs = tuple(flow.outputs[0] for flow in flows)
    return Flow(outputs[: len(site.op.outputs)], backward)


def slice_(site: Site) -> Flow:
    """Indexing with numbers, slices and new axes; selections along one dimension."""
    function = site.op.function
    if function == "getitem" and "tensor" in _items(site):
        return _by_tensors(site, list(_items(site)))
    tensor = _tensor_index(site)
    if tensor is not None:
        return gathered(site, *tensor)
    if function in WITH_DATA:
        return WITH_DATA[function](site)
    builder = SELECTIONS.get(function)
    if builder is None:
        raise Unanswered(f"no transfer function for {function}")
    return follow(site, builder(site))


def _items(site: Site) -> Sequence[object]:
    index = site.op.attrs.get("index")
    return index if isinstance(index, Sequence) and not isinstance(index, str) else [index]


def _by_tensors(site: Site, items: list[object]) -> Flow:
    """Indexing with integer tensors; new axes are put in at the end."""
    kept = [item for item in items if item is not None]
    bare = replace(site, op=replace(site.op, attrs=dict(site.op.attrs) | {"index": tuple(kept)}))
    roles = [role for role in site.op.roles if role.partition(".")[0] == "index"]
    if kept.count("tensor") == 1:
        place = kept.index("tensor")
        if any(_as_tuple(item) != ("slice", None, None, None) for item in kept if item != "tensor") or not roles:
            raise Unanswered("indexing with a tensor and something else")
        flow = gathered(bare, place, roles[0])
    else:
        flow = _side_by_side(bare, kept)
    found = flow.outputs[0]
    if found is None or found.shape == site.shape():
        return flow
    source = site.id("input")

    def back(cotangent: Cotangent) -> Cotangent:
        into = flow.backward([cotangent])[source]
        assert isinstance(into, Cotangent)
        return into

    return stage_flow(source, exact(Stage(found, back), site.shape()))


def _side_by_side(site: Site, items: Sequence[object]) -> Flow:
    """x[…, i, j, …] with index tensors side by side, everything else whole."""
    places = [place for place, item in enumerate(items) if item == "tensor"]
    whole = ("slice", None, None, None)
    others = [item for item in items if item != "tensor"]
    if places[-1] - places[0] + 1 != len(places) or any(_as_tuple(item) != whole for item in others):
        raise Unanswered("indexing with tensors apart from each other")
    roles = [role for role in site.op.roles if role.partition(".")[0] == "index"]
    if len(roles) != len(places):
        raise Unanswered("indexing with tensors and something else")
    indices = [site.graph.values[site.id(role)].shape for role in roles]
    rank = max(map(len, indices))
    lengths = [[((1,) * (rank - len(shape)) + shape)[dim] for shape in indices] for dim in range(rank)]
    return several(site, places[0], roles, tuple(map(max, lengths)))


def _as_tuple(item: object) -> object:
    return tuple(item) if isinstance(item, Sequence) and not isinstance(item, str) else item


def _tensor_index(site: Site) -> tuple[int, str] | None:
    """The dimension and the role of the one integer tensor that indexes, where everything else is kept whole."""
    if site.op.function == "index_select" and site.has("index"):
        return int(site.number("dim", 0)), "index"
    index = site.op.attrs.get("index")
    if site.op.function != "getitem" or not isinstance(index, Sequence) or list(index).count("tensor") != 1:
        return None
    position = list(index).index("tensor")
    whole = ("slice", None, None, None)
    if any(tuple(item) != whole if isinstance(item, Sequence) else True for item in index[:position]):
        return None
    if any(not isinstance(item, Sequence) or tuple(item) != whole for item in index[position + 1 :]):
        return None
    role = "index" if position == 0 else f"index.{position}"
    return position, role if site.has(role) else "index"


def _getitem(site: Site) -> list[Step]:
    index = site.op.attrs.get("index")
    items = list(index) if isinstance(index, Sequence) and not isinstance(index, str) else [index]
    shape = site.field().shape
    explicit = sum(1 for item in items if item is not None and item != "...")
    if "..." in items:
        position = items.index("...")
        items[position : position + 1] = [("slice", None, None, None)] * (len(shape) - explicit)
    steps: list[Step] = []
    dim = taken = 0
    for item in items:
        if item is None:
            steps.append(_unsqueezed(dim))
            dim += 1
            continue
        size = shape[taken]
        taken += 1
        if isinstance(item, int) and not isinstance(item, bool):
            steps += [narrowed(dim, item % size, 1), _squeezed(dim)]
        elif isinstance(item, Sequence) and item and item[0] == "slice":
            steps += _sliced(dim, size, item[1:])
            dim += 1
        elif isinstance(item, Sequence) and item and all(type(entry) is int for entry in item):
            steps.append(narrowed(dim, item[0] % size, 1) if len(item) == 1 else _thinned(dim, len(item)))
            dim += 1
        elif item == "mask":
            masked = site.graph.values[site.id("index")].shape
            steps += _thinned_by_mask(dim, shape, masked, site.shape()[dim])
            taken += len(masked) - 1
            dim += 1
        else:
            raise Unanswered(f"indexing with a {item}")
    return steps


def _thinned_by_mask(dim: int, shape: Sequence[int], mask: Sequence[int], count: int) -> list[Step]:
    """The dimensions that a mask covers as one, and some of its entries."""
    if dim:
        raise Unanswered("a mask after other indices")
    flat = (math.prod(mask), *shape[len(mask) :])
    return [viewed(flat), _thinned(0, count)]


def _sliced(dim: int, size: int, bounds: Sequence[object]) -> list[Step]:
    if any(bound is not None and not isinstance(bound, int) for bound in bounds):
        raise Unanswered("a slice with computed bounds")
    start, stop, step = slice(*bounds).indices(size)
    if step == 1:
        return [] if (start, stop) == (0, size) else [narrowed(dim, start, stop - start)]
    return [_thinned(dim, len(range(start, stop, step)))]


def _select(site: Site) -> list[Step]:
    dim, index = int(site.number("dim", 0)), site.op.attrs.get("index")
    if not isinstance(index, int):
        raise Unanswered("indexing with a tensor")
    return [narrowed(dim, index % site.field().shape[dim], 1), _squeezed(dim)]


def _narrow(site: Site) -> list[Step]:
    dim, start = int(site.number("dim", 0)), site.op.attrs.get("start", 0)
    if not isinstance(start, int):
        raise Unanswered("a slice with computed bounds")
    size = site.field().shape[dim]
    return [narrowed(dim, start % size if start != size else start, site.shape()[dim])]


def _roll(site: Site) -> list[Step]:
    dims = site.op.attrs.get("dims")
    given = list(dims) if isinstance(dims, Sequence) else [dims]
    return [_reordered(int(dim), site.op.function) for dim in given if isinstance(dim, int)]


WITH_DATA: dict[str, Callable[[Site], Flow]] = {
    "topk": largest,
    "sort": largest,
    "gather": gather,
    "take_along_dim": gather,
    "unfold": slid,
}

SELECTIONS: dict[str, Callable[[Site], list[Step]]] = {
    "getitem": _getitem,
    "select": _select,
    "narrow": _narrow,
    "slice": _narrow,
    "roll": _roll,
    "flip": _roll,
}


def shuffled_pixels(site: Site) -> Flow:
    """pixel_shuffle: (C r², H, W) → (C, r, r, H, W) → (C, H, r, W, r); pixel_unshuffle the other way."""
    shape, before = site.shape(), site.field().shape
    lead = len(shape) - 3
    up = site.op.function == "pixel_shuffle"
    channels, height, width = (shape if up else before)[lead], *(before if up else shape)[lead + 1 :]
    ratio = (shape[-1] // before[-1]) if up else (before[-1] // shape[-1])
    head = list(range(lead))
    if up:
        opened = (*shape[:lead], channels, ratio, ratio, height, width)
        order = [*head, lead, lead + 3, lead + 1, lead + 4, lead + 2]
    else:
        opened = (*shape[:lead], channels, height, ratio, width, ratio)
        order = [*head, lead, lead + 2, lead + 4, lead + 1, lead + 3]
    return follow(site, [viewed(opened), permuted(order), viewed(shape)])


def forgotten(flow: Flow) -> Flow:
    """The flow with its outputs taken as Gaussian."""
    return replace(flow, outputs=tuple(None if field is None else field.gaussian() for field in flow.outputs))
