"""Sums and products of two tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gradlint.signal import masks, patterns
from gradlint.signal import table as tables
from gradlint.signal.distribution import law_of, split_cotangent, summed
from gradlint.signal.edges import blended
from gradlint.signal.faint import of_product, of_sum
from gradlint.signal.field import Base, Cotangent, Field, push, through, white
from gradlint.signal.kernels import kernel
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import IDENTITY, Scalar, affine, compose, product, weighted_sum
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Unanswered
from gradlint.signal.stages import centred, flow
from gradlint.signal.sway import NEGLIGIBLE, Sway, mixed, together
from gradlint.signal.table import Table
from gradlint.signal.transfer_concat import PARTS
from gradlint.signal.transfer_norm import written_norm
from gradlint.signal.transfer_pointwise import masked_logits, pointwise, scaled, shifted, unchanged
from gradlint.signal.transfer_pool import less_average
from gradlint.signal.undone import at_term, by_a_gain
from gradlint.signal.written_norm import less_mean, written


def add(site: Site) -> Flow:
    """x + αy, x − y, or a tensor and a number; addcmul is x + v·(a·b)."""
    if site.op.function == "addcmul":
        return _add_product(site)
    if site.op.function not in ("add", "sub"):
        raise Unanswered(f"no transfer function for {site.op.function}")
    sign = -1.0 if site.op.function == "sub" else 1.0
    alpha = sign * site.number("alpha", 1.0)
    reverse = bool(site.op.attrs.get("reversed"))
    if not site.has("other") or not site.has("input"):
        role, number = (
            ("input", site.number("scalar", 0.0)) if site.has("input") else ("other", site.number("scalar", 0.0))
        )
        scale, shift = (alpha, number) if reverse else (1.0, alpha * number)
        if (scale, shift) == (1.0, 0.0):
            return unchanged(site.id(role), site.field(role))
        return scaled(site, site.id(role), scale, shift)
    first, second = site.id("input"), site.id("other")
    if first == second:
        return scaled(site, first, 1.0 + alpha)
    difference = less_mean(site.graph, site.op)
    if difference is not None:
        return flow(difference[0], centred(difference[1])(site.known(difference[0])))
    whole = _masked_sum(site, first, second) or less_average(site)
    if whole is not None:
        return whole
    x, y = site.known(first), site.known(second)
    if coherent(x, y):
        return _same_source(first, second, x, y, weighted_sum(x.law.function, y.law.function, alpha), (1.0, alpha))
    return independent_sum(first, second, x, y, alpha)


def _masked_sum(site: Site, first: int, second: int) -> Flow | None:
    """Logits plus a mask: one operand without a gradient and without statistics, on the way to a softmax."""
    for logits, mask in ((first, second), (second, first)):
        value = site.graph.values[mask]
        hidden = mask not in site.fields and value.dtype != "bool"  # a truth value that is added counts as 0 or 1
        if hidden and site.seen(mask) is not None:
            hidden = masks.masks_logits(site.graph, site.op.outputs[0])
        if hidden and logits in site.fields and masks.constant(site.graph, value):
            return masked_logits(site, logits, mask)
    return None


TERMS = 8  # parts of a sum up to which they are kept
STEADY = 0.05  # relative variance of a factor up to which a product has the law of the other factor
_PRODUCT, _NOTHING = -1, -2  # stand for a product inside an op, and for what it is not added to


def _add_product(site: Site) -> Flow:
    values = [value for value, role in zip(site.op.inputs, site.op.roles, strict=True) if role in PARTS]
    if len(values) != 3:
        raise Unanswered("addcmul of numbers")
    inner = independent_product(values[1], values[2], site.known(values[1]), site.known(values[2]))
    return plus(site, values[0], inner, site.number("value", 1.0))


def plus(site: Site, value: int, inner: Flow, alpha: float, beta: float = 1.0) -> Flow:
    """βx + α times what another flow gives."""
    found = inner.outputs[0]
    assert found is not None
    if beta == 0.0:
        value, x = _NOTHING, white(found.dims, 0.0, 0.0)
    elif beta == 1.0:
        x = site.known(value)
    else:
        raise Unanswered(f"a product added to {beta} times a tensor")
    outer = independent_sum(value, _PRODUCT, x, found, alpha)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        given = dict(outer.backward(cotangents))
        into = given.pop(_PRODUCT, None)
        given.pop(_NOTHING, None)
        return given | dict(inner.backward([into])) if isinstance(into, Cotangent) else given

    return Flow(outer.outputs, backward)


def coherent(x: Field, y: Field) -> bool:
    """Whether both are functions of one Gaussian, entry by entry."""
    return x.shape == y.shape and x.law.source == y.law.source and x.dims == y.dims


def independent_sum(first: int, second: int, x: Field, y: Field, alpha: float) -> Flow:
    """M = M_x + α²M_y + 2α μ_x μ_y: a random matrix makes branches independent (Yang & Schoenholz 2017)."""
    terms, met = _collected(x, y, alpha)
    if met:
        return _sum_of_terms(first, second, x, y, alpha, terms)
    a, b = tables.aligned(x.table, y.table)
    cross = 2.0 * alpha * _mean_products(a, b, x, y)
    table = tables.combine(a, b, lambda u, v: u + alpha**2 * v + cross)
    mean = _means(a, x.mean) + alpha * _means(b, y.mean)
    mean = mean if len(mean) == len(table.values) else np.full(len(table.values), float(mean.mean()))
    values = summed(x.law, y.law, alpha) if _plain(x, table) and _plain(y, table) else None
    gaussian = x.law.function is IDENTITY and y.law.function is IDENTITY
    base = None if values is None or gaussian else law_of(values.quantiles, table, float(mean[0]))
    whole = max(x.variance + alpha**2 * y.variance, 1e-300)
    sway = mixed([(x.variance / whole, x.sway), (alpha**2 * y.variance / whole, y.sway)])
    edges = blended([(x.table.square, x.edges), (alpha**2 * y.table.square, y.edges)])
    kept = terms if len(terms) <= TERMS else ()
    faint = of_sum(x.mixture, replace(y.mixture, square=alpha**2 * y.table.square))
    root = x.variance / whole / math.sqrt(x.features) + alpha**2 * y.variance / whole / math.sqrt(y.features)
    features = 1.0 / root**2 if root > 0.0 else math.inf  # what tokens have in common, they have in both
    field = Field(
        table,
        mean,
        base,
        sway=sway,
        edges=edges,
        causal=x.causal or y.causal,
        terms=kept,
        faint=faint,
        features=features,
        width=min(x.width, y.width),
    )

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        if values is not None and cotangent.tilt is not None and cotangent.table.dims == table.dims:
            into_x = split_cotangent(cotangent, field, x, values, first=True)
            into_y = split_cotangent(cotangent, field, y, values, first=False)
            into_y = into_y if alpha**2 == 1.0 else _to(cotangent, y, alpha**2)
        else:
            into_x, into_y = _to(cotangent, x, 1.0), _to(cotangent, y, alpha**2)
        return {
            first: at_term(into_x, cotangent, field, x, y, 1.0),
            second: at_term(into_y, cotangent, field, y, x, alpha),
        }

    return Flow((field,), backward)


def _collected(x: Field, y: Field, alpha: float) -> tuple[tuple[tuple[float, Field], ...], bool]:
    """The independent parts of x + αy, those of one source together, and whether any part is in both."""
    parts: dict[object, tuple[float, Field]] = {}
    met = False
    for scale, field in ((1.0, x), (alpha, y)):
        for coefficient, part in field.terms or ((1.0, field),):
            known = parts.get(part.source)
            met = met or known is not None
            parts[part.source] = (scale * coefficient + (0.0 if known is None else known[0]), part)
    return tuple(parts.values()), met


def _sum_of_terms(
    first: int, second: int, x: Field, y: Field, alpha: float, terms: tuple[tuple[float, Field], ...]
) -> Flow:
    """x + αy where the same tensor is in both: its coefficients add, and what cancels is gone."""
    left = [(c, part) for c, part in terms if c != 0.0] or [(0.0, terms[0][1])]
    found = shifted(left[0][1], left[0][0], 0.0)
    for coefficient, part in left[1:]:
        output = independent_sum(first, second, replace(found, terms=()), part, coefficient).outputs[0]
        assert output is not None
        found = output
    aligned, _ = tables.aligned(found.table, tables.aligned(x.table, y.table)[0])
    field = replace(found.gaussian() if aligned.dims != found.dims else found, table=aligned, terms=tuple(left))

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        return {first: _to(cotangent, x, 1.0), second: _to(cotangent, y, alpha**2)}

    return Flow((field,), backward)


def _mean_products(a: Table, b: Table, x: Field, y: Field) -> Array:
    """E[x_i]E[y_j] for every entry of the aligned tables, the mean of both orders."""
    if len(x.mean) == len(y.mean) == 1:
        return np.array(x.average * y.average)
    first, second = _means(a, x.mean), _means(b, y.mean)
    profile = a.profile or b.profile
    assert profile is not None
    shape = (-1,) + (1,) * len(a.axes)
    own = (first * second).reshape(shape)
    mixed = (0.5 * (first * y.average + second * x.average)).reshape(shape)
    full = (max(len(first), len(second)), *a.values.shape[1:])
    own, mixed = np.broadcast_to(own, full), np.broadcast_to(mixed, full)
    return patterns.put(profile.axis, patterns.take(own, profile.axis, 1), patterns.take(mixed, profile.axis, 0))


def _plain(field: Field, table: Table) -> bool:
    """Whether the field has one law for all its entries and the sum's own layout."""
    return field.dims == table.dims and field.table.profile is None and field.law.table.profile is None


