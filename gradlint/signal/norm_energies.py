"""Samples and positions of unequal energy in a norm: what each is divided by, and how unequal they are after it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gradlint.signal.norm_plan import Plan
from gradlint.signal.patterns import Array
from gradlint.signal.samples import with_others
from gradlint.signal.sway import LARGEST, NEGLIGIBLE, Sway, concentrated, crossed, diluted
from gradlint.signal.table import Table

INFLATED = 4.0  # a norm over two or three degrees of freedom has no finite E[1/s²]


def damping_of(plan: Plan, inflation: Array, live: float) -> float:
    """Change of a sample's log energy over what it was: it weighs in its own divisor, or is divided out whole.

    `live` is σ²/(σ² + ε): what of the divisor is the energy's own.
    """
    if not plan.by_channel:
        return 1.0 - live
    excess = float(inflation.mean()) - 1.0
    if plan.unequal:
        table = plan.x.table
        uneven = float(table.weights @ table.squares**2) / max(table.square, 1e-300) ** 2
        excess = live**2 * 2.0 * uneven / math.prod(table.sizes[axis] for axis in plan.over)
    return max(1.0 - excess * (1.0 + 1.5 * plan.x.sway.variance), 0.0)


def freed(sway: Sway, x: Table, unit: Table, plan: Plan) -> Sway:
    """The sway of what a norm over unequal samples leaves of x.

    What all positions have in common does not sway, and is divided by more than what they do not.
    """
    if not plan.unequal or sway.variance <= NEGLIGIBLE:
        return sway
    positions = [axis for axis in plan.over if not x.axes[axis].batch]
    before, after = with_others(x, positions), with_others(unit, positions)
    own = concentrated(max(sway.variance - crossed(before.all, plan.x.features), 0.0), before.own)
    return replace(sway, variance=min(diluted(own, after.own) + crossed(after.own, plan.x.features), LARGEST))


def apart(plan: Plan, own: float, live: float) -> Array:
    """E[1/(s s′)] of two normalised sets over E[1/s²] of even ones, by shared axes, where each sample has its own s.

    ln s² has the variance `own` of finitely many entries, and that of the energy which they have in common. Of a
    log-normal s² with log variance v, E[s²]E[1/s²] is e^v, and E[s²]E[1/(s s′)] is e^(v(3 + c)/4) at a correlation c.
    Of ln(s² + ε) that is `live`² of it, with `live` = σ²/(σ² + ε).
    """
    if plan.by_channel:
        return np.ones(())
    axes = plan.x.table.axes
    found = np.ones((1,) + (2,) * len(axes))
    sway = plan.x.sway
    inside = math.prod(axes[axis].size for axis in plan.over if axis not in plan.along)
    across = math.prod(axes[axis].size for axis in plan.others if not axes[axis].batch and axis not in plan.along)
    variance = live**2 * (sway.variance if inside == 1 else sway.shared(inside))
    shared = live**2 * sway.shared(across) if inside == 1 else variance
    index: list[slice | int] = [slice(None)] * found.ndim
    found *= math.exp(0.75 * variance - 0.25 * own)
    for axis in plan.others:
        if axes[axis].batch:
            index[axis + 1] = 1
    found[tuple(index)] = math.exp(0.75 * variance + 0.25 * shared - 0.25 * own)
    for axis in plan.others:
        index[axis + 1] = 1
    found[tuple(index)] = math.exp(variance)
    return found


def unequal(plan: Plan) -> float:
    """What samples of unequal energy e add to the relative variance of s² = Σ e z²/n of a channel: 2(E[e²] − 1)/n.

    The tail of a filter with a single input channel counts them already.
    """
    if not plan.by_channel or plan.x.tail > 0.0:
        return 0.0
    count = math.prod(plan.x.table.sizes[axis] for axis in plan.over)
    return 2.0 * math.expm1(plan.x.sway.variance) / count
