"""What a norm takes off its input and off a gradient: the mean, and what lies along the normalised input."""

from __future__ import annotations

import math

import numpy as np

from gradlint.signal import patterns, samples
from gradlint.signal.norm_plan import Plan
from gradlint.signal.patterns import Array
from gradlint.signal.table import Table


def centred(table: Table, plan: Plan) -> Array:
    """E[x x′] of a tensor laid out as the input is, less its means over normalised sets if the norm takes them off."""
    values = table.values
    if not plan.centred:
        return values
    if _unequal(table, plan):
        return samples.centred(table, values, plan.over)
    return values - patterns.across(patterns.average(values, plan.over, plan.x.table.sizes), plan.over)


def over_set(table: Table, plan: Plan, vector: Array) -> Array:
    """A number by class; where samples are the classes of one normalised set, its average over them."""
    return samples.pooled(table, vector) if _unequal(table, plan) else vector


def _unequal(table: Table, plan: Plan) -> bool:
    return samples.by_sample(table) and table.profile is not None and table.profile.axis in plan.over


def _over_pairs(table: Table, values: Array, plan: Plan) -> Array:
    """Average over all pairs of the axes that are normalised over, by the other axes."""
    if _unequal(table, plan):
        return np.repeat(samples.over_all(table, values, plan.over), len(values), 0)
    return patterns.average(values, sorted(plan.over), plan.x.table.sizes)


def projected(plan: Plan, given: Table, g: Array, h: Array, pairs: Array) -> tuple[Array, float]:
    """(D − x̂m)(D′ − x̂′m′), m the mean of D x̂ over a normalised set, and the share of E[D²] that lies along x̂.

    Inside a set −2 E[m D]x̂′ + κ x̂x̂′ with κ = E[m²]; between two sets −2 E[m D′] x̂ + E[mm′] x̂x̂′, which keeps what a
    sum over sets of centred gradients leaves.

    Of D² ∝ v^a at a sample of energy v the projection leaves v^a − 2r v^(1+a) + r v for the share r that it takes: to
    first order in r that leans by a − r(1 + a) on v.
    """
    scale = given.per_class(over_set(given, plan, h.reshape(len(h), -1)[:, -1]))
    scale = np.where(scale > 0.0, scale, np.inf)  # entries that are zero have no direction to project out
    full = given.per_class(over_set(given, plan, g.reshape(len(g), -1)[:, -1]))
    sizes = plan.x.table.sizes
    over = sorted(plan.over)
    summed = _over_pairs(given, pairs, plan)
    coupled, own = patterns.across(summed, over), summed.reshape(len(summed), -1)[:, -1]
    kappa = np.minimum(np.maximum(given.per_class(own), 0.0) / scale, full)
    alike = patterns.take_all(h, plan.others)
    inside, met = patterns.across(alike, plan.others), _met(g, h, plan)
    known = given.per_class(over_set(given, plan, met.reshape(len(met), -1)[:, -1]))
    along = patterns.take_all((kappa - 2.0 * known / scale) / scale, plan.others, 0)
    same, different = patterns.joint(g, over, sizes)
    count = math.prod(sizes[axis] for axis in over)
    between = coupled / scale**2 * h - 2.0 * patterns.across((same - different) / count, over) * inside / scale
    left: Array = g + between
    within = patterns.shared(g.ndim, plan.others)
    left[within] = g[within] - along * alike - 2.0 * met / patterns.take_all(scale, plan.others, 0)
    return left, min(float((kappa / np.maximum(full, 1e-300)).mean()), 1.0)


def _met(g: Array, h: Array, plan: Plan) -> Array:
    """E[D_i x̂_j m] inside one normalised set, m its mean of D x̂: the mean over l of E[D_i D_l]E[x̂_j x̂_l]."""
    sizes = tuple(plan.x.table.sizes[axis] for axis in sorted(plan.over))
    first, second = (patterns.take_all(values, plan.others) for values in (g, h))
    known, other = (values.reshape(len(values), -1).T for values in (first, second))
    product: Array = (patterns.products(sizes).dot(other) * known).sum(1).T
    return product.reshape(first.shape) / float(math.prod(sizes))
