"""What the signal knows of one tensor (a Field) and of the gradient that reaches it (a Cotangent)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.edges import Edges, Near, blended
from gradlint.signal.faint import Faint, Mixture
from gradlint.signal.kernels import SCORES, kernel
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import IDENTITY, Scalar, weighted_sum
from gradlint.signal.sway import NONE, Law, Sway, Tokens
from gradlint.signal.table import Dims, Table

_fresh = itertools.count()
LONGEST = 300  # characters of a composed function, beyond which the entries are taken as Gaussian

Relabel = Callable[[Table], Table]


@dataclass(frozen=True, eq=False)
class Base:
    """The Gaussian z under a tensor whose entries are function(z); `source` says which tensor z is."""

    table: Table
    mean: Array
    function: Scalar
    source: Hashable

    @cached_property
    def variance(self) -> Array:
        """Var[z] per class."""
        result: Array = np.maximum(self.table.squares - self.mean**2, 0.0)
        return result

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean and variance of z, averaged over the classes."""
        weights = self.table.weights
        return float(weights @ self.mean), float(weights @ self.variance)

    @cached_property
    def rho(self) -> Array:
        """Correlation of z for every entry of the table; 1 where z does not vary."""
        covariance = self.table.values - outer(self.table, self.mean)
        scale = outer(self.table, np.sqrt(self.variance))
        if not (scale > 0).all():
            covariance = np.where(scale > 0, covariance, 1.0)
            scale = np.where(scale > 0, scale, 1.0)
        return np.minimum(np.maximum(covariance / scale, -1.0), 1.0)


@dataclass(frozen=True, eq=False)
class Response:
    """What rows of a softmax along `dim`, or gradients of its logits, know of the tokens that their entries stand for.

    Where they are summed up with what the same tokens were made into, `table` over the tokens' features and `aligned`
    add to the moments of independent rows.
    """

    table: Table
    dim: int
    aligned: Table  # rows are large where their tokens are
    variance: Array  # of the logits in a row, by class
    tokens: Tokens
    law: Law
    lean: float  # the gradients that go back to the tokens go with this power of those tokens' energies

    def scaled(self, factor: float) -> Response:
        """The same of rows times a number whose square is `factor`."""
        return replace(self, table=self.table.scaled(factor), aligned=self.aligned.scaled(factor))


@dataclass(frozen=True, eq=False)
class Field:
    """Second moments and mean (per class of the table's profile) of a tensor's entries.

    Without `base` the entries are taken as Gaussian. `source` is equal for two fields only if they are one tensor.
    """

    table: Table
    mean: Array
    base: Base | None = None
    source: Hashable = field(default_factory=lambda: next(_fresh))
    sway: Sway = NONE
    rows: Array | None = None  # a weight's output by channel: the table's "same channel" half, up to a constant, (C, …)
    edges: Edges = ()
    drift: Edges = ()  # how E[x(p)x̄] varies over positions p, x̄ the mean over them
    near: Near = ()  # E[x(p)x(q)] over its mean over p ≠ q
    tail: float = 0.0  # what heavy tails add to the relative variance of a channel's own variance over the batch
    spike: float = 0.0  # variance of the log scale of single entries: few taps leave the tails of what they read
    multiple: Hashable = None  # the tensor that this one is a multiple of, channel by channel
    fixed: bool = False  # a norm has fixed Σz and Σz² of the Gaussian z under it in every channel of the batch
    terms: tuple[tuple[float, Field], ...] = ()  # a sum's independent parts and their coefficients; () of itself
    causal: bool = False  # logits of which each row only counts the keys up to its own position
    hidden: Field | None = None  # how often an entry stands for minus infinity to the exponential that reads it
    faint: Faint | None = None  # rows that are nearly zero
    features: float = math.inf  # of what a weight made this from: products of two tokens vary by 1/features about 0
    width: float = math.inf  # of a product: the features that it is summed over, in all heads
    response: Response | None = None  # of a softmax's rows to their logits

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.table.shape

    @property
    def dims(self) -> Dims:
        """The atomic axes of every dimension."""
        return self.table.dims

    @cached_property
    def average(self) -> float:
        """E[x] over all entries."""
        if self.table.profile is not None:
            return float(self.table.weights @ self.mean)
        return float(self.mean[0]) if len(self.mean) == 1 else float(self.mean.mean())

    @cached_property
    def law(self) -> Base:
        """The entries as a function of a Gaussian: their own one when nothing else is known, or it is too long."""
        if self.base is None or len(self.base.function.key) > LONGEST:
            return Base(self.table, self.mean, IDENTITY, self.source)
        return self.base

    @property
    def variance(self) -> float:
        """Variance over all entries."""
        return max(self.table.square - self.average**2, 0.0)

    @property
    def mixture(self) -> Mixture:
        """E[x²] and the rows of which it is not."""
        return Mixture(self.table.square, self.faint)

    def relabelled(self, relabel: Relabel, key: Hashable) -> Field:
        """The same entries in another layout; `key` tells one relabelling from another."""
        table = relabel(self.table)
        base = self.base
        if base is not None and len(base.table.values) == len(self.table.values):
            level = _relabelled_mean(relabel, base.mean, self.table, table)
            base = Base(relabel(base.table), level, base.function, (key, base.source))
        mean = _relabelled_mean(relabel, self.mean, self.table, table)
        source = (key, self.source)
        return Field(table, mean, base, source, self.sway, causal=self.causal, features=self.features)

    def gaussian(self) -> Field:
        """The field with its distribution forgotten."""
        return replace(self, base=None)

    def collapse(self) -> Field:
        """One class for all, under which the Gaussian of the base has the moments of all classes together."""
        if self.table.profile is None:
            return self
        base = self.base
        if base is not None and base.table.profile is not None:
            level = np.array([float(base.table.weights @ base.mean)])
            base = Base(base.table.collapse(), level, base.function, base.source)
        return Field(self.table.collapse(), np.array([self.average]), base, self.source, self.sway)


