"""Products of two activations, and attention as one op."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.signal import masks, patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.participation import Shares, shares
from gradlint.signal.patterns import Array
from gradlint.signal.site import Contribution, Contributions, Dependent, Flow, Site, Unanswered, credit
from gradlint.signal.table import Axis, Dims, Profile, Table
from gradlint.signal.transfer_einsum import einsum, product_of
from gradlint.signal.transfer_merge import plus
from gradlint.signal.transfer_softmax import softmax_into


@dataclass(frozen=True, eq=False)
class Operand:
    """A factor of a matrix product, (batch…, free, contracted): its values with the contracted dimension last."""

    values: Array
    batch: int  # number of batch axes
    free: tuple[Axis, ...]
    count: int  # indices of the contracted dimension
    contracted: tuple[Axis, ...]

    def halves(self) -> tuple[Array, Array]:
        """The contracted dimension same, and different."""
        axes = range(self.batch + len(self.free), self.batch + len(self.free) + len(self.contracted))
        sizes = [0] * (self.batch + len(self.free)) + [axis.size for axis in self.contracted]
        return patterns.joint(self.values, list(axes), sizes)


def product(first: Operand, second: Operand) -> Array:
    """Σ over the contracted index: n·(same·same) + n(n−1)·(different·different), axes (batch…, free₁…, free₂…)."""
    count = first.count
    same, different = first.halves()
    other_same, other_different = second.halves()
    trailing = (1,) * len(second.free)
    lead = first.batch + 1
    inserted = (slice(None),) * lead + (None,) * len(first.free)

    def paired(a: Array, b: Array) -> Array:
        return a.reshape(a.shape + trailing) * b[inserted]

    return count * paired(same, other_same) + count * (count - 1.0) * paired(different, other_different)


def operand(table: Table, lead: Dims, free: int, contracted: int) -> Operand:
    """A table of dimensions (lead…, a, b) as an operand with dimension `free` kept and `contracted` summed over."""
    order = [*range(len(lead)), free % len(table.dims), contracted % len(table.dims)]
    turned = tables.permute(table, order)
    last = turned.dims[-1]
    return Operand(turned.values, sum(map(len, lead)), turned.dims[-2], turned.shape[-1], last)


def matmul(site: Site) -> Flow:
    """x @ y of two activations, independent of each other; baddbmm adds a third tensor."""
    if site.op.function == "einsum":
        return einsum(site)
    if site.op.function not in ("matmul", "bmm", "mm", "baddbmm", "addmm"):
        raise Unanswered(f"no transfer function for {site.op.function}")
    flow = product_of(site, site.id("input"), site.id("other"))
    if not site.has("bias"):
        return flow
    return plus(site, site.id("bias"), flow, site.number("alpha", 1.0), site.number("beta", 1.0))


def _lead(first: Dims, second: Dims) -> Dims:
    rank = max(len(first), len(second))
    padded = [((),) * (rank - len(dims)) + dims for dims in (first, second)]
    return tuple(tables.refine(a, b) if a and b else a or b for a, b in zip(*padded, strict=True))


def attention(site: Site) -> Flow:
    """softmax(s·Q Kᵀ)V: logits' table, overlap of rows, then two products; causal rows share on average H_T/T keys."""
    dropped = site.number("dropout", 0.0)
    if dropped >= 1.0:
        raise Unanswered("attention that drops everything")
    bias, hides, assumed = _mask(site)
    ids = [site.id(role) for role in ("query", "key", "value")]
    fields = [site.known(value) for value in ids]
    heads = fields[0].shape[-3] if site.op.attrs.get("grouped") else None
    own = [field.table.collapse() for field in fields]
    wide = [own[0], *(_repeated_heads(table, heads) for table in own[1:])]
    lead = _lead(_lead(wide[0].dims[:-2], wide[1].dims[:-2]), wide[2].dims[:-2])
    query, key, value = (tables.expand(table, (*lead, *table.dims[-2:])) for table in wide)
    scale = site.number("scale", fields[0].shape[-1] ** -0.5)
    hides = hides or bool(site.op.attrs.get("causal"))
    features = min(fields[1].features, fields[2].features)
    plan = _attend(query, key, value, lead, scale, bias, dropped, features, causal=hides)
    mean = np.array([fields[2].average])

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        parts = plan.backward(tables.regroup(cotangent.table, plan.output.dims))
        out: dict[int, Contribution] = {}
        for role, (value_id, field, spread, part) in enumerate(zip(ids, fields, wide, parts, strict=True)):
            given = _summed_heads(tables.sum_to(part, spread.dims), field.table)
            credit(out, value_id, Cotangent(given, echo=plan.echo if role == 1 else 0.0))
        if bias is not None:
            arrived = plan.logits_into(tables.regroup(cotangent.table, plan.output.dims))
            out[site.id("mask")] = Cotangent(tables.sum_to(arrived, bias.dims))
        return out

    return Flow((Field(plan.output, mean),), backward, assumed)


def _repeated_heads(table: Table, heads: int | None) -> Table:
    """Key or value heads (…, h, tokens, width) each read by several query heads."""
    shape = table.shape
    if heads is None or shape[-3] == heads:
        return table
    times = heads // shape[-3]
    opened = tables.reshape(table, (*shape[:-2], 1, *shape[-2:]))
    wide = tables.expand(opened, (*opened.dims[:-3], (Axis(times),), *opened.dims[-2:]))
    return tables.reshape(wide, (*shape[:-3], heads, *shape[-2:]))


