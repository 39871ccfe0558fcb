"""Where a mask holds one tensor, elsewhere another: masked_fill and where."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlint.graph import HIDING
from gradlint.signal import known
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, white
from gradlint.signal.site import Contribution, Contributions, Dependent, Flow, Site, Unanswered, credit
from gradlint.signal.table import Table
from gradlint.signal.transfer_pointwise import masked_logits
from gradlint.signal.weights import field_of


def selected(site: Site) -> Flow:
    """Logits that a mask hides are left to the softmax that reads them; others are a mixture."""
    if not site.has("mask"):
        raise Unanswered(f"{site.op.function} without a mask")
    mask, kept, filling = site.id("mask"), _kept(site), _filling(site)
    if filling is None and not site.graph.values[site.op.outputs[0]].requires_grad:
        raise Dependent("a mask of logits")
    if filling is None:
        return masked_logits(site, kept if isinstance(kept, int) else site.id("other"), mask)
    first, second = (filling, kept) if site.op.function == "masked_fill" else (kept, filling)
    return mixed(site, site_mask(site, mask), first, second)


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
    numbers = fixed.numbers if fixed is not None else site.graph.masks.get(value)
    field = None if numbers is None else field_of(numbers)
    if field is None:
        raise Unanswered(f"{site.op.function} with a mask that is not known")
    shape = site.graph.values[value].shape
    return field if field.shape == shape else Field(tables.reshape(field.table, shape), field.mean)


def mixed(site: Site, mask: Field, first: Part, second: Part) -> Flow:
    """m·x + (1 − m)·z for a mask m that does not depend on x and z.

    E[y y′] = E[mm′]E[xx′] + E[(1−m)(1−m′)]E[zz′] + 2E[m(1−m′)]E[x]E[z]; each gets the gradient where it stands.
    """
    shape = site.shape()
    dims = tables.dims_of(shape)
    fields = [_part(site, part) for part in (first, second)]
    for field in (mask, *fields):
        dims = _refined(dims, field.table, shape)
    m, x, z = (tables.expand(field.table.collapse(), dims) for field in (mask, *fields))
    inside = m.values
    outside = 1.0 - 2.0 * mask.average + inside
    crossed = 2.0 * (mask.average - inside) * fields[0].average * fields[1].average
    out = x.with_values(inside * x.values + outside * z.values + crossed)
    mean = mask.average * fields[0].average + (1.0 - mask.average) * fields[1].average

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, out.dims).collapse()
        found: dict[int, Contribution] = {}
        for part, field, share in zip((first, second), fields, (inside, outside), strict=True):
            if isinstance(part, int):
                into = Cotangent(tables.sum_to(given.with_values(given.values * share), field.dims))
                credit(found, part, into)
        return found

    return Flow((Field(out, np.array([mean])),), backward)


def _part(site: Site, part: Part) -> Field:
    return site.known(part) if isinstance(part, int) else white((), part, 0.0)


def _refined(dims: tables.Dims, table: Table, shape: Sequence[int]) -> tables.Dims:
    own = ((),) * (len(shape) - len(table.dims)) + table.dims
    return tuple(tables.refine(a, b) if a and b else a for a, b in zip(dims, own, strict=True))