def outer(table: Table, vector: Array) -> Array:
    """vector_k² where the profile axis is the same, elsewhere vector_k times the average of the other indices.

    Broadcasts against values.
    """
    if table.profile is None:
        return table.per_class(vector**2)
    axis = table.profile.axis
    count = table.sizes[axis]
    others = (count * (table.weights @ vector) - vector) / max(count - 1, 1)
    products = np.array([vector * others, vector**2]).T
    return products.reshape((-1,) + (1,) * axis + (2,) + (1,) * (table.values.ndim - axis - 2))


def _relabelled_mean(relabel: Relabel, mean: Array, before: Table, after: Table) -> Array:
    """The mean per class after a relabelling, which does to means what it does to moments: keep, cut, average."""
    if len(mean) == 1 or len(mean) != len(before.values) or not np.ptp(mean):
        return np.full(len(after.values), float(mean[0]) if len(mean) == 1 else float(before.weights @ mean))
    levels = relabel(before.with_values(np.broadcast_to(before.per_class(mean), before.values.shape).copy()))
    return levels.squares


def white(dims: Dims, mean: float = 0.0, std: float = 1.0) -> Field:
    """Independent entries of one mean and standard deviation."""
    return Field(tables.constant(dims, mean**2 + std**2, mean**2), np.array([mean]))


def from_sums(shape: Sequence[int], sums: dict[str, float], total: float) -> Field:
    """A known tensor from Σ_S (Σ_others x)² for every subset S of its axes (exact, by inclusion and exclusion)."""
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    values = np.zeros((1,) + (2,) * len(axes))
    for pattern in itertools.product((0, 1), repeat=len(axes)):
        fixed = {axis for axis, same in zip(axes, pattern, strict=True) if same}
        free = [axis for axis in axes if axis not in fixed]
        summed = 0.0
        for size in range(len(free) + 1):
            for extra in itertools.combinations(free, size):
                kept = sorted({*fixed, *extra} | {axis for axis, length in enumerate(shape) if length == 1})
                summed += (-1.0) ** size * sums["".join(map(str, kept))]
        pairs = np.prod([shape[axis] * (1.0 if axis in fixed else shape[axis] - 1.0) for axis in axes])
        values[(0, *pattern)] = summed / pairs
    count = float(np.prod(shape)) if shape else 1.0
    return Field(Table(tables.dims_of(shape), values), np.array([total / count]))


