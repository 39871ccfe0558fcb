"""Products of tensors summed over shared indices, in any layout: einsum, and every matrix product as one."""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.attention_products import product
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.letters import Factor, Letters, lettered
from gradlint.signal.patterns import Array
from gradlint.signal.samples import by_sample, evened
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Unanswered, credit
from gradlint.signal.table import Profile, Table


def contracted(factors: Sequence[Factor], result: str) -> Flow:
    """The product of independent tensors, summed over the letters that the result lacks.

    E[y y′] is Σ over pairs of summed indices of the product of the operands' E[x x′]; the gradient of one operand is
    the same kind of sum of the cotangent and the other operands.
    """
    letters = lettered(factors, result)
    kind = product(factors, letters)
    told = _told(factors, result)

    def whole(parts: Sequence[Table]) -> Table:
        return _product([_spread(t, factor.letters, letters) for factor, t in zip(factors, parts, strict=True)])

    seen = whole([kind.seen(factor, table) for factor, table in zip(factors, told, strict=True)])
    values = patterns.pair_sum(seen.values, letters.at(letters.summed), letters.sizes)
    out = Table(tuple(letters.axes[c] for c in result), values, seen.profile)
    spread = [_spread(table, factor.letters, letters) for factor, table in zip(factors, told, strict=True)]
    means = [_mean(factor.field, table) for factor, table in zip(factors, spread, strict=True)]
    field = kind.made(Field(out, math.prod(means[1:], start=means[0] * float(letters.size(letters.summed)))))

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, out.dims)
        found: dict[int, Contribution] = {}
        for factor in factors:
            arrived, echo = kind.arrived(factor, given, cotangent)
            others = [
                kind.beside(other, table, field, cotangent)
                for other, table in zip(factors, spread, strict=True)
                if other is not factor
            ]
            into = _gathered(_product([_spread(arrived, result, letters), *others]), factor, letters)
            lean = kind.lean(factor, field, cotangent)
            credit(found, factor.value, Cotangent(into, lean=lean, echo=echo, features=kind.features(factor)))
        return found

    return Flow((field,), backward)


def _told(factors: Sequence[Factor], result: str) -> list[Table]:
    """The operands' tables, of which one may keep classes: along a letter of the result that no other operand has.

    Samples are kept apart in all operands.
    """
    fields = [factor.field.table for factor in factors]
    if any(by_sample(t) and _letter_of(t, factor.letters) in result for factor, t in zip(factors, fields, strict=True)):
        return [evened(table) for table in fields]
    found, met = [], False
    for factor in factors:
        table = factor.field.table
        letter = "" if table.profile is None else _letter_of(table, factor.letters)
        elsewhere = "".join(other.letters for other in factors if other is not factor)
        own = letter != "" and letter in result and letter not in elsewhere
        found.append(table if own and not met else table.collapse())
        met = met or own
    return found


def _letter_of(table: Table, letters: str) -> str:
    """The letter of the dimension along which a table has classes."""
    assert table.profile is not None
    return next(c for dim, c in enumerate(letters) if table.profile.axis in table.at(dim))


def _mean(field: Field, table: Table) -> Array:
    return field.mean if len(field.mean) == len(table.values) else np.array([field.average])


def _product(parts: Sequence[Table]) -> Table:
    """Tables of one layout multiplied entry by entry, class by class where they have the same classes."""
    return functools.reduce(lambda a, b: tables.combine(*tables.same_classes(a, b), np.multiply), parts)


def _spread(table: Table, own: str, letters: Letters) -> Table:
    """The table over the axes of all letters; the tensor is constant along those that it lacks."""
    grouped = tables.expand(table, tuple(letters.axes[c] for c in own))
    turned = tables.permute(grouped, [own.index(c) for c in letters.order if c in own])
    opened = tuple(letters.axes[c] if c in own else () for c in letters.order)
    return tables.expand(replace(turned, dims=opened), tuple(letters.axes[c] for c in letters.order))