def _means(table: Table, mean: Array) -> Array:
    return mean if len(mean) == len(table.values) else np.full(len(table.values), float(mean.mean()))


def _to(cotangent: Cotangent, field: Field, scale: float) -> Cotangent:
    if cotangent.table.shape == field.shape and scale == 1.0:
        return cotangent
    return Cotangent(
        tables.sum_to(cotangent.table, field.dims).scaled(scale), edges=cotangent.edges, lean=cotangent.lean
    )


def _same_source(
    first: int, second: int, x: Field, y: Field, function: Scalar, slopes: tuple[float, float] | None
) -> Flow:
    """f(z) + αg(z) or f(z)·g(z) of one Gaussian: the function of z is known, and both gradients carry the same ε."""
    law = x.law
    values, mean = kernel(function, law.mean, law.variance, law.rho)
    field = Field(
        law.table.with_values(values),
        mean,
        Base(law.table, law.mean, function, law.source),
        sway=x.sway,
    )

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        known = cotangent.factor if cotangent.factor and cotangent.factor.base.source == law.source else None
        independent = known.independent if known else tables.regroup(cotangent.table, field.dims)
        arrived = known.function if known else _one()
        parts = (_level(slopes[0]), _level(slopes[1])) if slopes is not None else (y.law.function, x.law.function)
        return {
            first: through(law, independent, product(arrived, parts[0])),
            second: through(law, independent, product(arrived, parts[1])),
        }

    return Flow((field,), backward)


