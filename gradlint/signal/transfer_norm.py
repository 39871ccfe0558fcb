"""Normalisation layers: centre, divide by the standard deviation over some axes, scale and shift along others."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradlint.graph import Value
from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.channels import gained, shifted
from gradlint.signal.edges import Edges
from gradlint.signal.edges import centred as centred_edges
from gradlint.signal.faint import after_norm, doubt_behind
from gradlint.signal.field import Base, Cotangent, Field, Orthogonal, Tilt, outer
from gradlint.signal.norm_energies import INFLATED, apart, damping_of, freed, unequal
from gradlint.signal.norm_gains import affine_gradients, coupling
from gradlint.signal.norm_plan import Plan, normalised_axes, planned
from gradlint.signal.norm_projection import centred, over_set, projected
from gradlint.signal.patterns import Array
from gradlint.signal.samples import by_sample, pooled
from gradlint.signal.scalar import IDENTITY, affine, compose
from gradlint.signal.single_entry import biased
from gradlint.signal.site import Contributions, Flow, Site, Square, Unanswered
from gradlint.signal.spectrum import divided, divided_by_sample
from gradlint.signal.sway import Sway, damped, together
from gradlint.signal.table import Table
from gradlint.signal.undone import left_over
from gradlint.signal.written_norm import Written

COLLAPSED = 1e-12  # centred variance below this share of E[x²]: rounding decides what the norm divides by


def norm(site: Site) -> Flow:
    """Dispatch on the norm's function; the plan says which axes it is about."""
    if site.op.function == "layer_norm" and not normalised_axes(site, site.field()):
        return biased(site)
    return normalised(site, planned(site), site.id("input"))


def written_norm(site: Site, found: Written) -> Flow:
    """A norm without gain and bias that is written out as arithmetic."""
    x = site.known(found.source)
    over = tuple(axis for dim in found.dims for axis in x.table.at(dim))
    if not over:
        raise Unanswered("a norm over a single entry")
    x = x.collapse() if x.table.profile is not None and x.table.profile.axis in over else x
    count = math.prod(x.table.sizes[axis] for axis in over) if found.length else 1
    plan = Plan(x, over, over, found.eps / count, None, None, centred=found.centred, scale=1.0 / count)
    return normalised(site, plan, found.source)


def normalised(site: Site, plan: Plan, value: int) -> Flow:
    """x̂ = (x − mean)/σ, y = γ x̂ + β; σ² is taken at its expectation, E[1/s²] inflated by its degrees of freedom."""
    original = site.known(value)
    table = plan.x.table
    around = centred(table, plan)
    variance = over_set(table, plan, np.maximum(around.reshape(len(around), -1)[:, -1], 0.0))
    squares = over_set(table, plan, table.squares)
    still = variance <= COLLAPSED * np.maximum(squares, 1e-300)
    varied = squares > 0.0  # entries that are zero by structure divide nothing
    if still.all() or (plan.eps == 0.0 and (still & varied).any()):
        raise Unanswered("the norm's input does not vary over the axes that it normalises")
    inverse = plan.scale / (variance + plan.eps)
    unit = around * outer(table, np.sqrt(inverse))
    evened = _evened(plan)
    if evened is not None:
        unit = patterns.put(plan.along[0], evened.same, patterns.take(unit, plan.along[0], 0))
    unit, inflation, level = _divided(unit, plan)
    alone = float((variance / np.maximum(variance + plan.eps, 1e-300)).mean())
    inflation, level = 1.0 + (inflation - 1.0) * alone**2, level * alone**2
    damping = damping_of(plan, inflation, alone)
    common = 1.0 - float(variance.mean()) / max(table.square, 1e-300)
    edges = centred_edges(plan.x.edges, plan.x.drift, common) if plan.by_channel else ()
    sway = freed(damped(plan.x.sway, damping), table, table.with_values(unit), plan)
    y = _affine_field(plan, table.with_values(unit), inverse, sway, edges, plan.x.spike - level)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        given = replace(cotangent, lean=cotangent.lean * damping)
        felt = np.minimum(inflation + unequal(plan), INFLATED)
        share = _share_of_eps(plan, inverse, felt, evened)
        return _norm_backward(
            site, plan, value, y, unit, inverse * felt, given, evened, apart(plan, level, alone), share
        )

    shaped = y if y.dims == original.dims else Field(tables.regroup(y.table, y.dims), y.mean, y.base, y.source, y.sway)
    faint = None if plan.by_channel else original.faint
    own = float(variance.mean()), plan.eps
    found = _as_shape(shaped, original.shape)
    if faint is not None:
        found = replace(found, faint=after_norm(faint, *own))
    return Flow((found,), backward, returned=doubt_behind(faint, *own))


