"""What the two products of attention are beside products of independent tensors: both operands know the same tokens.

Over infinitely many Gaussian tokens x, Σ_j softmax(q·k_j) v_j is the tokens' mean plus W_v Σ W_kᵀ q: a row answers to
its query as a weight of the tokens' covariance Σ would, and so does the query's gradient to that of the row. By chance
of two independent weights an entry of W_v Σ W_kᵀ has the variance Var[v]Var[k]/n, where n = (tr Σ)²/tr Σ² counts the
features of the tokens. And tokens of large energy have large weights, values and gradients at once (`uneven_tokens`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, Response, fewer
from gradlint.signal.letters import Factor, Letters
from gradlint.signal.patterns import Array
from gradlint.signal.samples import told_apart, varying, with_others
from gradlint.signal.sway import LARGEST, NEGLIGIBLE, Sway, concentrated, crossed, diluted
from gradlint.signal.table import Table
from gradlint.signal.uneven_tokens import Attention, uneven


@dataclass(frozen=True, eq=False)
class Product:
    """A product of independent tensors."""

    factors: Sequence[Factor]
    letters: Letters

    def seen(self, factor: Factor, table: Table) -> Table:
        """What the other operands see of an operand with this table."""
        return table

    def made(self, field: Field) -> Field:
        """The result, of which the field says what independent operands make."""
        return field

    def arrived(self, factor: Factor, given: Table, cotangent: Cotangent) -> tuple[Table, float]:
        """The gradient that an operand's own is summed up from, and the echo of that (see `Cotangent.echo`)."""
        return given, 0.0

    def beside(self, other: Factor, table: Table, field: Field, cotangent: Cotangent) -> Table:
        """Another operand, laid out as all are, as the gradient sees it."""
        return table

    def lean(self, factor: Factor, field: Field, cotangent: Cotangent) -> float:
        """The lean of an operand's gradient on its own energy."""
        return 0.0

    def features(self, factor: Factor) -> float:
        """Those of the other operands."""
        return min(other.field.features for other in self.factors if other is not factor)


@dataclass(frozen=True, eq=False)
class Logits(Product):
    """Products of queries with keys, both made of tokens."""

    def made(self, field: Field) -> Field:
        """The logits know their tokens: how many features these have, and the energies of what differs between them."""
        heads = [c for c in self.letters.result if all(c in factor.letters for factor in self.factors)]
        width = self.letters.size(self.letters.summed) * _size(self.letters, heads)
        sway = max((self._energies(factor) for factor in self.factors), key=lambda found: found.variance)
        features = min(factor.field.features for factor in self.factors)
        return replace(field, sway=sway, features=features, width=float(width))

    def _energies(self, factor: Factor) -> Sway:
        others = "".join(other.letters for other in self.factors if other is not factor)
        x = factor.field
        tokens = [axis for dim, c in enumerate(factor.letters) if c not in others for axis in x.table.at(dim)]
        own = with_others(x.table, tokens).own
        left = max(x.sway.variance - crossed(own, x.features), 0.0)
        return replace(x.sway, variance=concentrated(left, own))

    def arrived(self, factor: Factor, given: Table, cotangent: Cotangent) -> tuple[Table, float]:
        """A query's gradient responds to the tokens; that of a key is summed up from what they know."""
        response = cotangent.response
        features = min(self.features(factor), factor.field.features, cotangent.features)
        if response is None or not math.isfinite(features) or response.table.dims != given.dims:
            return given, 0.0
        if self.letters.result[response.dim] in factor.letters:
            return given, response.table.square / features / given.square if given.square > 0.0 else 0.0
        return _responding(given, response, features), 0.0

    def lean(self, factor: Factor, field: Field, cotangent: Cotangent) -> float:
        """That of the row, or of what the rows give back to their keys."""
        response = cotangent.response
        if response is None:
            return 0.0
        lean = response.lean if self.letters.result[response.dim] in factor.letters else cotangent.lean
        return lean * _ratio(field.sway.variance, factor.field.sway.variance)