def _summed_heads(given: Table, own: Table) -> Table:
    """The adjoint of `_repeated_heads`."""
    if given.shape == own.shape:
        return tables.regroup(given, own.dims)
    shape = own.shape
    opened = tables.reshape(given, (*shape[:-2], given.shape[-3] // shape[-3], *shape[-2:]))
    return tables.regroup(tables.squeeze(tables.total(opened, [len(shape) - 2]), [len(shape) - 2]), own.dims)


def _mask(site: Site) -> tuple[Field | None, bool, float]:
    """A bias added to the logits, whether later keys are hidden, and the doubt that an unknown mask leaves."""
    value = site.value("mask")
    if value is None:
        return None, False, 0.0
    known = site.fields.get(value.id)
    if known is not None or value.origin == "param":
        return site.known(value.id), False, 0.0
    if not masks.constant(site.graph, value):
        raise Dependent("the bias of the logits is not known")
    hides = masks.causal(site.graph, value.id)
    return None, hides, 0.0 if hides else masks.ASSUMED


@dataclass(frozen=True, eq=False)
class Attended:
    """One attention: its operands (batch…, tokens, width), the table of its weights, and its output."""

    query: Table
    key: Table
    value: Table
    weights: Table  # (batch…, query tokens, key tokens)
    output: Table
    lead: Dims
    scale: float
    dropped: float  # share of the weights that dropout sets to zero
    shares: Shares
    features: float  # of the tokens that keys and values are both made of

    @property
    def echo(self) -> float:
        """E[κ²]·E[(1 − s)²]/E[tr J²], κ the product of two tokens over that of one with itself, s = Σ_j a_j².

        The gradient of a logit is δ·v_j, so that over two keys it varies as the keys do: Σ_j a_j (δ·v_j) k_j is the
        tokens' covariance times δ, and no sum of independent terms. J = diag(a) − a aᵀ, of the trace 1 − s.
        """
        independent = float(self.shares.jacobian.reshape(-1)[-1])
        return float(self.shares.rest[0]) / independent / self.features if independent > 0.0 else 0.0

    def backward(self, given: Table) -> tuple[Table, Table, Table]:
        """Cotangents of query, key and value (Noci et al. 2022: they vanish with the alignment of the values)."""
        profile = given.profile
        flat = given.collapse()
        logits = self.logits_into(given).scaled(self.scale**2)
        into_value = Table(
            self.value.dims,
            product(operand(thinned(self.weights, self.dropped), self.lead, -1, -2), operand(flat, self.lead, -1, -2)),
        )
        into_query = Table(
            self.query.dims, product(operand(logits, self.lead, -2, -1), operand(self.key, self.lead, -1, -2))
        )
        into_key = Table(
            self.key.dims, product(operand(logits, self.lead, -1, -2), operand(self.query, self.lead, -1, -2))
        )
        return _concentrated(into_query.scaled(1.0 + self.echo), given, profile), into_key, into_value

    def logits_into(self, given: Table) -> Table:
        """The cotangent of the logits, scale and bias included."""
        flat = given.collapse()
        on_weights = Table(
            self.weights.dims, product(operand(flat, self.lead, -2, -1), operand(self.value, self.lead, -2, -1))
        )
        on_weights = thinned(on_weights, self.dropped)
        axes = list(self.weights.at(-1))
        merged = tables.merge_dim(on_weights, len(on_weights.dims) - 1)
        return tables.regroup(softmax_into(merged, axes[0], self.shares.jacobian, None), self.weights.dims)


def thinned(table: Table, share: float) -> Table:
    """Inverted dropout of single entries: E[x²] grows by 1/(1 − p), two entries are as they were."""
    if share <= 0.0:
        return table
    values = table.values.copy()
    values.reshape(len(values), -1)[:, -1] /= 1.0 - share
    return table.with_values(values)


def _concentrated(into: Table, given: Table, profile: Profile | None) -> Table:
    """A cotangent that sits on some query tokens stays on them."""
    if profile is None or profile.axis not in given.at(-2):
        return into
    level = given.square
    relative = given.squares / level if level > 0 else np.ones(len(given.squares))
    return Table(into.dims, into.values * relative.reshape((-1,) + (1,) * len(into.axes)), profile)


def _attend(
    query: Table,
    key: Table,
    value: Table,
    lead: Dims,
    scale: float,
    bias: Field | None,
    dropped: float,
    features: float,
    *,
    causal: bool,
) -> Attended:
    logits_values = product(operand(query, lead, -2, -1), operand(key, lead, -2, -1)) * scale**2
    logits = Table((*lead, query.dims[-2], key.dims[-2]), logits_values)
    if bias is not None:
        logits = logits.with_values(logits.values + tables.expand(bias.table.collapse(), logits.dims).values)
    count = key.shape[-2]
    axes = list(logits.at(-1))
    same, different = patterns.joint(logits.values, axes, logits.sizes)
    found = shares(np.maximum(same - different, 0.0), count, logits.at(-2) if causal else None)
    shared = found.overlap
    rows = patterns.put(axes[0], shared / count, (1.0 - shared) / (count * max(count - 1.0, 1.0)))
    single = Table((*logits.dims[:-1], (Axis(count),)), rows)
    weights = tables.regroup(single, logits.dims)
    mixed = product(operand(thinned(weights, dropped), lead, -2, -1), operand(value, lead, -1, -2))
    output = Table((*lead, query.dims[-2], value.dims[-1]), mixed)
    return Attended(query, key, value, weights, output, lead, scale, dropped, found, features)