def _one() -> Scalar:
    return _level(1.0)


def _level(value: float) -> Scalar:
    return Scalar(f"{value:.9g}", lambda z: np.full_like(z, value), np.zeros_like, steps=(value, value))


def mul(site: Site) -> Flow:
    """x·y patternwise (gates, layer scale), or a tensor times a number; the gradient of one is δ times the other."""
    if site.op.function not in ("mul", "div"):
        if site.op.function == "neg":
            return scaled(site, site.id("input"), -1.0)
        raise Unanswered(f"no transfer function for {site.op.function}")
    norm = written(site.graph, site.op)
    if norm is not None:
        return written_norm(site, norm)
    if not site.has("other") or not site.has("input"):
        return _with_number(site, site.op.function == "div")
    first, second = site.id("input"), site.id("other")
    if first == second:
        return pointwise(site, "input", Scalar("x²", lambda z: z * z, lambda z: 2.0 * z))
    x, y = site.known(first), site.known(second)
    if coherent(x, y):
        return _same_source(first, second, x, y, product(x.law.function, y.law.function), None)
    return independent_product(first, second, x, y)


def _with_number(site: Site, divide: bool) -> Flow:  # noqa: FBT001
    value = site.id("input") if site.has("input") else site.id("other")
    number = site.number("scalar", 1.0)
    if not divide:
        return scaled(site, value, number)
    if site.op.attrs.get("reversed"):
        inverse = Scalar(f"{number:.9g}/x", lambda z: number / z, lambda z: -number / (z * z))
        return pointwise(site, "input" if site.has("input") else "other", inverse)
    if number == 0.0:
        raise Unanswered("division by zero")
    return scaled(site, value, 1.0 / number)


def independent_product(first: int, second: int, x: Field, y: Field) -> Flow:
    """xy of independent tensors, pattern by pattern."""
    a, b = tables.aligned(x.table, y.table)
    table = tables.combine(a, b, np.multiply)
    mean = _means(a, x.mean) * _means(b, y.mean)
    law, faint = _scaled_law(x, y) or _scaled_law(y, x), of_product(x.mixture, y.mixture)
    field = Field(table, _means(table, mean), law, sway=_gated(x, y), edges=x.edges or y.edges, faint=faint)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        out: dict[int, Contribution] = {
            first: _weighted(cotangent, b, x, *_leaning(cotangent, field, y, x)),
            second: _weighted(cotangent, a, y, *_leaning(cotangent, field, x, y)),
        }
        for value, factor, other in ((first, x, b), (second, y, a)):
            seen = _through_product(cotangent, field, factor, other)
            if seen is not None:
                out[value] = seen
        for value, gate in ((second, y), (first, x)):
            coupled = _at_gate(cotangent, field, gate, x if gate is y else y)
            if coupled is not None:
                out[value] = coupled
        for value, gain in ((first, y), (second, x)):
            out[value] = by_a_gain(out[value], cotangent, gain)
        return out

    return Flow((field,), backward)


