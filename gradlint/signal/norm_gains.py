"""The gain and bias of a norm: how far its channels differ by them, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from statistics import NormalDist

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Base, Cotangent, Field, push
from gradlint.signal.kernels import GRID, GRID_WEIGHT, SCORES
from gradlint.signal.norm_plan import Plan
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import Scalar, affine, compose, product
from gradlint.signal.site import Contribution, Site, Square
from gradlint.signal.table import Table

ROUNDING = 1e-20  # of a share of a variance


def _unit(plan: Plan, law: Base) -> Scalar | None:
    """x̂ as a function of the Gaussian under y = γ x̂ + β."""
    gain = 1.0 if plan.gain is None else plan.gain.mean
    if abs(gain) < 1e-6 or plan.gains is not None:
        return None
    shift = 0.0 if plan.bias is None else plan.bias.mean
    return compose(affine(1.0 / gain, -shift / gain), law.function)


def coupling(plan: Plan, y: Field, cotangent: Cotangent) -> Array | None:
    """E[δ x̂ δ′ x̂′] when δ went through a function of this very output: E[d(y)x̂ d(y′)x̂′] for the product of kernels."""
    factor, law = cotangent.factor, y.law
    unit = _unit(plan, law)
    if factor is None or factor.base.source != law.source or unit is None:
        return None
    pushed, _ = push(law, product(factor.function, unit))
    independent, pushed = tables.same_classes(factor.independent, pushed)
    values = tables.combine(independent, pushed, np.multiply).values
    tilt = cotangent.tilt
    if factor.partial and tilt is not None and tilt.source == law.source:
        at = float(law.mean[0]) + math.sqrt(float(law.variance[0])) * SCORES
        values.reshape(len(values), -1)[:, -1] = cotangent.table.square * float(
            (tilt.values * unit.value(at) ** 2).mean()
        )
    return values


def left_over(
    site: Site, plan: Plan, y: Field, cotangent: Cotangent, found: Mapping[int, Contribution]
) -> dict[int, Square]:
    """Gradients of γ and β when a later norm of the same channel undoes scale and shift of φ(y).

    Σ δ = Σ δ φ(y) = 0 in every channel, so that of φ′(y)x̂ and of φ′(y) only what 1 and φ(y) do not span is left: for a
    positively homogeneous φ nothing of γ's gradient but what the ε of the later norm leaves.
    """
    factor, spanned, law = cotangent.factor, cotangent.spanned, y.law
    unit = _unit(plan, law)
    if factor is None or spanned is None or factor.base.source != law.source or unit is None:
        return {}
    nodes, weight = _rare(math.prod(plan.x.table.sizes))
    z = float(law.mean[0]) + math.sqrt(float(law.variance[0])) * nodes
    slope = factor.function.value(z)
    gain = 1.0 if plan.gain is None else max(plan.gain.square, 1e-300)
    out: dict[int, Square] = {}
    for role, values, rest in (("weight", slope * unit.value(z), spanned.rest / gain), ("bias", slope, 0.0)):
        value = site.value(role)
        square = found.get(value.id) if value is not None else None
        if value is not None and isinstance(square, Square):
            share = unspanned(values, spanned.function.value(z), weight)
            left = square.value * (1.0 - spanned.share * (1.0 - share)) + rest
            out[value.id] = Square(left, left if rest > 0.0 else square.magnitude)
    return out


@lru_cache(maxsize=512)
def _rare(count: int) -> tuple[Array, Array]:
    """Quadrature of the standard Gaussian, without what happens to fewer than one of so many entries."""
    inside = np.abs(GRID) < -NormalDist().inv_cdf(0.5 / (2 * count))
    weight = GRID_WEIGHT * inside
    return GRID, weight / weight.sum()


def unspanned(values: Array, other: Array, weight: Array) -> float:
    """Share of the variance of `values` under these weights that is not linear in `other`."""
    centred, regressor = values - values @ weight, other - other @ weight
    variance, scale = float(centred**2 @ weight), float(regressor**2 @ weight)
    if variance <= 0.0 or scale <= 0.0:
        return 1.0
    rest = centred - float((centred * regressor) @ weight) / scale * regressor
    share = float(rest**2 @ weight) / variance
    return share if share > ROUNDING else 0.0


def affine_gradients(site: Site, plan: Plan, given: Table, g: Array, pairs: Array) -> dict[int, Square]:
    """γ: Σ δ x̂ and β: Σ δ over everything but their own axes."""
    weights = given.weights if len(given.weights) == len(g) else np.full(len(g), 1.0 / len(g))
    sizes = [size for axis, size in enumerate(given.sizes) if axis not in plan.along]
    out: dict[int, Square] = {}
    for role, values in (("weight", pairs), ("bias", g)):
        value = site.value(role)
        if value is not None and value.requires_grad and site.op.kind == "norm":
            own = patterns.take_all(values, plan.along)
            summed = patterns.pair_sum(
                np.array([own, np.abs(own)]).swapaxes(0, 1), range(1, 1 + len(sizes)), (2, *sizes)
            )
            out[value.id] = Square(*(weights @ summed).tolist())
    return out
