"""Handlers of elementwise operators: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gradlint.onnx.node import Handler, Node, UnsupportedError, broadcast, shape_of
from gradlint.onnx.program import TRAINING, DType, Symbol
from gradlint.onnx.shapes import TYPES

UNARY = {
    **{
        op: f"T.{op.lower()}"
        for op in ("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh")
    },
    **{op: f"T.{op.lower()}" for op in ("Erf", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Round", "Sigmoid", "Sign")},
    **{op: f"T.{op.lower()}" for op in ("Sin", "Sinh", "Sqrt", "Tan", "Tanh", "IsNaN")},
    "Relu": "F.relu",
    "Softplus": "F.softplus",
    "Softsign": "F.softsign",
    "HardSwish": "F.hardswish",
    "Mish": "F.mish",
    "Not": "T.logical_not",
    "BitwiseNot": "T.bitwise_not",
    "Det": "T.det",
}
# operator → (function of tensor and tensor or number, the same with the operands changed over)
BINARY = {
    "Add": ("T.add", "T.add"),
    "Sub": ("T.sub", "M.__rsub__"),
    "Mul": ("T.mul", "T.mul"),
    "Div": ("T.div", "M.__rtruediv__"),
    "Pow": ("T.pow", "M.__rpow__"),
    "Equal": ("T.eq", "T.eq"),
    "Greater": ("T.gt", "T.lt"),
    "Less": ("T.lt", "T.gt"),
    "GreaterOrEqual": ("T.ge", "T.le"),
    "LessOrEqual": ("T.le", "T.ge"),
}
TENSORS = {
    "And": "T.logical_and",
    "Or": "T.logical_or",
    "Xor": "T.logical_xor",
    "BitwiseAnd": "T.bitwise_and",
    "BitwiseOr": "T.bitwise_or",
    "BitwiseXor": "T.bitwise_xor",
}
ALPHA = {  # operator → function of x and alpha, and alpha's default
    "LeakyRelu": ("F.leaky_relu", 0.01),
    "Elu": ("F.elu", 1.0),
    "Celu": ("F.celu", 1.0),
}


def _unary(function: str) -> Handler:
    return lambda n: n.out(function, n[0])


def _tensors(function: str) -> Handler:
    return lambda n: n.out(function, n[0], n[1])


def _alpha(function: str, default: float) -> Handler:
    return lambda n: n.out(function, n[0], _plain(n.attr("alpha", default)))


def _binary(function: str, turned: str) -> Handler:
    def handler(n: Node) -> Symbol:
        left, right = n[0], n[1]
        number = n.number_or(1, left)
        if not isinstance(number, Symbol):
            return n.out(function, left, number)
        number = n.number_or(0, right)
        if not isinstance(number, Symbol):
            return n.out(turned, right, number)
        return n.out(function, left, right)

    return handler


def _plain(value: float) -> float:
    """A float32 attribute as the decimal number that was meant: 0.20000000298 is 0.2."""
    return float(f"{value:.7g}")


def divide(n: Node) -> Symbol:
    """Integers are divided towards zero."""
    if n[0].dtype.startswith(("int", "uint")):
        return n.out("T.div", n[0], n[1], rounding_mode="trunc")
    return _binary(*BINARY["Div"])(n)  # type: ignore[return-value]


def modulo(n: Node) -> Symbol:
    """With fmod the sign is the dividend's."""
    return n.out("T.fmod" if n.attr("fmod", 0) else "T.remainder", n[0], n[1])


def shift(n: Node) -> Symbol:
    """Bits moved left or right."""
    return n.out(f"T.bitwise_{str(n.attr('direction')).lower()}_shift", n[0], n[1])


def _folded(function: str) -> Handler:
    """A function of two tensors over any number of inputs."""

    def handler(n: Node) -> Symbol:
        first, *rest = [symbol for symbol in n.inputs if symbol is not None]
        if not rest:
            return first
        for symbol in rest[:-1]:
            first = n.step(function, first, symbol, shape=broadcast(first, symbol), dtype=first.dtype)
        return n.out(function, first, rest[-1])

    return handler


def mean(n: Node) -> Symbol:
    """The mean of the inputs, entry by entry."""
    inputs = [symbol for symbol in n.inputs if symbol is not None]
    total = inputs[0]
    for symbol in inputs[1:]:
        total = n.step("T.add", total, symbol, shape=broadcast(total, symbol), dtype=total.dtype)
    return n.out("T.div", total, len(inputs))


def selu(n: Node) -> Symbol:
    """Only with the constants that make it self-normalising."""
    if abs(n.attr("alpha", 1.6732632) - 1.6732632) > 1e-4 or abs(n.attr("gamma", 1.0507010) - 1.0507010) > 1e-4:
        x = n.like("F.elu", n[0], _plain(n.attr("alpha")))
        return n.out("T.mul", x, _plain(n.attr("gamma")))
    return n.out("F.selu", n[0])


def hard_sigmoid(n: Node) -> Symbol:
    """clamp(αx + β, 0, 1); torch's own has α = 1/6."""
    alpha, beta = n.attr("alpha", 0.2), n.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-4 and abs(beta - 0.5) < 1e-6:
        return n.out("F.hardsigmoid", n[0])
    x = n.like("T.add", n.like("T.mul", n[0], _plain(alpha)), _plain(beta))
    return n.out("T.clamp", x, 0.0, 1.0)


def thresholded_relu(n: Node) -> Symbol:
    """x above α, else 0."""
    return n.out("F.threshold", n[0], _plain(n.attr("alpha", 1.0)), 0.0)