@dataclass(frozen=True, eq=False)
class Mixture(Product):
    """The average of values under the weights of a softmax over their own tokens."""

    weights: Factor
    values: Factor
    response: Response

    def seen(self, factor: Factor, table: Table) -> Table:
        """Weights answer to the query with the covariance of the tokens, and are large where values are."""
        if factor is not self.weights:
            return table
        return _responding(table, self.response, self._known)

    @property
    def _known(self) -> float:
        return min(self.weights.field.features, self.values.field.features)

    def made(self, field: Field) -> Field:
        """The averages differ in energy between positions, and between samples."""
        letters = self.letters
        rows = "".join(c for c in self.weights.letters if c in letters.result and c not in self.values.letters)
        place = [axis for c in rows for axis in field.table.at(letters.result.index(c))]
        shares, own = varying(field.table, place), with_others(field.table, place).own
        found = [uneven(float(level), self.response.tokens, self._sizes(rows)) for level in self._levels(len(shares))]
        samples, across = (float(shares @ [getattr(each, name) for each in found]) for name in ("samples", "rows"))
        length = self.values.field.sway.length
        table = told_apart(field.table, place, samples * length)
        features = fewer(self._known, self.weights.field.width)
        variance = diluted(min(across, LARGEST), own) + crossed(own, features)
        sway = Sway(min(variance, LARGEST), length)
        return replace(field, table=table, mean=np.full(len(table.values), field.average), sway=sway, features=features)

    def _levels(self, classes: int) -> Array:
        known = self.response.variance
        return np.broadcast_to(known if len(known) in (1, classes) else known.mean(), (classes,))

    def _sizes(self, rows: str) -> Attention:
        letters = self.letters
        keys = letters.size(self.weights.letters[self.response.dim])
        heads = [c for c in letters.result if c in self.weights.letters and c in self.values.letters]
        width = letters.size("".join(c for c in letters.result if c not in self.weights.letters))
        answering = self.response.table.square / self._known
        whole = answering + self.response.aligned.square + self.weights.field.table.square - 1.0 / keys**2
        share = min(answering / whole, 1.0) if whole > 0.0 else 0.0
        return Attention(keys, letters.size(rows), _size(letters, heads), width, share)

    def arrived(self, factor: Factor, given: Table, cotangent: Cotangent) -> tuple[Table, float]:
        """The values' gradient is summed up with tokens that the weights know: Σ_j a_j x_j has the response as well."""
        if factor is self.weights:
            return given, 0.0
        return given, self.response.table.square / self._known / self.weights.field.table.square

    def beside(self, other: Factor, table: Table, field: Field, cotangent: Cotangent) -> Table:
        """To the values' gradient, weights are large where the gradient of their row is."""
        if other is not self.weights or cotangent.lean == 0.0:
            return table
        law = self.response.law
        values = table.values.copy()
        values.reshape(len(values), -1)[:, -1] *= law.leaning(law.given, self._lean_of_rows(field, cotangent))
        return Table(table.dims, values, table.profile)

    def lean(self, factor: Factor, field: Field, cotangent: Cotangent) -> float:
        """That of a row on the energy of its token; of values on their own."""
        if factor is self.weights:
            return self._lean_of_rows(field, cotangent)
        return self.response.lean * _ratio(self.response.tokens.together, factor.field.sway.variance)

    def _lean_of_rows(self, field: Field, cotangent: Cotangent) -> float:
        return cotangent.lean * _ratio(field.sway.variance, self.response.tokens.together)


def product(factors: Sequence[Factor], letters: Letters) -> Product:
    """Which of the products of attention this is, if any."""
    weights = next((factor for factor in factors if factor.field.response is not None), None)
    tokens = len(factors) == 2 and all(math.isfinite(factor.field.features) for factor in factors)
    if not tokens:
        return Product(factors, letters)
    if weights is None:
        return Logits(factors, letters)
    response = weights.field.response
    assert response is not None
    if weights.letters[response.dim] in letters.result:
        return Product(factors, letters)
    values = next(factor for factor in factors if factor is not weights)
    return Mixture(factors, letters, weights, values, response)


def _responding(table: Table, response: Response, features: float) -> Table:
    return _plus(_plus(table, response.aligned, 1.0), response.table, 1.0 / features)


def _plus(table: Table, other: Table, share: float) -> Table:
    """The sum of two tables of one shape, the second times a number."""
    return tables.combine(*tables.same_classes(table, tables.regroup(other, table.dims)), lambda a, b: a + share * b)


def _size(letters: Letters, heads: Sequence[str]) -> int:
    """The number of heads: of index values of these letters, samples not counted."""
    return math.prod(axis.size for c in heads for axis in letters.axes[c] if not axis.batch)


def _ratio(first: float, second: float) -> float:
    """How many times as far log energies of one tensor deviate as those of another; 0 where those hardly do."""
    return math.sqrt(first / second) if second > NEGLIGIBLE else 0.0
