"""Products of tensors summed over shared indices, in any layout: einsum, and every matrix product as one."""

from __future__ import annotations

import itertools
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Unanswered, credit
from gradlint.signal.table import Array, Axis, Table


@dataclass(frozen=True, eq=False)
class Factor:
    """One operand: its value, its field and a letter for each of its dimensions."""

    value: int
    field: Field
    letters: str


@dataclass(frozen=True, eq=False)
class Letters:
    """The letters of a product in order – those of the result, then those summed over – with their atomic axes."""

    order: str
    result: str
    axes: Mapping[str, tuple[Axis, ...]]

    def at(self, letters: str) -> list[int]:
        """Positions of the axes of some letters, in the order of all."""
        starts = dict(
            zip(self.order, itertools.accumulate((len(self.axes[c]) for c in self.order), initial=0), strict=False)
        )
        return [starts[c] + i for c in letters for i in range(len(self.axes[c]))]

    @property
    def sizes(self) -> list[int]:
        """Sizes of all axes."""
        return [axis.size for c in self.order for axis in self.axes[c]]

    def size(self, letters: str) -> int:
        """Number of index values that some letters run over."""
        return math.prod(axis.size for c in letters for axis in self.axes[c])


def contracted(factors: Sequence[Factor], result: str) -> Flow:
    """The product of independent tensors, summed over the letters that the result lacks.

    E[y y′] is Σ over pairs of summed indices of the product of the operands' E[x x′]; the gradient of one operand is
    the same kind of sum of the cotangent and the other operands.
    """
    letters = _letters(factors, result)
    spread = [_spread(factor.field.table.collapse(), factor.letters, letters) for factor in factors]
    summed = letters.at("".join(c for c in letters.order if c not in result))
    values = tables.pair_sum(math.prod(spread[1:], start=spread[0]), summed, letters.sizes)
    out = Table(tuple(letters.axes[c] for c in result), values)
    count = letters.size("".join(c for c in letters.order if c not in result))
    mean = np.array([math.prod((factor.field.average for factor in factors), start=float(count))])

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = _spread(tables.regroup(cotangent.table, out.dims).collapse(), result, letters)
        found: dict[int, Contribution] = {}
        for place, factor in enumerate(factors):
            others = [part for other, part in enumerate(spread) if other != place]
            into = Cotangent(_gathered(math.prod(others, start=given), factor, letters))
            credit(found, factor.value, into)
        return found

    return Flow((Field(out, mean),), backward)


def _letters(factors: Sequence[Factor], result: str) -> Letters:
    order = "".join(dict.fromkeys(result + "".join(factor.letters for factor in factors)))
    axes: dict[str, tuple[Axis, ...]] = dict.fromkeys(order, ())
    for factor in factors:
        if len(set(factor.letters)) < len(factor.letters):
            raise Unanswered("a diagonal")
        for letter, own in zip(factor.letters, factor.field.dims, strict=True):
            axes[letter] = tables.refine(axes[letter], own) if axes[letter] and own else axes[letter] or own
    return Letters(order, result, axes)


def _spread(table: Table, own: str, letters: Letters) -> Array:
    """Values over the axes of all letters; the tensor is constant along those that it lacks."""
    grouped = tables.expand(table, tuple(letters.axes[c] for c in own))
    ordered = [c for c in letters.order if c in own]
    values = tables.permute(grouped, [own.index(c) for c in ordered]).values
    position = 0
    for letter in letters.order:
        if letter not in own:
            values = tables.insert(values, position, len(letters.axes[letter]))
        position += len(letters.axes[letter])
    return values


def _gathered(values: Array, factor: Factor, letters: Letters) -> Table:
    """The gradient of one operand: summed over the letters that it lacks, in its own layout."""
    gone = letters.at("".join(c for c in letters.order if c not in factor.letters))
    values = tables.pair_sum(values, gone, letters.sizes)
    ordered = [c for c in letters.order if c in factor.letters]
    table = Table(tuple(letters.axes[c] for c in ordered), values)
    turned = tables.permute(table, [ordered.index(c) for c in factor.letters])
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
