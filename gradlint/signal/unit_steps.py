"""What each kind of op does unit by unit; a kind that is missing here ends the unit-wise prediction of the graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradlint.signal.gate import Gate
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import Scalar, affine, scalar_function
from gradlint.signal.spread import Spread
from gradlint.signal.taps import Taps, covering, sliding
from gradlint.signal.unit_layers import Layer
from gradlint.signal.unit_norms import feature_norm
from gradlint.signal.unit_step import Beyond, Place, Step, entries
from gradlint.signal.units import Units


def linear(place: Place) -> Step:
    """A matrix, over single positions or over flattened ones."""
    weight = entries(place, "weight", 2)
    weight = weight if place.op.attrs.get("layout", "oi") == "oi" else weight.T
    if place.op.attrs.get("left"):
        raise Beyond("a weight on the left")
    x, shape = place.units(), place.value().shape
    if not x.flat:
        positions = math.prod(shape[1:-1])
        return layered(place, replace(x, positions=positions), weight[None], Taps((), positions))
    if len(shape) > 2 or weight.shape[1] % x.positions:
        raise Beyond("flattened positions that a matrix does not contract")
    parts = weight.reshape(len(weight), -1, x.positions)
    return layered(place, replace(x, flat=()), np.moveaxis(parts, 2, 0), covering(x.flat))


def convolution(place: Place) -> Step:
    """A convolution without groups."""
    before, after = place.value().shape, place.shape
    rank = len(before) - 2
    if place.op.attrs.get("transposed") or place.number("groups", 1) != 1 or rank < 1:
        raise Beyond("a transposed or grouped convolution")
    weight = entries(place, "weight", rank + 2)
    padding = place.op.attrs.get("padding", 0)
    pads = [float(p) for p in padding] if isinstance(padding, Sequence) else [float(place.number("padding", 0))] * rank
    stride, dilation = place.each("stride", rank, 1), place.each("dilation", rank, 1)
    taps = sliding(before[2:], after[2:], weight.shape[2:], stride, pads, dilation)
    x = replace(place.units(), positions=taps.before)
    return layered(place, x, np.moveaxis(weight.reshape(*weight.shape[:2], -1), 2, 0), taps)


def layered(place: Place, x: Units, weights: Array, taps: Taps) -> Step:
    """The step of a layer with these weights (T, out, in)."""
    if x.flat:
        raise Beyond("flattened positions")
    bias = place.graph.operand(place.op, "bias")
    layer = Layer(weights, None if bias is None else entries(place, "bias", 1), taps)
    source, weight = place.value().id, place.value("weight")

    def back(given: Spread) -> tuple[Mapping[int, Spread], Mapping[str, float]]:
        squares = layer.gradients(x, given, place.samples)
        found = {weight.name: squares[0]} | ({} if bias is None else {bias.name: squares[1]})
        return {source: layer.backward(given)}, found

    return Step(layer.forward(x), back)


def activation(place: Place) -> Step:
    """A function of every entry."""
    function = scalar_function(place.op.function, place.op.attrs)
    if function is None or place.op.function == "prelu" or "other" in place.op.roles:
        raise Beyond(f"the function {place.op.function}")
    return applied(place, place.value().id, function)


def applied(place: Place, source: int, function: Scalar) -> Step:
    """The step of a function of every entry of one value."""
    x = place.known.get(source)
    if x is None:
        raise Beyond("an operand that is not followed")
    gate = Gate(x, function)
    return Step(x.through(function), lambda given: ({source: given.gated(gate)}, {}))


def add(place: Place) -> Step:
    """A sum or difference of two tensors of one shape, or of a tensor and a number."""
    sign = -1.0 if place.op.function == "sub" else 1.0
    alpha = sign * place.number("alpha", 1.0)
    data = [value for value, role in zip(place.op.inputs, place.op.roles, strict=True) if role in ("input", "other")]
    if place.op.function not in ("add", "sub"):
        raise Beyond(place.op.function)
    if len(data) == 1:
        reverse = bool(place.op.attrs.get("reversed"))
        number = place.number("scalar", 0.0)
        return applied(place, data[0], affine(alpha, number) if reverse else affine(1.0, alpha * number))
    x, y = (place.known.get(value) for value in data)
    if x is None or y is None or data[0] == data[1] or x.flat != y.flat:
        raise Beyond("a sum with what is not followed")
    if any(place.graph.values[value].shape != place.shape for value in data):
        raise Beyond("a sum that broadcasts")
    count = max(len(x.mean), len(y.mean))
    a, b = x.on(count).gaussian(), y.on(count).gaussian()
    parts = (a.mean + alpha * b.mean, a.shared + alpha**2 * b.shared, a.local + alpha**2 * b.local)
    output = Units(*parts, max(a.positions, b.positions), flat=a.flat)
    return Step(
        output, lambda given: ({data[0]: replace(given, bend=None, gate=None), data[1]: given.scaled(alpha)}, {})
    )


def mul(place: Place) -> Step:
    """A tensor times a number."""
    data = [value for value, role in zip(place.op.inputs, place.op.roles, strict=True) if role in ("input", "other")]
    number = place.number("scalar", 0.0)
    if len(data) != 1 or place.op.function not in ("mul", "div") or place.op.attrs.get("reversed") or not number:
        raise Beyond("a product of tensors")
    return applied(place, data[0], affine(number if place.op.function == "mul" else 1.0 / number, 0.0))


def reshape(place: Place) -> Step:
    """Positions flattened behind their channel, dimensions of size 1, or any view of a tensor of equal entries."""
    x, before, after = place.units(), place.value().shape, place.shape
    if x.uniform or [size for size in before if size > 1] == [size for size in after if size > 1]:
        output = x
    elif len(after) == 2 and after[0] == before[0] and len(before) > 2 and len(x.mean) == before[1]:
        output = replace(x, positions=math.prod(before[2:]), flat=tuple(before[2:]))
    else:
        raise Beyond("a view across units")
    source = place.value().id
    return Step(output, lambda given: ({source: given}, {}))


def mean(place: Place) -> Step:
    """The mean over all positions."""
    x, shape = place.units(), place.value().shape
    dims = place.op.attrs.get("dims")
    sizes = place.op.attrs.get("output_size")
    whole = place.op.function == "mean" and dims == tuple(range(2, len(shape)))
    whole = whole or (place.op.kind == "pool" and math.prod(place.shape[2:]) == 1 and sizes is not None)
    if not whole or place.op.function == "adaptive_max" or len(x.mean) != shape[1] or x.flat:
        raise Beyond("a mean over something else than all positions")
    return averaged(place, x, shape[2:])


def averaged(place: Place, x: Units, sizes: Sequence[int]) -> Step:
    """The step of a mean over all positions."""
    count, source = math.prod(sizes), place.value().id
    x = x.gaussian()
    output = Units(x.mean, np.zeros_like(x.mean), x.shared + x.local / count, 1)

    def back(given: Spread) -> tuple[Mapping[int, Spread], Mapping[str, float]]:
        units = len(given.mean)
        local = np.zeros((units, units)) if count > 1 else None
        kernels = tuple(np.ones((size, size)) for size in sizes)
        return {source: replace(given.scaled(1.0 / count), local=local, bend=None, gate=None, kernels=kernels)}, {}

    return Step(output, back)


def same(place: Place) -> Step:
    """The same numbers again; dropout that drops nothing."""
    drops = place.op.kind == "dropout" and bool(place.op.attrs.get("training")) and place.number("p", 0.0) > 0.0
    if place.op.function == "detach" or drops:
        raise Beyond(place.op.function)
    source = place.value().id
    return Step(place.units(), lambda given: ({source: given}, {}))


STEPS: Mapping[str, Callable[[Place], Step]] = {
    "linear": linear,
    "norm": feature_norm,
    "conv": convolution,
    "activation": activation,
    "elementwise": activation,
    "add": add,
    "mul": mul,
    "reshape": reshape,
    "reduce": mean,
    "pool": mean,
    "copy": same,
    "dropout": same,
}