def _as_shape(y: Field, shape: tuple[int, ...]) -> Field:
    assert y.shape == shape
    return y


@dataclass(frozen=True, eq=False)
class Evened:
    """What a norm by channel does to channels of different variance."""

    same: Array  # E[x̂ x̂′] inside a channel, the mean over channels of each one's moments over its variance
    relative: Array  # 1/σ² by channel, of mean 1
    factor: float  # ⟨1/σ²⟩⟨σ²⟩
    root_factor: float  # ⟨1/σ⟩²⟨σ²⟩


def _evened(plan: Plan) -> Evened | None:
    """The norm channel by channel, where the input's rows are known and each channel has its own variance."""
    rows, along = plan.x.rows, plan.along
    if rows is None or len(along) != 1 or along[0] in plan.over or not plan.centred or plan.x.table.profile is not None:
        return None
    sizes = [size for axis, size in enumerate(plan.x.table.sizes) if axis != along[0]]
    over = [axis - (axis > along[0]) for axis in plan.over]
    centred = rows - patterns.across(patterns.average(rows, over, sizes), over)
    variance = np.maximum(centred.reshape(len(centred), -1)[:, -1], 0.0) + plan.eps
    if not (variance > 0.0).all():
        return None
    inverse, level = 1.0 / variance, float(variance.mean())
    same = inverse.dot(centred.reshape(len(inverse), -1)).reshape((1, *centred.shape[1:]))
    same *= plan.scale / len(inverse)
    average = float(inverse.mean())
    return Evened(same, inverse / average, average * level, float(np.sqrt(inverse).mean()) ** 2 * level)


def _divided(unit: Array, plan: Plan) -> tuple[Array, Array, float]:
    """x/s for a sample deviation s, inside one normalised set; E[1/s²]E[s²]; and ln of that for Gaussian entries.

    The last is also what the own share of an entry in s takes off its log scale: x/s of n entries has the kurtosis
    3n/(n + 2), and E[1/s²]E[s²] is 1 + 2/n.
    """
    sizes = plan.x.table.sizes
    over = sorted(plan.over)
    inside = patterns.take_all(unit, plan.others)
    level = inside.reshape(len(inside), -1)[:, -1]
    if plan.unequal:
        moments, inflation = _divided_by_sample(inside, plan)
        level = pooled(plan.x.table, level)
    else:
        moments, inflation = divided(inside, tuple([sizes[axis] for axis in over]))
    out = unit.copy()
    out[patterns.shared(unit.ndim, plan.others)] = moments * level.reshape((-1,) + (1,) * len(over))
    own = math.log(max(float(inflation.mean()), 1.0))
    tail = np.where(level > 0.0, np.minimum(np.maximum(inflation + plan.x.tail, 1.0), INFLATED), 1.0)
    return out, tail, min(own, math.log(INFLATED))


def _divided_by_sample(inside: Array, plan: Plan) -> tuple[Array, Array]:
    """`divided` inside one normalised set whose samples are told apart, by the axes that are normalised over."""
    assert plan.x.table.profile is not None
    over = sorted(plan.over)
    place = over.index(plan.x.table.profile.axis)
    sizes = [plan.x.table.sizes[axis] for axis in [over[place], *over[:place], *over[place + 1 :]]]
    moments, inflation = divided_by_sample(np.moveaxis(inside, place + 1, 1), sizes, plan.x.table.weights)
    return np.moveaxis(moments, 1, place + 1), np.full(len(inside), inflation)


def _along(values: Array, plan: Plan, same: float, different: float) -> Array:
    """Multiply by one number where the axes of the gain agree and by another where they do not."""
    out = values * different
    index = patterns.shared(values.ndim, plan.along)
    out[index] = values[index] * same
    return out