def _through_product(cotangent: Cotangent, field: Field, x: Field, other: Table) -> Cotangent | None:
    """The gradient of a gated x as a function of x's own Gaussian, where the product is one of that Gaussian."""
    factor, law = cotangent.factor, field.base
    if factor is None or law is None or factor.base.source != law.source or law.source != x.law.source:
        return None
    if factor.partial or x.table.profile is not None or x.dims != field.dims or other.dims != x.dims:
        return None
    independent, weight = tables.same_classes(tables.regroup(factor.independent, other.dims), other)
    return through(
        x.law,
        tables.combine(independent, weight, np.multiply),
        factor.function,
        edges=cotangent.edges,
        lean=cotangent.lean,
    )


def _at_gate(cotangent: Cotangent, field: Field, gate: Field, other: Field) -> Cotangent | None:
    """The gradient of a steady gate g, Σ δx, where δ went through a function of the very product z = gx: x is z/g."""
    factor, law, level = cotangent.factor, field.law, _steady(gate)
    if factor is None or level is None or factor.partial or factor.base.source != law.source:
        return None
    if law.table.dims != field.dims or law.table.profile is not None:
        return None
    own = compose(affine(1.0 / level, 0.0), law.function)
    pushed, _ = push(law, product(factor.function, own))
    independent, weight = tables.same_classes(tables.regroup(factor.independent, pushed.dims), pushed)
    coherence, lean = _leaning(cotangent, field, other, gate)
    both = tables.combine(independent, weight, lambda g, w: g * w * coherence)
    return Cotangent(tables.sum_to(both, gate.dims), lean=lean)


def _steady(y: Field) -> float | None:
    """The RMS, with its sign, of a tensor that varies little; None for others."""
    level, square = y.average, y.table.square
    if y.table.profile is not None or level == 0.0 or square - level**2 > STEADY * square:
        return None
    return math.copysign(math.sqrt(square), level)


def _gated(x: Field, y: Field) -> Sway:
    """The sway of the factor that varies more about its mean."""
    relative = [field.variance / max(field.table.square, 1e-300) for field in (x, y)]
    return (x if relative[0] >= relative[1] else y).sway


def _scaled_law(x: Field, y: Field) -> Base | None:
    """x times a y that varies little (a constant, a gate at its init) keeps x's law."""
    base = x.base
    if base is None or base.function is IDENTITY or x.table.profile is not None or x.table.square == 0.0:
        return None
    level = _steady(y)
    if level is None:
        return None
    return Base(base.table, base.mean, compose(affine(level, 0.0), base.function), base.source)


def _leaning(cotangent: Cotangent, field: Field, other: Field, own: Field) -> tuple[Array, float]:
    """The gradient of one factor is δ times the other, which is large where its energy v is, as δ ∝ v^a may be.

    E[δ²x²] over E[δ²]E[x²] by shared axes, and the lean of δ·x on the own energy of the factor: v^(1 + a), where the
    product has the sway of the other.
    """
    if field.sway is not other.sway or other.sway.variance <= NEGLIGIBLE:
        return np.ones(()), cotangent.lean
    scale = math.sqrt(other.sway.variance / own.sway.variance) if own.sway.variance > 0.0 else 0.0
    lean = (1.0 + cotangent.lean) * scale
    if len(other.dims) < 2 or other.table.shape != cotangent.table.shape:
        return np.ones(()), lean
    aligned = tables.regroup(other.table, field.dims)
    return together(aligned.axes, list(aligned.at(1)), cotangent.lean, other.sway), lean


def _weighted(cotangent: Cotangent, other: Table, field: Field, coherence: Array, lean: float) -> Cotangent:
    given, weight = tables.same_classes(tables.regroup(cotangent.table, other.dims), other)
    both = tables.combine(given, weight, lambda g, w: g * w * coherence)
    return Cotangent(tables.sum_to(both, field.dims), edges=cotangent.edges, lean=lean)
