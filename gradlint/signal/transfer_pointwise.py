"""Pointwise functions of one tensor: activations, mathematics, and sums or products with a number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradlint.signal import masks, patterns
from gradlint.signal import table as tables
from gradlint.signal.edges import Edges
from gradlint.signal.edges import through as through_edges
from gradlint.signal.field import Base, Cotangent, Field, Spanned, Tilt, push, through, tilted
from gradlint.signal.kernels import SCORES, expectation, linear_share
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import IDENTITY, Scalar, affine, compose, outside_slope, product, scalar_function
from gradlint.signal.site import Contributions, Flow, Site, Square, Unanswered
from gradlint.signal.sway import NEGLIGIBLE, Sway, leaning, scales
from gradlint.signal.table import Table


def activation(site: Site) -> Flow:
    """φ(x): kernels of φ forward, of φ′ backward (Poole et al. 2016, Schoenholz et al. 2017)."""
    name, attrs = site.op.function, dict(site.op.attrs)
    if name == "prelu":
        slope = site.vector("weight")
        attrs["slope"] = slope.mean if slope is not None else 0.25
    function = scalar_function(name, attrs)
    if function is None:
        raise Unanswered(f"no function {name}")
    return pointwise(site, "input", function)


def custom(site: Site) -> Flow:
    """A user's own function that works entry by entry, as it was sampled: its backward need not be its derivative."""
    curve = site.op.attrs.get("curve")
    if not isinstance(curve, Mapping):
        raise Unanswered(f"no transfer function for {site.op.function}")
    at, values, slopes = (np.asarray(curve[name], np.float64) for name in ("at", "values", "slopes"))
    sampled = Scalar(
        f"{site.op.function}[{hash((tuple(values), tuple(slopes)))}]",
        lambda z: np.interp(z, at, values),
        lambda z: np.interp(z, at, slopes),
    )
    return pointwise(site, "input", sampled)


def pointwise(site: Site, role: str, function: Scalar) -> Flow:
    """The flow of a function applied to every entry of one operand."""
    value = site.id(role)
    x = site.known(value)
    law = x.law

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        passed = into(x, function, cotangent)
        orthogonal = cotangent.orthogonal
        if orthogonal is not None and orthogonal.source == field.source:
            passed = replace(passed, spanned=Spanned(compose(function, law.function), orthogonal))
        out: dict[int, Cotangent | Square] = {value: passed}
        return out | _slope_gradient(site, x, cotangent)

    field = applied(x, law, function)
    return Flow((field,), backward)


def applied(x: Field, law: Base, function: Scalar) -> Field:
    """function(x), remembered as a function of the Gaussian under x."""
    whole = compose(function, law.function)
    table, first = push(law, whole)
    if not np.isfinite(table.values).all():
        raise Unanswered(f"{function.key} has no finite second moment here")
    table = tables.Table(x.dims, table.values, x.table.profile)
    sway = x.sway
    if swaying(x):
        mean, variance = law.moments
        entry = scales(function, mean, variance, max(x.sway.variance + x.spike, NEGLIGIBLE))
        values = table.values + table.per_class(first**2) * _shared_mean(x, function, mean, variance, entry.mean)
        values.reshape(len(values), -1)[:, -1] = table.squares * entry.square
        table, first = table.with_values(values), first * entry.mean
        if x.sway.variance > NEGLIGIBLE:
            sway = Sway(scales(function, mean, variance, x.sway.variance).sway, x.sway.length)
    level, edges = _along_edges(x, function, x.edges, ())
    if level != 1.0:
        table = _same_entry(table, level)
    base = Base(law.table, law.mean, whole, law.source)
    features = x.features
    if x.base is None and math.isfinite(features):
        features /= max(linear_share(function, *law.moments) ** 2, 1e-300)
    return Field(table, first, base, sway=sway, fixed=x.fixed, edges=edges, near=x.near, features=features)


def _same_entry(table: Table, factor: float) -> Table:
    """The table with the second moment of one entry times a factor."""
    values = table.values.copy()
    values.reshape(len(values), -1)[:, -1] *= factor
    return table.with_values(values)


def _along_edges(x: Field, function: Scalar, kept: Edges, arrived: Edges) -> tuple[float, Edges]:
    """What the fall-off of x towards the edges makes of E[a f(x)²] over its mean without it, and of that's own edges.

    A function that is homogeneous in the variance, or a slope that only tells signs, has no use for it: then `kept`.
    """
    if not x.edges or x.base is not None:
        return 1.0, kept
    mean, variance = x.law.moments
    if abs(mean) <= 1e-3 * math.sqrt(variance) and (function.slopes is not None or function.steps is not None):
        return 1.0, kept
    square = expectation(function, mean, variance)[1]
    if not square > 0.0:
        return 1.0, kept
    return through_edges(x.edges, lambda e: expectation(function, mean, variance * e)[1] / square, arrived)


