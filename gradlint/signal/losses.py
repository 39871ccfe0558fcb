"""The gradient that a loss sends into the output: one function per loss, from the output's field."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.kernels import expectation
from gradlint.signal.scalar import Scalar, compose, scalar_function
from gradlint.signal.site import Contributions, Flow, Site, Unanswered
from gradlint.signal.table import Axis, Table
from gradlint.signal.transfer_attention import overlap
from gradlint.signal.transfer_pointwise import applied

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


def cross_entropy(y: Field, classes: int, divisor: float) -> Cotangent:
    """(p − t)/N for uniform random labels: same class E[p²] − 2/K² + 1/K, other classes sum to minus that.

    For two samples E[pp′] − 1/K², with E[p_k p′_k] = e^c/((e^c + K − 1)K), c the covariance of the centred logits.
    """
    table = tables.merge_dim(y.table.collapse(), classes)
    if not table.dims[classes]:
        raise Unanswered("cross-entropy over one class")
    axis = table.starts[classes]
    count = table.sizes[axis]
    same, different = tables.take(table.values, axis, 1), tables.take(table.values, axis, 0)
    probability = overlap(np.maximum(same - different, 0.0), float(count)) / count
    gradient = probability - 1.0 / count**2
    index = (slice(None),) + (1,) * (gradient.ndim - 1)
    gradient[index] = probability[index] - 2.0 / count**2 + 1.0 / count
    values = tables.put(axis, gradient, -gradient / (count - 1.0))
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
    "mse_loss": "mse",
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
    if name is None or reduction not in ("mean", "sum"):
        raise Unanswered(f"no transfer function for {site.op.function} ({reduction})")
    target = site.value("target")
    if target is not None and target.requires_grad:
        raise Unanswered("a loss whose target has a gradient")
    value = site.id("input")
    y = site.known(value)
    classes = 1 if len(y.dims) > 1 else 0
    terms = divisor(name, y, classes) if reduction == "mean" else 1.0
    gradient = LOSSES[name](y, classes, terms)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        arrived = cotangents[0]
        return {} if arrived is None else {value: Cotangent(gradient.table.scaled(arrived.table.square))}

    return Flow((None,), backward)
