"""Where a mask holds one tensor, elsewhere another: masked_fill and where."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from gradlint.graph import HIDING
from gradlint.signal import known, patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, white
from gradlint.signal.site import Contribution, Contributions, Dependent, Flow, Site, Unanswered, credit, shaped
from gradlint.signal.stages import EXP
from gradlint.signal.table import Dims, Table
from gradlint.signal.transfer_pointwise import applied, elementwise, into, masked_logits, unchanged
from gradlint.signal.weights import field_of


def selected(site: Site) -> Flow:
    """Logits that a mask hides are left to the softmax that reads them; others are a mixture."""
    if not site.has("mask"):
        raise Unanswered(f"{site.op.function} without a mask")
    mask, kept, filling = site.id("mask"), _kept(site), _filling(site)
    if site.op.function == "where" and isinstance(kept, int) and isinstance(filling, int) and hidden(site, kept):
        return masked_logits(site, filling, mask)
    if filling is None and not site.graph.values[site.op.outputs[0]].requires_grad:
        raise Dependent("a mask of logits")
    if filling is None and isinstance(kept, int) and _read_by_exponential(site):
        return _hidden_from_exponential(site, kept, site_mask(site, mask))
    if filling is None:
        return masked_logits(site, kept if isinstance(kept, int) else site.id("other"), mask)
    first, second = (filling, kept) if site.op.function == "masked_fill" else (kept, filling)
    return mixed(site, site_mask(site, mask), first, second)


def _read_by_exponential(site: Site) -> bool:
    """Whether all that is made of the filled tensor is its exponential."""
    readers = [site.graph.ops[index] for index in site.graph.values[site.op.outputs[0]].consumers]
    return bool(readers) and all(op.kind == "elementwise" and op.function == "exp" for op in readers)


def _hidden_from_exponential(site: Site, kept: int, mask: Field) -> Flow:
    """x, unchanged but for where it stands for minus infinity: nothing comes back from there."""
    x = site.known(kept)
    if x.shape != site.shape():
        raise Unanswered("logits that a mask repeats")
    shown = mask if site.op.function == "masked_fill" else _complement(mask)
    return Flow((replace(x, hidden=shown),), unchanged(kept, x).backward)


def _complement(mask: Field) -> Field:
    """Where a mask does not hold: E[(1−m)(1−m′)]."""
    table = mask.table.collapse()
    return Field(table.with_values(1.0 - 2.0 * mask.average + table.values), np.array([1.0 - mask.average]))


def exponential(site: Site) -> Flow:
    """e^x, which is 0 where x stands for minus infinity."""
    value = site.id("input")
    x = site.known(value)
    if x.hidden is None:
        return elementwise(site)
    whole = applied(x, x.law, EXP)
    found, split = mixture(site.shape(), x.hidden, white((), 0.0, 0.0), whole)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        _, left = split(cotangent)
        return {value: into(x, EXP, Cotangent(tables.regroup(left, x.dims)))}

    return Flow((found,), backward)


Part = int | float  # the id of a value, or a number


def _kept(site: Site) -> Part:
    """What stays of masked_fill, or is taken by where."""
    if site.has("input"):
        return site.id("input")
    number = site.op.attrs.get("input")
    if not isinstance(number, int | float):
        raise Unanswered("where without an operand")
    return float(number)


def _filling(site: Site) -> Part | None:
    """What stands elsewhere; None where a softmax is not to see it."""
    role = "value" if site.op.function == "masked_fill" else "other"
    if site.has(role):
        value = site.id(role)
        return None if hidden(site, value) else value
    number = site.op.attrs.get(role)
    if not isinstance(number, int | float):
        raise Unanswered("filled with an unknown number")
    return None if number <= -HIDING else float(number)


def hidden(site: Site, value: int) -> bool:
    """Whether a tensor holds what stands for minus infinity."""
    op = site.graph.op_of(value)
    filled = None if op is None or op.kind != "create" else op.attrs.get("fill_value", op.attrs.get("value"))
    there = value in site.graph.fixed and known.hides(site.graph, value)
    return there or (isinstance(filled, int | float) and filled <= -HIDING)


def site_mask(site: Site, value: int) -> Field:
    """How often, and where together, a mask was true in the recorded run."""
    fixed = site.graph.fixed.get(value)
    numbers = fixed.numbers if fixed is not None else site.graph.seen.get(value)
    field = None if numbers is None else shaped(field_of(numbers), site.graph.values[value].shape)
    if field is None:
        raise Unanswered(f"{site.op.function} with a mask that is not known")
    return field


def mixed(site: Site, mask: Field, first: Part, second: Part) -> Flow:
    """m·x + (1 − m)·z for a mask m that does not depend on x and z; each gets the gradient where it stands."""
    fields = (_part(site, first), _part(site, second))
    found, split = mixture(site.shape(), mask, *fields)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        out: dict[int, Contribution] = {}
        for part, field, share in zip((first, second), fields, split(cotangent), strict=True):
            if isinstance(part, int):
                credit(out, part, Cotangent(tables.sum_to(share, field.dims)))
        return out

    return Flow((found,), backward)


Split = Callable[[Cotangent], tuple[Table, Table]]


def mixture(shape: Sequence[int], mask: Field, x: Field, z: Field) -> tuple[Field, Split]:
    """m·x + (1 − m)·z, and what of its gradient stands at either, in the layout of the whole.

    E[y y′] = E[mm′]E[xx′] + E[(1−m)(1−m′)]E[zz′] + 2E[m(1−m′)]E[x]E[z].
    """
    dims = tables.dims_of(shape)
    for field in (mask, x, z):
        dims = _refined(dims, field.table, shape)
    m, own, other = (tables.expand(field.table.collapse(), dims) for field in (mask, x, z))
    inside = m.values
    outside = 1.0 - 2.0 * mask.average + inside
    crossed = 2.0 * (mask.average - inside) * x.average * z.average
    out = own.with_values(inside * own.values + outside * other.values + crossed)
    mean = mask.average * x.average + (1.0 - mask.average) * z.average

    def split(cotangent: Cotangent) -> tuple[Table, Table]:
        given = tables.regroup(cotangent.table, out.dims).collapse()
        return given.with_values(given.values * inside), given.with_values(given.values * outside)

    return Field(out, np.array([mean])), split


def filled(site: Site, mask: Field, value: int, target: int) -> Flow:
    """x[m] = y with one row of y for every place of the mask: two places never hold the same row."""
    x, y = site.known(target), site.known(value)
    rank = len(site.graph.values[site.id("index")].shape)
    rows = tables.merge_dim(y.table.collapse(), 0)
    found, split = mixture(site.shape(), mask, Field(_at_places(rows, mask.dims[:rank]), np.array([y.average])), x)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        shown, left = split(cotangent)
        often = tables.expand(mask.table.collapse(), shown.dims)
        back = _of_rows(shown, often, range(shown.starts[rank]), rows)
        out: dict[int, Contribution] = {target: Cotangent(tables.regroup(left, x.dims))}
        credit(out, value, Cotangent(tables.regroup(back, y.dims)))
        return out

    return Flow((found,), backward)


def _at_places(rows: Table, places: Dims) -> Table:
    """Rows, one a place: E[yy′] of one row where all axes of the place agree, of two rows where any differs."""
    dims = (*places, *rows.dims[1:])
    count = sum(map(len, places))
    if not rows.dims[0]:
        return Table(dims, patterns.insert(rows.values, 0, count))
    values = patterns.insert(patterns.take(rows.values, 0, 0), 0, count)
    index: list[slice | int] = [slice(None), *[1] * count]
    values[tuple(index)] = patterns.take(rows.values, 0, 1)
    return Table(dims, values)


def _of_rows(into: Table, often: Table, places: range, rows: Table) -> Table:
    """The adjoint of `_at_places`: E[gg′] over the places of a mask; `often` is how often both are in it."""
    same, different = patterns.joint(into.values, places, into.sizes)
    chosen, both = patterns.joint(often.values, places, often.sizes)
    count = math.prod(into.sizes[axis] for axis in places)
    tail = into.dims[-len(rows.dims) + 1 :] if len(rows.dims) > 1 else ()
    if rows.dims[0]:
        values = patterns.put(0, same / chosen, different / np.maximum(both, 1e-300))
        found = Table((rows.dims[0], *tail), values)
    else:
        found = Table(((), *tail), (same + (count - 1) * different) * count)
    return tables.sum_to(found, rows.dims)


def _part(site: Site, part: Part) -> Field:
    return site.known(part) if isinstance(part, int) else white((), part, 0.0)


def _refined(dims: tables.Dims, table: Table, shape: Sequence[int]) -> tables.Dims:
    own = ((),) * (len(shape) - len(table.dims)) + table.dims
    return tuple(tables.refine(a, b) if a and b else a for a, b in zip(dims, own, strict=True))