def _shared_mean(x: Field, function: Scalar, mean: float, variance: float, shift: float) -> Array:
    """Change of E[f]E[f′] over E[f]² at one scale: two entries of one sample share the scale as far as it reaches."""
    found = np.full(x.table.values.shape, shift**2 - 1.0)
    if x.sway.variance <= NEGLIGIBLE:
        return found
    over = scales(function, mean, variance, x.sway.variance)
    batch = [axis for axis, known in enumerate(x.table.axes) if known.batch]
    positions = math.prod(x.shape[2:]) if len(x.shape) > 2 else 1
    reach = x.sway.shared(positions) / x.sway.variance
    index: list[slice | int] = [slice(None)] * found.ndim
    for axis in batch:
        index[axis + 1] = 1
    found[tuple(index)] += (over.shared - over.mean**2) * reach
    return found


def swaying(x: Field) -> bool:
    """Whether the entries are taken as a mixture of scales."""
    mixed = x.sway.variance + x.spike > NEGLIGIBLE
    return mixed and x.base is None


def into(x: Field, function: Scalar, cotangent: Cotangent) -> Cotangent:
    """δ_x = δ_y·φ′(x), coherent with what δ_y already went through of the same Gaussian."""
    law = x.law
    slope = outside_slope(function, law.function)
    factor, tilt = cotangent.factor, cotangent.tilt
    if factor is not None and factor.base.source == law.source and not factor.partial:
        whole = product(factor.function, slope)
        return through(law, factor.independent, whole, edges=cotangent.edges, lean=cotangent.lean)
    given = tables.regroup(cotangent.table, x.dims)
    given, lean = _leant(x, function, slope, given, cotangent.lean)
    level, edges = _along_edges(x, slope, cotangent.edges, cotangent.edges)
    given = _same_entry(given, level) if level != 1.0 else given
    passed = through(law, given, slope, edges=edges, lean=lean)
    if tilt is None or tilt.source != law.source:
        return passed
    return _with_tilt(given, passed, tilted(law, slope, tilt), float((tilt.values * _squares(slope, law)).mean()))


def _squares(slope: Scalar, law: Base) -> Array:
    """slope(z)² at the normal scores."""
    return slope.value(float(law.mean[0]) + math.sqrt(float(law.variance[0])) * SCORES) ** 2


def _with_tilt(given: Table, passed: Cotangent, tilt: Tilt | None, share: float) -> Cotangent:
    """The same entry's second moment from the tilt, E[δ²φ′²] = E[δ²]·E[t φ′²]; pairs as they were."""
    values = np.broadcast_to(passed.table.values, np.broadcast_shapes(passed.table.values.shape, given.values.shape))
    values = values.copy()
    values.reshape(len(values), -1)[:, -1] = given.squares * share
    return replace(passed, table=Table(passed.table.dims, values, passed.table.profile), tilt=tilt)


def _leant(x: Field, function: Scalar, slope: Scalar, given: Table, lean: float) -> tuple[Table, float]:
    """δ and its lean, scaled so that E[δ²]E[φ′²] is right over all scales of x."""
    if not swaying(x):
        return given, lean
    mean, variance = x.law.moments
    total = max(x.sway.variance + x.spike, NEGLIGIBLE)
    share = x.sway.variance / total
    lean = lean * scales(function, mean, variance, total).elasticity
    growth, lean = leaning(slope, mean, variance, total, lean, share)
    values = given.values.copy()
    values.reshape(len(values), -1)[:, -1] *= growth
    return Table(given.dims, values, given.profile), lean


def _slope_gradient(site: Site, x: Field, cotangent: Cotangent) -> dict[int, Square]:
    """PReLU's slope: δ·min(x, 0) summed over everything but its channel."""
    value = site.value("weight")
    if value is None or not value.requires_grad:
        return {}
    negative = applied(x, x.law, Scalar("min0", lambda z: np.minimum(z, 0.0), lambda z: (z < 0) * 1.0, (0.0, 1.0)))
    given, other = tables.same_classes(tables.regroup(cotangent.table, x.dims), negative.table)
    joint = tables.combine(given, other, np.multiply).collapse()
    size = value.shape[0] if value.shape else 1
    shared = list(joint.at(1)) if size > 1 and len(x.dims) > 1 else []
    values = patterns.take_all(joint.values, shared)
    axes = [axis for axis in range(len(joint.axes)) if axis not in shared]
    summed = float(patterns.pair_sum(values, range(len(axes)), [joint.sizes[axis] for axis in axes]).sum())
    return {value.id: Square(summed, abs(summed))}


def scaled(site: Site, value: int, scale: float, shift: float = 0.0) -> Flow:
    """scale·x + shift."""
    x = site.known(value)
    function = affine(scale, shift)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        if cotangent.factor is not None and cotangent.factor.base.source == x.law.source:
            return {value: into(x, function, cotangent)}
        if cotangent.table.dims == x.dims:
            return {value: cotangent.scaled(scale**2)}
        return {value: Cotangent(tables.regroup(cotangent.table, x.dims).scaled(scale**2))}

    return Flow((shifted(x, scale, shift),), backward)