@dataclass(frozen=True, eq=False)
class Factor:
    """δ = ε·d(z): a cotangent that came through functions of the Gaussian z, with ε independent of z.

    A `partial` factor is the conditional mean E[δ|z] only: right for pairs of different entries, not for one entry.
    """

    base: Base
    independent: Table
    function: Scalar
    partial: bool = False

    @property
    def table(self) -> Table:
        """Second moments of ε·d(z)."""
        pushed, _ = push(self.base, self.function)
        return tables.combine(*tables.same_classes(self.independent, pushed), np.multiply)


@dataclass(frozen=True, eq=False)
class Tilt:
    """E[δ²|z]/E[δ²] at the normal scores of the Gaussian z that `source` names."""

    source: Hashable
    values: Array


@dataclass(frozen=True, eq=False)
class Orthogonal:
    """Σ δx ≈ 0 in every channel of the tensor x of this source: ε leaves E[(Σ δx)²] = `rest` by channel.

    That is so of a part of the gradient with this `share` of E[δ²], of which E[(Σ δ)²] is `level`.
    """

    source: Hashable
    rest: Array
    share: float = 1.0
    level: float = 0.0


@dataclass(frozen=True)
class Spanned:
    """`Orthogonal` seen through the function of the Gaussian under it that made x."""

    function: Scalar
    part: Orthogonal


@dataclass(frozen=True, eq=False)
class Cotangent:
    """Second moments of the gradient at a tensor, and how it depends on the tensor itself where that is known."""

    table: Table
    factor: Factor | None = None
    tilt: Tilt | None = None
    orthogonal: Orthogonal | None = None  # to which tensor: what a norm sends back
    stream: Orthogonal | None = None  # of a branch, to the x that it is added to; its `rest` is that of x/σ
    edges: Edges = ()
    lean: float = 0.0  # E[δ²] grows with this power of the tensor's own energy at a sample and position (see `sway`)
    inverse: tuple[Hashable, Array] | None = (
        None  # relative sizes by channel of the tensor of this source: 1/σ² of a norm
    )
    spanned: Spanned | None = None  # the same, seen from the Gaussian of `factor` before the function that made x
    response: Response | None = None  # of a softmax's logits: their gradient varies along a row as the tokens do
    features: float = math.inf  # of the tokens that the tensor was multiplied with
    echo: float = 0.0  # what pairs of tokens add to Σ δδ′xx′ for the x that made the tensor: δδ′ varies as xx′ does

    def relabelled(self, relabel: Relabel) -> Cotangent:
        """The same gradient in another layout."""
        return Cotangent(relabel(self.table), lean=self.lean)

    def scaled(self, factor: float) -> Cotangent:
        """The gradient times a number whose square is `factor`."""
        response = None if self.response is None else self.response.scaled(factor)
        return Cotangent(self.table.scaled(factor), lean=self.lean, response=response, features=self.features)

    def on(self, dims: Dims) -> Cotangent:
        """The cotangent on another factorisation of its shape."""
        return self if self.table.dims == dims else replace(self, table=tables.regroup(self.table, dims), factor=None)

    def __add__(self, other: Cotangent) -> Cotangent:
        """Gradients of two consumers add."""
        return added([self, other])


def added(parts: Sequence[Cotangent]) -> Cotangent:
    """Gradients of several consumers add; those that came from one ε through one Gaussian add coherently."""
    whole, *rest = parts
    while rest and _of_one(whole, rest[0]):
        whole = _coherent(whole, rest.pop(0))
    return _independent([whole, *rest]) if rest else whole


def _of_one(first: Cotangent, second: Cotangent) -> bool:
    a, b = first.factor, second.factor
    return a is not None and b is not None and a.base.source == b.base.source and a.independent is b.independent


def _coherent(first: Cotangent, second: Cotangent) -> Cotangent:
    a, b, parts = first.factor, second.factor, (first, second)
    assert a is not None and b is not None
    return through(
        a.base,
        a.independent,
        weighted_sum(a.function, b.function),
        edges=first.edges or second.edges,
        lean=_leaning(parts),
        orthogonal=_joined(parts, [part.orthogonal for part in parts]),
        stream=_joined(parts, [part.stream for part in parts]),
        echo=_echoing(parts),
    )