def _gathered(table: Table, factor: Factor, letters: Letters) -> Table:
    """The gradient of one operand: summed over the letters that it lacks, in its own layout."""
    gone = letters.at("".join(c for c in letters.order if c not in factor.letters))
    table = table.collapse_along(gone)
    profile = table.profile
    if profile is not None:
        profile = Profile(profile.axis - sum(axis < profile.axis for axis in gone), profile.counts)
    ordered = [c for c in letters.order if c in factor.letters]
    dims = tuple(letters.axes[c] for c in ordered)
    kept = Table(dims, patterns.pair_sum(table.values, gone, letters.sizes), profile)
    turned = tables.permute(kept, [ordered.index(c) for c in factor.letters])
    return tables.sum_to(turned, factor.field.dims)


def einsum(site: Site) -> Flow:
    """Any equation whose operands have no diagonals."""
    equation = site.op.attrs.get("equation")
    if not isinstance(equation, str) or len(site.op.inputs) < 1:
        raise Unanswered("einsum without an equation")
    fields = [oriented(site, value) for value in site.op.inputs]
    terms, result = _parsed(equation.replace(" ", ""), [len(field.dims) for field in fields])
    factors = [
        Factor(value, *pair) for value, pair in zip(site.op.inputs, zip(fields, terms, strict=True), strict=True)
    ]
    return _turned_back(site, contracted(factors, result))


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """A term for each operand and the result's, with letters of their own for the dimensions of an ellipsis."""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    fresh = [c for c in string.ascii_letters if c not in equation]
    extra = max(rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True))
    opened = [
        term.replace("...", "".join(fresh[extra - (rank - len(term.replace("...", ""))) : extra]))
        for term, rank in zip(terms, ranks, strict=True)
    ]
    if not arrow:
        once = sorted(c for c in set(left) - set(".,") if left.count(c) == 1)
        result = ("..." if "..." in left else "") + "".join(once)
    return opened, result.replace("...", "".join(fresh[:extra]))


def oriented(site: Site, value: int) -> Field:
    """An operand as the call saw it: the graph looks through the transposition of a weight."""
    field = site.known(value)
    return field.relabelled(lambda table: tables.permute(table, [1, 0]), "turned") if _is_turned(site, value) else field


def _is_turned(site: Site, value: int) -> bool:
    weight = site.value("weight")
    if site.op.kind != "linear" or weight is None or weight.id != value or len(weight.shape) != 2:
        return False
    return str(site.op.attrs.get("layout")) != ("oi" if site.op.attrs.get("left") else "io")


def _turned_back(site: Site, flow: Flow) -> Flow:
    """The flow with the gradient of a weight in the weight's own layout."""
    weight = site.value("weight")
    if weight is None or not _is_turned(site, weight.id):
        return flow

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        found = dict(flow.backward(cotangents))
        into = found.get(weight.id)
        if isinstance(into, Cotangent):
            found[weight.id] = into.relabelled(lambda table: tables.permute(table, [1, 0]))
        return found

    return Flow(flow.outputs, backward, flow.doubt)


def product_of(site: Site, first: int, second: int) -> Flow:
    """x @ y as torch.matmul has it: vectors lose their axis, leading dimensions are broadcast."""
    x, y = oriented(site, first), oriented(site, second)
    ranks = [len(field.dims) for field in (x, y)]
    if min(ranks) == 0:
        raise Unanswered("product with a number")
    lead = string.ascii_lowercase[: max(*ranks, 2) - 2]
    rows, columns = ("M" if ranks[0] > 1 else ""), ("N" if ranks[1] > 1 else "")
    own = lead[len(lead) - max(ranks[0] - 2, 0) :] + rows + "K"
    other = lead[len(lead) - max(ranks[1] - 2, 0) :] + "K" + columns
    flow = contracted([Factor(first, x, own), Factor(second, y, other)], lead + rows + columns)
    return _turned_back(site, flow)