def shifted(x: Field, scale: float, shift: float) -> Field:
    """The field of scale·x + shift."""
    table = x.table.scaled(scale**2)
    mean = x.mean * scale
    if shift:
        table = table.with_values(table.values + shift * (mean_pairs(x, mean)) + shift**2)
    base = x.law
    return Field(
        table,
        mean + shift,
        Base(base.table, base.mean, compose(affine(scale, shift), base.function), base.source),
        sway=x.sway,
        faint=None if shift else x.faint,
        features=x.features,
        width=x.width,
    )


def mean_pairs(x: Field, mean: patterns.Array) -> patterns.Array:
    """E[x_i + x_j] for every entry of the table, given the mean per class."""
    own = x.table.per_class(mean)
    if x.table.profile is None:
        return 2.0 * own
    other = x.table.per_class(np.full_like(mean, float(x.table.weights @ mean)))
    shape = x.table.values.shape
    both, mixed = np.broadcast_to(2.0 * own, shape), np.broadcast_to(own + other, shape)
    axis = x.table.profile.axis
    return patterns.put(axis, patterns.take(both, axis, 1), patterns.take(mixed, axis, 0))


def elementwise(site: Site) -> Flow:
    """Pointwise mathematics with one tensor operand."""
    name = site.op.function
    if name == "nan_to_num":
        return unchanged(site.id("input"), site.field())
    function = scalar_function(name, site.op.attrs)
    if function is None or site.has("other"):
        raise Unanswered(f"no transfer function for {name}")
    value = site.value("input")
    if name in ("cos", "sin") and value is not None and value.id not in site.fields and not value.requires_grad:
        return phases(site, 0.5 if name == "cos" else 0.0)
    return pointwise(site, "input", function)


def phases(site: Site, mean: float) -> Flow:
    """cos and sin of constant phases (rotary positions): E = ½, and half of the frequencies hardly turn."""
    table = tables.constant(tables.dims_of(site.shape()), 0.5, 0.25)
    return Flow((Field(table, np.array([mean])),), lambda cotangents: {}, masks.ASSUMED)


def masked_logits(site: Site, logits: int, mask: int) -> Flow:
    """Logits that a softmax will read, unchanged but for what the mask hides."""
    if not masks.masks_logits(site.graph, site.op.outputs[0]):
        raise Unanswered(f"{site.op.function} with a tensor whose numbers are not known")
    x = site.known(logits)
    hides = masks.causal(site.graph, mask)
    doubt = 0.0 if hides else masks.ASSUMED
    if x.shape == site.shape():
        return Flow((replace(x, causal=x.causal or hides),), unchanged(logits, x).backward, doubt)
    rank = len(site.shape())
    target = tuple(
        own or whole
        for own, whole in zip(((),) * (rank - len(x.dims)) + x.dims, tables.dims_of(site.shape(), batch=0), strict=True)
    )
    wide = x.relabelled(lambda table: tables.expand(table, target), ("masked", target))

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else {logits: Cotangent(tables.sum_to(cotangent.table, x.dims))}

    return Flow((replace(wide, causal=x.causal or hides),), backward, doubt)


def copy(site: Site) -> Flow:
    """The same numbers again; nothing flows back through detach."""
    told = site.op.function == "set" and not site.has("input")  # x.requires_grad = True
    value = site.id("overwritten" if told else "input")
    x = site.known(value)
    detached = site.op.function == "detach"

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None or detached else {value: cotangent}

    return Flow((x,), backward)


def unchanged(value: int, x: Field) -> Flow:
    """An op that passes its operand on as it is."""

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else {value: cotangent}

    return Flow((x,), backward)


def dropout(site: Site) -> Flow:
    """Inverted dropout: E[x²] grows by 1/(1−p) where all axes agree (feature dropout: sample and channel)."""
    value = site.id("input")
    x = site.known(value)
    p = site.number("p", 0.0) if site.op.attrs.get("training") else 0.0
    if p <= 0.0:
        return unchanged(value, x)
    if p >= 1.0 or site.op.function.startswith(("alpha", "feature_alpha")):
        raise Unanswered(f"{site.op.function} with p = {p}")
    shared = _shared_mask(site, x)

    def thinned(table: tables.Table) -> tables.Table:
        values = table.values.copy()
        index: list[slice | int] = [slice(None)] * values.ndim
        for axis in shared:
            index[axis + 1] = 1
        values[tuple(index)] /= 1.0 - p
        return table.with_values(values)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else {value: Cotangent(thinned(tables.regroup(cotangent.table, x.dims)))}

    return Flow((Field(thinned(x.table), x.mean, sway=x.sway, faint=x.faint),), backward)


def _shared_mask(site: Site, x: Field) -> list[int]:
    """Axes on which two entries must agree to share their mask."""
    if site.op.function[-2:] in ("1d", "2d", "3d"):
        return [axis for dim in range(min(2, len(x.dims))) for axis in x.table.at(dim)]
    return list(range(len(x.table.axes)))


def identity_of(field: Field) -> bool:
    """Whether the field's entries are taken as Gaussian themselves."""
    return field.law.function is IDENTITY