def _independent(parts: Sequence[Cotangent]) -> Cotangent:
    dims = parts[0].table.dims
    total = tables.added([tables.regroup(part.table, dims) for part in parts])
    edges = blended([(part.table.square, part.edges) for part in parts])
    return Cotangent(
        total,
        None,
        _mixed(parts),
        _joined(parts, [part.orthogonal for part in parts]),
        _joined(parts, [part.stream for part in parts]),
        edges=edges,
        lean=_leaning(parts),
        echo=_echoing(parts),
    )


def fewer(*features: float) -> float:
    """The features over which independent fluctuations of products of tokens add up: 1/n = Σ 1/n_i."""
    total = sum(1.0 / count for count in features)
    return 1.0 / total if total > 0.0 else math.inf


def none(shape: Sequence[int]) -> Cotangent:
    """No gradient at a tensor of this shape."""
    return Cotangent(tables.constant(tables.dims_of(shape), 0.0))


def push(base: Base, function: Scalar) -> tuple[Table, Array]:
    """Second moments and means (per class) of function(z)."""
    values, first = kernel(function, base.mean, base.variance, base.rho)
    table = base.table
    if table.profile is not None:
        values = values.copy()
        different = patterns.take(values, table.profile.axis, 0)
        different += table.per_class(first * (table.weights @ first) - first**2)[..., 0]
    return table.with_values(values), first


def through(
    base: Base,
    independent: Table,
    function: Scalar,
    *,
    edges: Edges = (),
    lean: float = 0.0,
    orthogonal: Orthogonal | None = None,
    stream: Orthogonal | None = None,
    echo: float = 0.0,
) -> Cotangent:
    """The cotangent ε·function(z), for ε with the second moments `independent`."""
    factor = Factor(base, independent, function)
    return Cotangent(factor.table, factor, tilted(base, function), orthogonal, stream, edges, lean, echo=echo)


def tilted(base: Base, function: Scalar, before: Tilt | None = None) -> Tilt | None:
    """The tilt of a gradient that went through function(z), on top of an earlier one; None where z has classes."""
    if base.table.profile is not None:
        return None
    squares = function.value(float(base.mean[0]) + math.sqrt(float(base.variance[0])) * SCORES) ** 2
    if before is not None and before.source == base.source:
        squares = squares * before.values
    level = float(squares.mean())
    return Tilt(base.source, squares / level) if level > 0 else None


def _joined(parts: Sequence[Cotangent], tensors: Sequence[Orthogonal | None]) -> Orthogonal | None:
    """To what a sum of independent gradients is orthogonal: to what all are, or those that are by their share."""
    known = [(part.table.square, one) for part, one in zip(parts, tensors, strict=True) if one is not None]
    total = sum([part.table.square for part in parts])
    if not known or not total > 0.0 or any(one.source != known[0][1].source for _, one in known):
        return None
    share = sum([square * one.share for square, one in known]) / total
    rest = sum((one.rest for _, one in known[1:]), start=known[0][1].rest)
    return Orthogonal(known[0][1].source, rest, share, sum([one.level for _, one in known]))


def _leaning(parts: Sequence[Cotangent]) -> float:
    """The lean of a sum of independent gradients."""
    return _by_share(parts, [part.lean for part in parts])


def _echoing(parts: Sequence[Cotangent]) -> float:
    """The echo of a sum of independent gradients."""
    return _by_share(parts, [part.echo for part in parts])


def _by_share(parts: Sequence[Cotangent], numbers: Sequence[float]) -> float:
    """A number of every gradient as that of their sum, by second moments."""
    if not any(numbers):
        return 0.0
    total = sum([part.table.square for part in parts])
    return (
        sum([part.table.square * number for part, number in zip(parts, numbers, strict=True)]) / total
        if total > 0.0
        else 0.0
    )


def _mixed(parts: Sequence[Cotangent]) -> Tilt | None:
    """The tilt of a sum of independent gradients: each counts by its second moment, 1 where it has none."""
    known = next((part.tilt for part in parts if part.tilt is not None), None)
    total = sum([part.table.square for part in parts])
    if known is None or not total > 0.0:
        return None
    values = np.zeros_like(known.values)
    for part in parts:
        even = part.tilt is None or part.tilt.source != known.source
        values += part.table.square * (1.0 if even or part.tilt is None else part.tilt.values)
    return Tilt(known.source, values / total)
