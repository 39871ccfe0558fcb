"""Entries of a tensor replaced by others: x[index] = y, scatter, changes through a view; sums scattered by index."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradlint.graph import Op
from gradlint.signal import layout, patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, none, white
from gradlint.signal.patterns import Array
from gradlint.signal.site import Contribution, Contributions, Flow, Labels, Site, Unanswered, credit
from gradlint.signal.table import Dims, Table
from gradlint.signal.transfer_embedding import gather_of
from gradlint.signal.transfer_mask import filled, mixed, site_mask
from gradlint.signal.transfer_pointwise import unchanged

Way = Callable[[Cotangent], Cotangent]
Span = tuple[int, int, int]  # a dimension, where the part of it that is replaced starts, and its length


@dataclass(frozen=True, eq=False)
class Replaced:
    """A tensor some of whose entries are those of another; `back` splits a cotangent into what reaches either."""

    field: Field
    target: Dims
    part: Field
    spans: tuple[Span, ...]
    share: Array  # E[in in′]: both entries are replaced
    average: float

    def to_target(self, given: Cotangent) -> Cotangent:
        """What reaches the entries that were left."""
        if len(self.spans) == 1:
            return Cotangent(tables.regroup(self._outside(given.table), self.target))
        table = on(given, self.field)
        left = 1.0 - 2.0 * self.average + self.share
        return Cotangent(tables.regroup(table.with_values(table.values * left), self.target))

    def _outside(self, table: Table) -> Table:
        dim, start, length = self.spans[0]
        size = table.shape[dim]
        kept = Table(self.field.dims, np.zeros((1,) + (2,) * len(self.field.table.axes)))
        for begin, count in ((0, start), (start + length, size - start - length)):
            if count:
                part = layout.embedded(layout.restricted(table, dim, begin, count), self.field.dims, dim, begin)
                kept = tables.combine(*tables.same_classes(kept, part), np.add)
        return kept

    def to_part(self, given: Cotangent) -> Cotangent:
        """What reaches the entries that stand in their place."""
        table = on(given, self.field) if len(self.spans) > 1 else given.table
        for dim, start, length in self.spans:
            if len(self.spans) == 1:
                table = layout.restricted(table, dim, start, length)
            else:
                table = layout.resized(table, dim, length)
        return Cotangent(tables.regroup(table, self.part.dims))


def on(given: Cotangent, field: Field) -> Table:
    """The cotangent's table in a field's layout, without classes."""
    return tables.regroup(given.table, field.dims).collapse()


def replaced(x: Field, y: Field, spans: Sequence[Span]) -> Replaced:
    """x with a block of entries replaced by y, which has the block's shape.

    Along one dimension the parts stay apart as classes; a block in several is spread evenly over all positions.
    """
    spans = tuple(span for span in spans if span[2] != x.shape[span[0]])
    if not spans:
        return Replaced(y, x.dims, y, (), np.ones(1), 1.0)
    if len(spans) == 1:
        dim, start, length = spans[0]
        size = x.shape[dim]
        ends = [(0, start), (start + length, size - start - length)]
        sides = [_cut(x, dim, begin, count) if count else None for begin, count in ends]
        parts = [part for part in (sides[0], y, sides[1]) if part is not None]
        return Replaced(layout.concatenated(parts, dim), x.dims, y, spans, np.ones(1), length / size)
    wide = y.table.collapse()
    for dim, _, _ in spans:
        wide = layout.resized(wide, dim, x.shape[dim])
    own, other = tables.aligned(x.table.collapse(), wide)
    share, average = _both(own, spans)
    crossed = 2.0 * (average - share) * x.average * y.average
    values = share * other.values + (1.0 - 2.0 * average + share) * own.values + crossed
    mean = average * y.average + (1.0 - average) * x.average
    return Replaced(Field(own.with_values(values), np.array([mean])), x.dims, y, spans, share, average)


def _cut(x: Field, dim: int, start: int, length: int) -> Field:
    return x.relabelled(lambda table: layout.restricted(table, dim, start, length), ("narrow", dim, start, length))


def _both(table: Table, spans: Sequence[Span]) -> tuple[Array, float]:
    """Shares of pairs of entries of which both lie in a block, by what they have in common; and of single entries."""
    share, average = np.ones_like(table.values), 1.0
    for dim, _, length in spans:
        size = table.shape[dim]
        factor = np.full_like(table.values, length * (length - 1.0) / max(size * (size - 1.0), 1.0))
        index: list[slice | int] = [slice(None)] * factor.ndim
        for axis in table.at(dim):
            index[axis + 1] = 1
        factor[tuple(index)] = length / size
        share, average = share * factor, average * length / size
    return share, average


def setitem(site: Site) -> Flow:
    """x[index] = y with numbers and slices, with a mask, or with one tensor of distinct integers."""
    target = site.id("input")
    shape = site.graph.values[target].shape
    index = site.op.attrs.get("index")
    items = list(index) if isinstance(index, Sequence) and not isinstance(index, str) else [index]
    x = site.known(target)
    if items[:1] == ["mask"] and all(_whole(item) for item in items[1:]):
        return _masked(site, target, x)
    spans = _spans(site, items, shape)
    block = list(shape)
    for dim, _, length in spans:
        block[dim] = length
    value = site.id("other") if site.has("other") else None
    if value is not None and 0 in site.graph.values[value].shape:
        return _nothing_written(target, value, x, site.graph.values[value].shape)
    given = white((), site.number("scalar", 0.0), 0.0) if value is None else site.known(value)
    squeezed = tuple(dim for dim, item in _placed(items, len(shape)) if isinstance(item, int))
    y, back = _fitted(given, block, squeezed)
    return written(target, value, replaced(x, y, spans), back)


def _nothing_written(target: int, value: int, x: Field, shape: Sequence[int]) -> Flow:
    """x[index] = y for an index that picks none."""
    kept = unchanged(target, x)
    return Flow(kept.outputs, lambda cotangents: {**kept.backward(cotangents), value: none(shape)})


def written(target: int, value: int | None, found: Replaced, back: Way) -> Flow:
    """The flow of a replacement; `back` takes a cotangent of the block to the value that fills it."""

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        out: dict[int, Contribution] = {}
        if found.spans:
            out[target] = found.to_target(cotangent)
        if value is not None:
            into = back(found.to_part(cotangent))
            credit(out, value, into)
        return out

    return Flow((found.field,), backward)


def _fitted(given: Field, block: Sequence[int], squeezed: Sequence[int]) -> tuple[Field, Way]:
    """A field broadcast to a block of which it may lack some dimensions of length 1, and the way back."""
    opened = given
    if squeezed and len(given.dims) + len(squeezed) <= len(block):
        full = [size for dim, size in enumerate(block) if dim not in squeezed]
        lead = len(full) - len(given.dims)
        dims: list[tuple[tables.Axis, ...]] = []
        position = -lead
        for dim in range(len(block)):
            if dim in squeezed:
                dims.append(())
                continue
            dims.append(given.dims[position] if position >= 0 else ())
            position += 1
        opened = Field(replace(given.table, dims=tuple(dims)), given.mean)
    target = tables.dims_of(block)
    own = ((),) * (len(block) - len(opened.dims)) + opened.dims
    target = tuple(a if a else b for a, b in zip(own, target, strict=True))
    wide = tables.expand(opened.table, target)

    def back(cotangent: Cotangent) -> Cotangent:
        summed = tables.sum_to(cotangent.table, opened.dims)
        return Cotangent(replace(summed, dims=given.dims) if opened is not given else summed)

    mean = given.mean if len(given.mean) == len(wide.values) else np.array([given.average])
    return Field(wide, mean), back


def _whole(item: object) -> bool:
    return item == "..." or (isinstance(item, Sequence) and tuple(item) == ("slice", None, None, None))


def _placed(items: Sequence[object], rank: int) -> list[tuple[int, object]]:
    """The items with their dimensions; "..." stands for as many whole ones as are missing."""
    explicit = [item for item in items if item != "..." and item is not None]
    opened: list[object] = []
    for item in items:
        if item == "...":
            opened += [("slice", None, None, None)] * (rank - len(explicit))
        elif item is not None:
            opened.append(item)
    return list(enumerate(opened))


def _spans(site: Site, items: Sequence[object], shape: Sequence[int]) -> list[Span]:
    spans = []
    for dim, item in _placed(items, len(shape)):
        size = shape[dim]
        if isinstance(item, int) and not isinstance(item, bool):
            spans.append((dim, item % size, 1))
        elif isinstance(item, Sequence) and item and item[0] == "slice":
            if any(bound is not None and not isinstance(bound, int) for bound in item[1:]):
                raise Unanswered("a slice with computed bounds")
            chosen = range(*slice(*item[1:]).indices(size))
            spans.append((dim, chosen[0] if chosen.step == 1 and len(chosen) else 0, len(chosen)))
        elif item == "tensor" and [part for part in items if part == "tensor"] == ["tensor"]:
            role = "index" if site.has("index") else f"index.{dim}"
            spans.append((dim, 0, min(math.prod(site.graph.values[site.id(role)].shape), size)))
        else:
            raise Unanswered(f"writing to an index with {item}")
    return spans


def _masked(site: Site, target: int, x: Field) -> Flow:
    """x[mask] = y: a number, a tensor that is the same at every place of the mask, or one row for each place."""
    mask = site_mask(site, site.id("index"))
    trailing = len(x.dims) - len(mask.dims)
    opened = Field(replace(mask.table, dims=mask.dims + ((),) * trailing), mask.mean)
    if not site.has("other"):
        return mixed(site, opened, site.number("scalar", 0.0), target)
    value = site.id("other")
    if len(site.known(value).dims) <= trailing:
        return mixed(site, opened, value, target)
    return filled(site, opened, value, target)


def scatter(site: Site) -> Flow:
    """x with k entries of every row along one dimension replaced, at places that differ from row to row."""
    target, dim = site.id("input"), int(site.number("dim", 0))
    x = site.known(target)
    value = next((site.id(role) for role in ("other", "src", "value") if site.has(role)), None)
    number = next(
        (n for n in (site.op.attrs.get("value"), site.op.attrs.get("scalar")) if isinstance(n, int | float)), 1.0
    )
    count = site.graph.values[site.id("index")].shape[dim]
    y = white((), float(number), 0.0) if value is None else site.known(value)
    if value is not None and y.shape[:dim] + y.shape[dim + 1 :] != x.shape[:dim] + x.shape[dim + 1 :]:
        raise Unanswered("a scatter into more rows than it is given")
    wide = tables.expand(
        layout.resized(y.table.collapse(), dim, x.shape[dim]) if value is not None else y.table, x.dims
    )
    own = x.table.collapse()
    share, average = _both(own, [(dim, 0, count)])
    rows = np.zeros_like(share)
    index: list[slice | int] = [slice(None)] * rows.ndim
    for axis in range(len(own.axes)):
        if axis not in own.at(dim):
            index[axis + 1] = 1
    rows[tuple(index)] = 1.0
    share = np.where(rows > 0, share, average**2)
    crossed = 2.0 * (average - share) * x.average * y.average
    left = 1.0 - 2.0 * average + share
    field = Field(
        own.with_values(share * wide.values + left * own.values + crossed),
        np.array([average * y.average + (1.0 - average) * x.average]),
    )

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = on(cotangent, field)
        out: dict[int, Contribution] = {target: Cotangent(given.with_values(given.values * left))}
        if value is not None:
            out[value] = Cotangent(tables.regroup(layout.resized(given, dim, count), y.dims))
        return out

    return Flow((field,), backward)


def added(site: Site) -> Flow:
    """x plus the entries of y, each where its index says: the adjoint of gathering by the same indices."""
    target, dim = site.id("input"), int(site.number("dim", 0))
    value = site.id("other") if site.has("other") else site.id("src")
    x, y = site.known(target), site.known(value)
    index = site.graph.values[site.id("index")]
    if len(index.shape) not in (1, len(y.dims)):
        raise Unanswered("indices of another shape")
    labels = _rows_of(site, index.id, dim) if len(index.shape) > 1 else site.labels("index", x.shape[dim])
    moved = gather_of(Field(Table(x.dims, x.table.collapse().values), np.zeros(1)), dim, labels, x.shape[dim])
    spread = moved.back(Cotangent(y.table.collapse()))
    count = y.shape[dim] / x.shape[dim]
    summed = tables.combine(*tables.same_classes(x.table, tables.regroup(spread.table, x.dims)), np.add)
    crossed = 2.0 * x.average * y.average * count
    field = Field(
        summed.with_values(summed.values + crossed), np.full(len(summed.values), x.average + y.average * count)
    )

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = Field(on(cotangent, field), np.zeros(1))
        into = gather_of(given, dim, labels, x.shape[dim]).field.table
        return {target: cotangent, value: Cotangent(tables.regroup(into, y.dims))}

    return Flow((field,), backward)


def _rows_of(site: Site, index: int, dim: int) -> Table:
    """The labels of an index that is the same along all dimensions but one, as scatter_add takes it."""
    found: Labels | None = site.indices.get(index)
    if found is None:
        raise Unanswered("the indices are not known")
    table = found.field.table
    rest = [axis for axis in range(len(table.axes)) if axis not in table.at(dim)]
    values = patterns.take_all(table.values, rest)
    rows = site.graph.values[site.id("input")].shape[dim]
    values = values if not found.random else values + (1.0 - values) / rows
    return Table((table.dims[dim],), values)


def rebased(site: Site, flow: Flow) -> Flow:
    """The flow of a change through a view, which changes the tensor that it is a view of as well."""
    viewed = site.graph.op_of(site.op.inputs[0]) if site.op.inputs else None
    if viewed is None or not viewed.inputs or flow.outputs[0] is None:
        return flow
    base, part = viewed.inputs[0], flow.outputs[0]
    if site.graph.values[base].shape != site.shape(len(site.op.outputs) - 1):
        return flow
    found, back = _behind_view(site, viewed, base, part)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        own, whole = cotangents[0], cotangents[-1]
        if whole is None:
            return flow.backward([own])
        into = back(found.to_part(whole)) if found is not None else back(whole)
        out = dict(flow.backward([into if own is None else own + into]))
        if found is not None and found.spans:
            left = found.to_target(whole)
            credit(out, base, left)
        return out

    field = (
        found.field
        if found is not None
        else Field(tables.reshape(part.table, site.graph.values[base].shape), part.mean)
    )
    return Flow((*flow.outputs, field), backward, flow.doubt)


def _behind_view(site: Site, viewed: Op, base: int, part: Field) -> tuple[Replaced | None, Way]:
    if viewed.kind == "reshape":
        return None, lambda cotangent: Cotangent(tables.regroup(tables.reshape(cotangent.table, part.shape), part.dims))
    if viewed.kind != "slice" or viewed.function not in ("getitem", "select", "narrow"):
        raise Unanswered(f"a change through {viewed.function}")
    shape = site.graph.values[base].shape
    index = viewed.attrs.get("index")
    items = list(index) if isinstance(index, Sequence) and not isinstance(index, str) else [index]
    if viewed.function == "select":
        items = [("slice", None, None, None)] * int(str(viewed.attrs.get("dim", 0))) + [index]
    elif viewed.function == "narrow":
        start, length = viewed.attrs.get("start", 0), viewed.attrs.get("length", 1)
        if not isinstance(start, int) or not isinstance(length, int):
            raise Unanswered("a slice with computed bounds")
        items = [("slice", None, None, None)] * int(str(viewed.attrs.get("dim", 0))) + [
            ("slice", start, start + length, 1)
        ]
    spans = _spans(site, items, shape)
    block = list(shape)
    for dim, _, length in spans:
        block[dim] = length
    squeezed = tuple(dim for dim, item in _placed(items, len(shape)) if isinstance(item, int))
    y, back = _fitted(part, block, squeezed)
    return replaced(site.known(base), y, spans), back
