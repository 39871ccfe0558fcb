"""softmax and log_softmax along one dimension, and the rows of attention among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, Response
from gradlint.signal.participation import Shares, shares
from gradlint.signal.patterns import Array
from gradlint.signal.samples import evened
from gradlint.signal.single_entry import certain
from gradlint.signal.site import Contributions, Flow, Site, Unanswered
from gradlint.signal.sway import EVEN, Law, Tokens
from gradlint.signal.table import Profile, Table
from gradlint.signal.uneven_tokens import Attention, Uneven, uneven


def softmax(site: Site) -> Flow:
    """softmax and log_softmax along one dimension."""
    if site.op.function not in ("softmax", "log_softmax"):
        raise Unanswered(f"no transfer function for {site.op.function}")
    log = site.op.function == "log_softmax"
    x = site.field()
    dim = int(site.number("dim", -1)) % len(x.dims)
    if not x.dims[dim]:
        return certain(site, 0.0 if log else 1.0)
    along = x.table.profile is not None and x.table.profile.axis in x.table.at(dim)
    table = tables.merge_dim(x.table.collapse() if log or along else evened(x.table), dim)
    rows = rows_of(x, table, dim)
    return _log_softmax(site.id("input"), x, rows) if log else _softmax(site.id("input"), x, rows)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a softmax: their logits, what two of them share, and how unequal their tokens make them."""

    table: Table  # of the logits, those of a row along one axis
    dim: int
    shares: Shares
    tokens: Tokens
    uneven: Sequence[Uneven]  # by class

    @property
    def axis(self) -> int:
        """The axis of the logits of a row."""
        return self.table.starts[self.dim]

    @property
    def count(self) -> int:
        """The number of logits in a row."""
        return self.table.sizes[self.axis]

    @property
    def law(self) -> Law:
        """The energies of tokens, in the class whose rows are the least even."""
        return self.uneven[int(np.argmax(self.levels))].law

    @property
    def levels(self) -> Array:
        """Variance of the logits in a row, by class."""
        return _centred(self.table, self.axis).reshape(len(self.table.values), -1)[:, -1]

    @property
    def overlap(self) -> Array:
        """Σ_j E[a_j a′_j] of two rows."""
        even = 1.0 / self.count
        return even + (self.shares.overlap - even) * self.by_class("square")

    def by_class(self, name: str) -> Array:
        """A number of `Uneven` for every class, to broadcast against the shares."""
        return _per_class(np.array([getattr(found, name) for found in self.uneven]), self.shares.overlap)

    def jacobian(self, lean: float) -> Array:
        """E[δ² tr J J′]/E[δ²] for gradients that lean on their row's token and are as large as their keys' tokens."""
        found: Array = self.shares.jacobian * self.by_class("jacobian") * self.by_class("taken")
        found.reshape(len(found), -1)[:, -1] *= [each.law.leaning(each.law.jacobian, lean) for each in self.uneven]
        return found


def rows_of(x: Field, table: Table, dim: int) -> Rows:
    """The rows along a dimension of logits with this table, of which one axis is left there."""
    axis = table.starts[dim]
    count = table.sizes[axis]
    hidden = table.at(dim - 1) if x.causal and dim > 0 and table.shape[dim - 1] == count else None
    logits = _centred(table, axis)
    tokens = Tokens(x.sway.variance, 2.0 / x.width) if math.isfinite(x.width) else EVEN
    levels = logits.reshape(len(logits), -1)[:, -1]
    found = [uneven(float(level), tokens, Attention(count, count)) for level in levels]
    return Rows(table, dim, shares(logits, count, hidden), tokens, found)


def _centred(table: Table, axis: int) -> Array:
    """Covariance of logits, less what a row has in common."""
    same, different = patterns.take(table.values, axis, 1), patterns.take(table.values, axis, 0)
    centred: Array = np.maximum(same - different, 0.0)
    return centred


