"""The gradient that a loss sends into the output: one function per loss, from the output's field."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field, white
from gradlint.signal.kernels import expectation
from gradlint.signal.participation import overlap
from gradlint.signal.scalar import Scalar, compose, scalar_function
from gradlint.signal.site import Contributions, Dependent, Flow, Site, Unanswered
from gradlint.signal.stages import averaged, chained
from gradlint.signal.stages import function as entrywise
from gradlint.signal.table import Axis, Table
from gradlint.signal.transfer_merge import independent_sum
from gradlint.signal.transfer_pointwise import applied
from gradlint.signal.weights import numbers_of

Loss = Callable[[Field, int, float], Cotangent]  # output, class dimension, divisor


def unit(y: Field, classes: int, divisor: float) -> Cotangent:
    """White N(0, 1) entries: the gradient of a random projection."""
    return Cotangent(tables.constant(y.dims, 1.0))


def squared_error(y: Field, classes: int, divisor: float) -> Cotangent:
    """2(y − t)/N for targets t ~ N(0, 1)."""
    target = tables.constant(y.dims, 1.0)
    first, second = tables.same_classes(y.table, target)
    return Cotangent(tables.combine(first, second, np.add).scaled(4.0 / divisor**2))


def binary_logits(y: Field, classes: int, divisor: float) -> Cotangent:
    """(σ(y) − t)/N for targets 0 or 1 with equal chance: E[σσ′] − ½E[σ] − ½E[σ′] + E[tt′]."""
    sigmoid = scalar_function("sigmoid", {})
    assert sigmoid is not None
    probability = applied(y, y.law, sigmoid)
    level = probability.average
    target = tables.constant(y.dims, 0.5, 0.25)
    first, second = tables.same_classes(probability.table, target)
    table = tables.combine(first, second, lambda p, t: p - level + t)
    return Cotangent(table.scaled(1.0 / divisor**2))


def binary(y: Field, classes: int, divisor: float) -> Cotangent:
    """(p − t)/(p(1−p))/N for targets 0 or 1 with equal chance: ±1/p or 1/(1−p), independent between entries."""
    law = y.law
    inverse = Scalar(
        "bce",
        lambda z: np.sqrt(0.5 / np.clip(z, 1e-12, 1.0) ** 2 + 0.5 / np.clip(1 - z, 1e-12, 1.0) ** 2),
        np.zeros_like,
    )
    _, second = expectation(compose(inverse, law.function), float(law.mean[0]), float(law.variance[0]))
    shift = Scalar("bce mean", lambda z: 0.5 / np.clip(1 - z, 1e-12, 1.0) - 0.5 / np.clip(z, 1e-12, 1.0), np.zeros_like)
    table = applied(y, law, shift).table.collapse()
    values = table.values.copy()
    values.reshape(-1)[-1] = second
    return Cotangent(table.with_values(values).scaled(1.0 / divisor**2))


def cross_entropy(y: Field, classes: int, divisor: float, agreement: float | None = None) -> Cotangent:
    """(p − t)/N: same class E[p²] − 2/K² + 1/K, other classes sum to minus that.

    For two samples E[pp′] − 2/K² + q/K, with E[p_k p′_k] = e^c/((e^c + K − 1)K), c the covariance of the centred
    logits, and q = `agreement` the chance that two samples have one label: 1/K for uniform labels.
    """
    table = tables.merge_dim(y.table.collapse(), classes)
    if not table.dims[classes]:
        raise Unanswered("cross-entropy over one class")
    axis = table.starts[classes]
    count = table.sizes[axis]
    same, different = patterns.take(table.values, axis, 1), patterns.take(table.values, axis, 0)
    probability = overlap(np.maximum(same - different, 0.0), float(count)) / count
    agreement = 1.0 / count if agreement is None else agreement
    gradient = probability - 2.0 / count**2 + agreement / count
    index = (slice(None),) + (1,) * (gradient.ndim - 1)
    gradient[index] = probability[index] - 2.0 / count**2 + 1.0 / count
    values = patterns.put(axis, gradient, -gradient / (count - 1.0))
    return Cotangent(tables.regroup(table.with_values(values).scaled(1.0 / divisor**2), y.dims))


def negative_log_likelihood(y: Field, classes: int, divisor: float) -> Cotangent:
    """−1/N at a uniform random label of every sample."""
    count = y.shape[classes]
    dims = (*y.dims[:classes], (Axis(count),), *y.dims[classes + 1 :])
    flat = Table(dims, np.zeros((1,) + (2,) * sum(map(len, dims))))
    values = np.full(flat.values.shape, 1.0 / count**2)
    axis = flat.starts[classes]
    index: list[slice | int] = [slice(None)] + [1] * len(flat.axes)
    values[tuple(index)] = 1.0 / count
    index[axis + 1] = 0
    values[tuple(index)] = 0.0
    return Cotangent(tables.regroup(Table(dims, values).scaled(1.0 / divisor**2), y.dims))


LOSSES: dict[str, Loss] = {
    "unit": unit,
    "mse": squared_error,
    "bce": binary,
    "bce_logits": binary_logits,
    "ce": cross_entropy,
    "nll": negative_log_likelihood,
}

BY_FUNCTION = {
    "cross_entropy": "ce",
    "nll_loss": "nll",
    "binary_cross_entropy": "bce",
    "binary_cross_entropy_with_logits": "bce_logits",
}


def cotangent(name: str, y: Field) -> Cotangent:
    """The gradient of the mean loss at the output; classes lie along dimension 1 of an image, else the last one."""
    loss = LOSSES.get(name)
    if loss is None:
        raise Unanswered(f"no gradient for the loss {name}")
    classes = 1 if len(y.dims) > 3 else len(y.dims) - 1
    return loss(y, classes, divisor(name, y, classes))


def divisor(name: str, y: Field, classes: int) -> float:
    """How many terms the mean of a loss is taken over."""
    count = math.prod(y.shape)
    return float(count // max(y.shape[classes], 1)) if name in ("ce", "nll") and y.shape else float(max(count, 1))


def loss(site: Site) -> Flow:
    """A loss inside the model: its gradient at the input, times what reaches the loss."""
    name = BY_FUNCTION.get(site.op.function)
    reduction = str(site.op.attrs.get("reduction", "mean"))
    target = site.value("target")
    if target is not None and target.requires_grad:
        raise Unanswered("a loss whose target has a gradient")
    if site.op.function in DISTANCES and site.has("target") and not site.has("weight"):
        return distance(site, DISTANCES[site.op.function](site), reduction)
    if name is None or reduction not in ("mean", "sum"):
        raise Unanswered(f"no transfer function for {site.op.function} ({reduction})")
    value = site.id("input")
    y = site.known(value)
    classes = 1 if len(y.dims) > 1 else 0
    terms = divisor(name, y, classes) if reduction == "mean" else 1.0
    gradient = cross_entropy(y, classes, terms, agreement(site)) if name == "ce" else LOSSES[name](y, classes, terms)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        arrived = cotangents[0]
        return {} if arrived is None else {value: Cotangent(gradient.table.scaled(arrived.table.square))}

    return Flow((None,), backward)


def agreement(site: Site) -> float | None:
    """The chance that two entries of the target are one label; None where the labels were not seen."""
    numbers = site.graph.seen.get(site.id("target"))
    sums = None if numbers is None else numbers.moments.get("sums")
    count = math.prod(site.graph.values[site.id("target")].shape)
    if sums is None or count < 2:
        return None
    return (numbers_of(sums)[""] - count) / (count * (count - 1.0))


def _huber(limit: float, scale: float) -> Scalar:
    """scale·(z²/2 for |z| < limit, else limit·(|z| − limit/2))."""
    return Scalar(
        f"huber[{limit:.9g},{scale:.9g}]",
        lambda z: scale * np.where(np.abs(z) < limit, 0.5 * z * z, limit * (np.abs(z) - 0.5 * limit)),
        lambda z: scale * np.clip(z, -limit, limit),
    )


def _smooth(site: Site) -> Scalar:
    beta = site.number("beta", 1.0)
    return _huber(beta, 1.0 / beta) if beta > 0.0 else ABSOLUTE


ABSOLUTE = Scalar("abs", np.abs, np.sign, (1.0, -1.0))
SQUARE = Scalar("x²", lambda z: z * z, lambda z: 2.0 * z)
DISTANCES: dict[str, Callable[[Site], Scalar]] = {
    "mse_loss": lambda site: SQUARE,
    "l1_loss": lambda site: ABSOLUTE,
    "smooth_l1_loss": _smooth,
    "huber_loss": lambda site: _huber(site.number("delta", 1.0), 1.0),
}


def distance(site: Site, function: Scalar, reduction: str) -> Flow:
    """A function of y − t, entry by entry, and its mean or sum; a target that was not seen is N(0, 1)."""
    value, target = site.id("input"), site.id("target")
    y = site.known(value)
    try:
        t = site.known(target)
    except Dependent:
        t = white(tables.dims_of(site.graph.values[target].shape, batch=0))
    gap = independent_sum(value, target, y, t, -1.0)
    assert gap.outputs[0] is not None
    steps = [entrywise(function)]
    if reduction in ("mean", "sum"):
        steps.append(averaged(range(len(gap.outputs[0].dims)), keep=False, summed=reduction == "sum"))
    stage = chained(gap.outputs[0], steps)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        cotangent = cotangents[0]
        if cotangent is None:
            return {}
        into = gap.backward([stage.back(cotangent)])
        return {value: into[value]}

    return Flow((stage.field,), backward)
