"""The gain and bias of a norm: how far its channels differ by them, and their gradients."""

from __future__ import annotations

import math

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Base, Cotangent, Field, push
from gradlint.signal.kernels import SCORES
from gradlint.signal.norm_plan import Plan
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import Scalar, affine, compose, product
from gradlint.signal.site import Site, Square
from gradlint.signal.table import Table


def unit_of(plan: Plan, law: Base) -> Scalar | None:
    """x̂ as a function of the Gaussian under y = γ x̂ + β."""
    gain = 1.0 if plan.gain is None else plan.gain.mean
    if abs(gain) < 1e-6 or plan.gains is not None:
        return None
    shift = 0.0 if plan.bias is None else plan.bias.mean
    return compose(affine(1.0 / gain, -shift / gain), law.function)


def coupling(plan: Plan, y: Field, cotangent: Cotangent) -> Array | None:
    """E[δ x̂ δ′ x̂′] when δ went through a function of this very output: E[d(y)x̂ d(y′)x̂′] for the product of kernels."""
    factor, law = cotangent.factor, y.law
    unit = unit_of(plan, law)
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