def _softmax(value: int, x: Field, rows: Rows) -> Flow:
    shared, count, table = rows.overlap, rows.count, rows.table
    probabilities = _table(table, rows.axis, shared / count, (1.0 - shared) / (count * (count - 1.0)))
    response = Response(
        tables.regroup(_zero_sum(table, rows.axis, rows.shares.response), x.dims),
        rows.dim,
        tables.regroup(_zero_sum(table, rows.axis, (shared - 1.0 / count) * (rows.by_class("aligned") - 1.0)), x.dims),
        rows.levels,
        rows.tokens,
        rows.law,
        rows.law.slope(rows.law.square),
    )
    mean = np.full(len(table.values), 1.0 / count)
    whole = tables.regroup(probabilities, x.dims)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else {value: _into(x, rows, response, cotangent)}

    return Flow((Field(whole, mean, features=x.features, response=response, width=x.width),), backward)


def _into(x: Field, rows: Rows, response: Response, cotangent: Cotangent) -> Cotangent:
    """The gradient of logits, and what it knows of the tokens that its entries stand for."""
    table, axis, law = rows.table, rows.axis, rows.law
    given = evened(tables.regroup(cotangent.table, table.dims))
    jacobian = rows.jacobian(cotangent.lean)
    rest = np.broadcast_to(_per_class(rows.shares.rest, jacobian), jacobian.shape)
    parts = (jacobian, rest, jacobian * (rows.by_class("twice") - 1.0))
    into, back, again = (tables.regroup(softmax_into(given, axis, part, table.profile), x.dims) for part in parts)
    lean = law.slope(law.square * law.energies)
    responding = Response(back, rows.dim, again, response.variance, response.tokens, law, lean)
    whole = cotangent.lean + law.slope(law.jacobian)
    return Cotangent(into, response=responding, features=cotangent.features, lean=whole)


def softmax_into(given: Table, axis: int, jacobian: Array, profile: Profile | None) -> Table:
    """δ_j = a_j(g_j − Σ a g): variance (g_s − g_d)·tr(J J′)/T by key, J = diag(a) − a aᵀ, summing to zero over j.

    `jacobian` is tr(J J′) by the other axes, and by the classes of this profile.
    """
    own, factor = tables.same_classes(given, Table(given.dims, patterns.put(axis, jacobian, jacobian), profile))
    excess = patterns.take(own.values, axis, 1) - patterns.take(own.values, axis, 0)
    whole = Table(given.dims, own.values, own.profile or factor.profile)
    return _zero_sum(whole, axis, excess * patterns.take(factor.values, axis, 1))


def _log_softmax(value: int, x: Field, rows: Rows) -> Flow:
    """x − log Σ e^x: centred logits less log T + τ/2."""
    table, axis, count = rows.table, rows.axis, rows.count
    mean = patterns.average(table.values, [axis], table.sizes)
    centred = table.values - patterns.insert(mean, axis)
    level = -(math.log(count) + 0.5 * float(centred.reshape(-1)[-1]))
    y = tables.regroup(table.with_values(centred + level**2), x.dims)
    shared = rows.shares.overlap
    probabilities = _table(table, axis, shared / count, (1.0 - shared) / (count * (count - 1.0)))

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = tables.regroup(cotangent.table, table.dims).collapse()
        return {value: Cotangent(tables.regroup(_log_into(given, axis, count, probabilities), x.dims))}

    return Flow((Field(y, np.array([level])),), backward)


def _log_into(given: Table, axis: int, count: int, probabilities: Table) -> Table:
    """δ_k − p_k Σ δ."""
    same, different = patterns.take(given.values, axis, 1), patterns.take(given.values, axis, 0)
    total = same + (count - 1.0) * different
    own, other = patterns.take(probabilities.values, axis, 1), patterns.take(probabilities.values, axis, 0)
    into_same = same - 2.0 / count * total + own * count * total
    into_different = different - 2.0 / count * total + other * count * total
    return given.with_values(patterns.put(axis, into_same, into_different))


def _per_class(vector: Array, values: Array) -> Array:
    return vector.reshape((-1,) + (1,) * (values.ndim - 1))


def _zero_sum(table: Table, axis: int, values: Array) -> Table:
    """What rows differ by whose sum over the axis is always the same, of this sum of squares."""
    count = table.sizes[axis]
    return _table(table, axis, values / count, -values / (count * (count - 1.0)))


def _table(table: Table, axis: int, same: Array, different: Array) -> Table:
    return table.with_values(patterns.put(axis, same, different))