def _affine_field(plan: Plan, unit: Table, inverse: Array, sway: Sway, edges: Edges, spike: float) -> Field:
    gain, bias = plan.gain, plan.bias
    gains = plan.gains
    if gains is not None:
        return _by_channel(plan, unit, gains, sway, edges, spike)
    values: Array = unit.values
    mean: Array = np.zeros(len(unit.values))
    if not plan.centred:
        mean = plan.x.mean * np.sqrt(inverse)
    if gain is not None:
        values = _along(values, plan, gain.square, gain.cross)
        mean = mean * gain.mean
    if bias is not None and bias.square > 0:
        values = values + _along(np.ones_like(values), plan, bias.square, bias.cross)
        mean = mean + bias.mean
    table = unit.with_values(values)
    return Field(
        table,
        mean,
        _law(plan, inverse, mean),
        _source(plan),
        sway=sway,
        fixed=plan.by_channel,
        spike=spike,
        edges=edges,
        features=_features(plan),
    )


def _features(plan: Plan) -> float:
    """A norm by channel leaves what tokens have in common; of others that is not followed."""
    return plan.x.features if plan.by_channel else math.inf


def _source(plan: Plan) -> Hashable:
    """Two norms that do the same to one tensor give one tensor."""
    gain, bias = plan.gain, plan.bias
    if (gain is not None and not gain.uniform) or (bias is not None and not bias.uniform and bias.square > 0.0):
        return ("norm", object())
    affine = (1.0 if gain is None else gain.mean, 0.0 if bias is None else bias.mean)
    return ("norm", plan.over, plan.centred, plan.eps, plan.scale, affine, plan.x.source)


def _by_channel(plan: Plan, unit: Table, gains: Array, sway: Sway, edges: Edges, spike: float) -> Field:
    """The output of a norm whose gains vary: a class for every channel."""
    axis, bias = plan.along[0], plan.bias
    table, mean = gained(unit, axis, gains), np.zeros(len(gains))
    if bias is not None and bias.square > 0:
        mean = np.full(len(gains), bias.mean) if bias.values is None else bias.values
        table = shifted(table, axis, mean)
    return Field(table, mean, sway=sway, fixed=plan.by_channel, spike=spike, edges=edges, features=_features(plan))


def _law(plan: Plan, inverse: Array, mean: Array) -> Base | None:
    """The norm as an affine function of a non-Gaussian input, where its mean and deviation hardly vary."""
    x, gain, bias = plan.x, plan.gain, plan.bias
    base = x.base
    if base is None or base.function is IDENTITY or x.table.profile is not None or not plan.centred:
        return None
    variance = 1.0 / inverse[0] - plan.eps
    if abs(x.average**2 - (x.table.square - variance)) > 0.2 * variance or (gain is not None and not gain.uniform):
        return None
    scale = math.sqrt(inverse[0]) * (1.0 if gain is None else gain.mean)
    shift = (0.0 if bias is None else bias.mean) - scale * x.average
    return Base(base.table, base.mean, compose(affine(scale, shift), base.function), base.source)


