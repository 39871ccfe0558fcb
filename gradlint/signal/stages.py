"""Ops that are chains of simpler ones: each stage has a field and sends a cotangent back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.field import Base, Cotangent, Field
from gradlint.signal.scalar import Scalar
from gradlint.signal.site import Contributions, Flow, Unanswered
from gradlint.signal.table import Table
from gradlint.signal.transfer_pointwise import applied, into

BROADEST = 4.0  # relative variance of a positive tensor beyond which its log-normal says nothing

EXP = Scalar("exp", np.exp, np.exp)


@dataclass(frozen=True, eq=False)
class Stage:
    """What one step makes of a field, and its adjoint."""

    field: Field
    back: Callable[[Cotangent], Cotangent]


Step = Callable[[Field], Stage]


def chained(x: Field, steps: Sequence[Step]) -> Stage:
    """Several steps as one."""
    stages: list[Stage] = []
    for step in steps:
        stages.append(step(stages[-1].field if stages else x))

    def back(cotangent: Cotangent) -> Cotangent:
        for stage in reversed(stages):
            cotangent = stage.back(cotangent)
        return cotangent

    return Stage(stages[-1].field if stages else x, back)


def flow(value: int, stage: Stage, doubt: float = 0.0) -> Flow:
    """The flow of an op with one operand."""

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        return {} if cotangent is None else {value: stage.back(cotangent)}

    return Flow((stage.field,), backward, doubt)


def function(scalar: Scalar) -> Step:
    """A function of every entry."""
    return lambda x: Stage(applied(x, x.law, scalar), lambda cotangent: into(x, scalar, cotangent))


def averaged(dims: Sequence[int], *, keep: bool, summed: bool = False) -> Step:
    """The mean, or the sum, over some dimensions."""

    def step(x: Field) -> Stage:
        count = math.prod(x.shape[dim] for dim in dims)
        scale = float(count) if summed else 1.0
        table = tables.mean(x.table, dims).scaled(scale**2)
        reduced = table if keep else tables.squeeze(table, [dim % len(x.dims) for dim in dims])
        mean = x.mean * scale if len(x.mean) == len(table.values) else np.array([x.average * scale])

        def back(cotangent: Cotangent) -> Cotangent:
            given = tables.regroup(cotangent.table, reduced.dims)
            opened = Table(table.dims, given.values, given.profile)
            return Cotangent(tables.expand(opened, x.dims).scaled((scale / count) ** 2), lean=cotangent.lean)

        return Stage(Field(reduced, mean, sway=x.sway), back)

    return step


def centred(dims: Sequence[int]) -> Step:
    """x minus its mean over some dimensions, which is its own adjoint."""

    def without_mean(table: Table) -> Table:
        table = table.collapse_along([axis for dim in dims for axis in table.at(dim)])
        mean = tables.expand(tables.mean(table, dims), table.dims)
        return table.with_values(table.values - mean.values)

    def step(x: Field) -> Stage:
        table = without_mean(x.table)
        field = Field(table, np.zeros(len(table.values)), sway=x.sway)
        return Stage(field, lambda cotangent: Cotangent(tables.regroup(without_mean(on(cotangent, table)), x.dims)))

    return step


def on(cotangent: Cotangent, table: Table) -> Table:
    """The cotangent's table in the layout of another."""
    return tables.regroup(cotangent.table, table.dims)


def positive(x: Field) -> Stage:
    """The same entries as the exponential of a Gaussian of their mean and second moments, if they surely are positive.

    What a sum of squares or of probabilities is divided by: ln x has covariance ln(E[xx′]/E[x]²).
    """
    own = x.law
    if own.table.profile is None and _surely(own):
        return Stage(x, lambda cotangent: cotangent)
    flat = x.collapse()
    level = flat.average
    relative = flat.variance / level**2 if level > 0.0 else math.inf
    if not relative < BROADEST:
        raise Unanswered("division by a tensor that is not surely positive")
    ratio = np.maximum(flat.table.values / level**2, 1e-12)
    spread = np.log(ratio)
    centre = math.log(level) - 0.5 * float(spread.reshape(-1)[-1])
    base = Base(flat.table.with_values(spread + centre**2), np.array([centre]), EXP, ("log", x.source))
    return Stage(
        Field(flat.table, flat.mean, base, x.source, x.sway),
        lambda cotangent: Cotangent(tables.regroup(cotangent.table, x.dims)),
    )


def _surely(law: Base) -> bool:
    """Whether a function of its Gaussian is above zero for certain."""
    if law.function.key == "x":
        return False
    deviation = math.sqrt(float(law.variance[0]))
    values = law.function.value(float(law.mean[0]) + deviation * np.linspace(-6.0, 6.0, 121))
    return bool(values.min() > 1e-6 * max(float(np.abs(values).max()), 1e-300))


def exact(stage: Stage, shape: Sequence[int]) -> Stage:
    """The stage's field in a shape of the same entries."""
    if stage.field.shape == tuple(shape):
        return stage
    before = stage.field

    def back(cotangent: Cotangent) -> Cotangent:
        return stage.back(Cotangent(tables.regroup(tables.reshape(cotangent.table, before.shape), before.dims)))

    return Stage(replace(before.relabelled(lambda table: tables.reshape(table, shape), ("view", tuple(shape)))), back)