def shrink(n: Node) -> Symbol:
    """Zero within λ, beyond it x moved by the bias towards zero."""
    bias, limit = _plain(n.attr("bias", 0.0)), _plain(n.attr("lambd", 0.5))
    if bias in (0.0, limit):
        return n.out("F.softshrink" if bias else "F.hardshrink", n[0], limit)
    raise UnsupportedError("a bias that is neither 0 nor lambd")


def gelu(n: Node) -> Symbol:
    """Exact or by tanh."""
    return n.out("F.gelu", n[0], approximate=n.attr("approximate", "none"))


def swish(n: Node) -> Symbol:
    """x σ(αx)."""
    alpha = _plain(n.attr("alpha", 1.0))
    if alpha == 1.0:
        return n.out("F.silu", n[0])
    gate = n.like("T.sigmoid", n.like("T.mul", n[0], alpha))
    return n.out("T.mul", n[0], gate)


def prelu(n: Node) -> Symbol:
    """A slope for each channel is torch's; any other shape is written out."""
    x, slope = n[0], n[1]
    shape = shape_of(slope)
    channels = shape_of(x)[1] if len(shape_of(x)) > 1 else 1
    size = int(np.prod(shape))
    if size == 1 or (size == channels and (len(shape) == 1 or shape[-len(shape_of(x)) + 1 :][:1] == (channels,))):
        if len(shape) != 1:
            slope = n.step("M.reshape", slope, (size,), shape=(size,), dtype=slope.dtype)
        return n.out("F.prelu", x, slope)
    below = n.step("T.mul", n.like("T.clamp", x, max=0.0), slope, shape=broadcast(x, slope), dtype=x.dtype)
    return n.out("T.add", n.like("F.relu", x), below)


def clip(n: Node) -> Symbol:
    """Between 0 and 6 it is ReLU6; limits that are computed stay tensors."""
    limits = [_limit(n, 1, "min"), _limit(n, 2, "max")]
    if limits == [0.0, 6.0]:
        return n.out("F.relu6", n[0])
    given = {name: limit for name, limit in zip(("min", "max"), limits, strict=True) if limit is not None}
    return n.out("T.clamp", n[0], **given) if given else n[0]


def _limit(n: Node, position: int, name: str) -> Symbol | float | None:
    symbol = n.get(position)
    if symbol is None:
        limit = n.attr(name)
        return None if limit is None or abs(limit) > 3.4e38 else limit
    if symbol.data is not None and symbol.data.size == 1:
        value: float = symbol.data.reshape(-1)[0].item()
        return value
    return symbol


def where(n: Node) -> Symbol:
    """A choice entry by entry; numbers stay numbers."""
    x, y = n[1], n[2]
    numbers = [n.number_or(1, n[0]), n.number_or(2, n[0])]
    if not isinstance(numbers[0], Symbol) and not isinstance(numbers[1], Symbol):
        numbers[0] = x
    return n.out(
        "T.where",
        n[0],
        *(number if symbol.data is not None else symbol for number, symbol in zip(numbers, (x, y), strict=True)),
    )


def cast(n: Node) -> Symbol:
    """To another dtype; to the same one it is nothing."""
    return _to(n, TYPES.get(n.attr("to"), "unknown"))


def cast_like(n: Node) -> Symbol:
    """To another tensor's dtype."""
    return _to(n, n[1].dtype)


def _to(n: Node, dtype: str) -> Symbol:
    if dtype.startswith("float8") or dtype.endswith("int4") or dtype in ("string", "unknown", ""):
        raise UnsupportedError(f"a cast to {dtype or 'an unknown type'}")
    return n[0] if n[0].dtype == dtype else n.out("M.to", n[0], DType(dtype))


def is_inf(n: Node) -> Symbol:
    """Of either sign, or of one."""
    signs = n.attr("detect_negative", 1), n.attr("detect_positive", 1)
    function = {(1, 1): "T.isinf", (0, 1): "T.isposinf", (1, 0): "T.isneginf"}.get(signs)
    if function is None:
        raise UnsupportedError("an IsInf that detects nothing")
    return n.out(function, n[0])


def dropout(n: Node) -> Symbol:
    """Nothing in an inference graph; applied where the model is trained."""
    ratio = n.number(1, "ratio", 0.5)
    always = bool(n.number(2, "", False))
    return n.out("F.dropout", n[0], _plain(ratio), True if always else TRAINING)


def identity(n: Node) -> Symbol:
    """The same tensor; of a weight that several others equal at the start, one of its own.

    torch's older exporter stores equal tensors once: biases of zeros and gains of ones. A matrix that stands in several
    places is tied.
    """
    x = n[0]
    if x.kind != "param" or x.array is None or (x.array.ndim > 1 and x.array.size and x.array.min() != x.array.max()):
        return x
    return Symbol(n.spec.outputs[0], "param", x.shape, x.dtype, array=x.array.view())


HANDLERS: Mapping[str, Handler] = {
    **{op: _unary(function) for op, function in UNARY.items()},
    **{op: _binary(*functions) for op, functions in BINARY.items()},
    **{op: _tensors(function) for op, function in TENSORS.items()},
    **{op: _alpha(*row) for op, row in ALPHA.items()},
    "Div": divide,
    "Mod": modulo,
    "BitShift": shift,
    "Max": _folded("T.maximum"),
    "Min": _folded("T.minimum"),
    "Sum": _folded("T.add"),
    "Mean": mean,
    "Selu": selu,
    "HardSigmoid": hard_sigmoid,
    "ThresholdedRelu": thresholded_relu,
    "Shrink": shrink,
    "Gelu": gelu,
    "Swish": swish,
    "PRelu": prelu,
    "Clip": clip,
    "Where": where,
    "Cast": cast,
    "CastLike": cast_like,
    "IsInf": is_inf,
    "Dropout": dropout,
    "Identity": identity,
}