def _norm_backward(
    site: Site,
    plan: Plan,
    source: int,
    y: Field,
    unit: Array,
    inverse: Array,
    cotangent: Cotangent,
    evened: Evened | None,
    between: Array,
    share: Array,
) -> Contributions:
    table = plan.x.table
    coupled = coupling(plan, y, cotangent)
    given = tables.regroup(cotangent.table, table.dims)
    if given.profile is not None and given.profile.axis in plan.over and not by_sample(given):
        given = given.collapse()
    given, unit_table = tables.same_classes(given, table.with_values(unit))
    g, h = given.values, unit_table.values
    if len(g) != len(h):
        g, h = np.broadcast_arrays(g, h)
    profile = given.profile or unit_table.profile
    pairs = g * h if coupled is None else np.broadcast_to(coupled, g.shape)
    pairs = pairs * together(table.axes, plan.along, cotangent.lean, y.sway)
    out: dict[int, Cotangent | Square] = dict(affine_gradients(site, plan, given, g, pairs))
    whole = dict(out)
    out |= left_over(site, plan, y, cotangent, whole)
    gain, gains = plan.gain, plan.gains
    if gains is not None:
        axis = plan.along[0]
        given, weighted, unit_table = (
            gained(Table(given.dims, np.array(values), profile), axis, by)
            for values, by in ((g, gains), (pairs, gains), (h, np.ones_like(gains)))
        )
        g, pairs, h, profile = given.values, weighted.values, unit_table.values, given.profile
    elif gain is not None:
        g, pairs = _along(g, plan, gain.square, gain.cross), _along(pairs, plan, gain.square, gain.cross)
    arrived = Table(table.dims, g, profile)
    g = centred(arrived, plan)
    g, taken = projected(plan, arrived, g, h, pairs)
    into = Table(table.dims, g, profile)
    roots = np.sqrt(_expanded(inverse, table, into))
    scales = outer(into, roots if len(roots) == len(g) else np.broadcast_to(roots, len(g)))
    into = into.with_values(g * scales * between)
    if evened is not None:
        into = into.with_values(_along(into.values, plan, evened.factor, evened.root_factor))
    original = site.known(source)
    rest = _rest_of_scale(plan, given, pairs, share) * _kept(site.value("weight"), whole, out)
    per_channel = plan.centred and plan.by_channel
    out[source] = Cotangent(
        _on_shape(into, original),
        edges=cotangent.edges,
        lean=cotangent.lean - taken * (1.0 + cotangent.lean) if per_channel else cotangent.lean,
        orthogonal=Orthogonal(original.source, rest) if per_channel else None,
        inverse=None if evened is None else (original.source, evened.relative),
        tilt=_tilt_below(plan, y, original, cotangent) if per_channel else None,
        echo=cotangent.echo if per_channel else 0.0,
    )
    return out


def _tilt_below(plan: Plan, y: Field, x: Field, cotangent: Cotangent) -> Tilt | None:
    """What the gradient depends on of the Gaussian under y, which is that under x up to scale and shift."""
    tilt = cotangent.tilt
    if tilt is None or tilt.source != y.law.source or plan.x is not x:
        return None
    return Tilt(x.law.source, tilt.values)


def _share_of_eps(plan: Plan, inverse: Array, felt: Array, evened: Evened | None) -> Array:
    """ε/(s² + ε) by channel: `inverse` is 1/(σ² + ε), `felt` E[1/s²]σ²."""
    share = np.full(1, plan.eps * float(inverse.mean()))
    if evened is not None:
        share = np.minimum(share * evened.factor * evened.relative, 1.0)
    grown = share * felt.mean()
    found: Array = grown / (grown + 1.0 - share)
    return found


def _rest_of_scale(plan: Plan, given: Table, pairs: Array, share: Array) -> Array:
    """E[(Σ δx)²] by channel: ε/(σ² + ε) of Σ γδx̂, as x̂ is not quite free of x's scale."""
    own = patterns.take_all(pairs, plan.along)
    axes = [axis for axis in range(len(given.sizes)) if axis not in plan.along]
    total = patterns.pair_sum(own, range(len(axes)), [given.sizes[axis] for axis in axes])
    rest: Array = max(float(total.mean()), 0.0) * share**2 * (1.0 - share) / max(float(1.0 - share.mean()), 1e-300)
    return rest


def _kept(gain: Value | None, whole: Contributions, left: Contributions) -> float:
    """What a later norm leaves of (Σ δx̂)², relative to that."""
    before, after = (None if gain is None else of.get(gain.id) for of in (whole, left))
    if not isinstance(before, Square) or not isinstance(after, Square) or not before.value > 0.0:
        return 1.0
    return min(max(after.value / before.value, 0.0), 1.0)


def _expanded(vector: Array, table: Table, target: Table) -> Array:
    """A vector over the classes of `table` on the classes of `target`."""
    if table.profile is None or len(vector) == len(target.values) or target.profile is None:
        return vector
    return vector[tables.class_of(table.profile.counts, target.profile.counts)]


def _on_shape(table: Table, field: Field) -> Table:
    """Undo the split of a group norm."""
    return tables.regroup(table, field.dims)
