"""Scalar functions with their derivatives, and the table of activations and pointwise mathematics."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from gradlint.signal.patterns import Array

Function = Callable[[Array], Array]
Attrs = Mapping[str, object]


@dataclass(frozen=True)
class Scalar:
    """A function of one number and its derivative; two with the same `key` are the same function.

    `slopes` are the slopes right and left of zero of a positively homogeneous function (ReLU family), `steps` the
    values right and left of zero of a piecewise constant one: their Gaussian kernels have a closed form.
    """

    key: str
    value: Function = field(compare=False)
    slope: Function = field(compare=False)
    slopes: tuple[float, float] | None = field(default=None, compare=False)
    steps: tuple[float, float] | None = field(default=None, compare=False)

    @property
    def derivative(self) -> Scalar:
        """The derivative as a function of its own (its derivative is not needed and left at zero)."""
        return Scalar(f"d({self.key})", self.slope, np.zeros_like, steps=self.slopes)


IDENTITY = Scalar("x", lambda z: z, np.ones_like, (1.0, 1.0))


def compose(outer: Scalar, inner: Scalar) -> Scalar:
    """outer(inner(z))."""
    if inner is IDENTITY:
        return outer
    if outer is IDENTITY:
        return inner
    return Scalar(
        f"{outer.key}∘{inner.key}",
        lambda z: outer.value(inner.value(z)),
        lambda z: outer.slope(inner.value(z)) * inner.slope(z),
    )


def affine(scale: float, shift: float) -> Scalar:
    """scale·z + shift."""
    if scale == 1.0 and shift == 0.0:
        return IDENTITY
    slopes = (scale, scale) if shift == 0.0 else None
    return Scalar(f"{scale:.9g}·x+{shift:.9g}", lambda z: scale * z + shift, lambda z: np.full_like(z, scale), slopes)


def product(first: Scalar, second: Scalar) -> Scalar:
    """first(z)·second(z)."""
    return Scalar(
        f"({first.key})·({second.key})",
        lambda z: first.value(z) * second.value(z),
        lambda z: first.slope(z) * second.value(z) + first.value(z) * second.slope(z),
    )


def weighted_sum(first: Scalar, second: Scalar, weight: float = 1.0) -> Scalar:
    """first(z) + weight·second(z)."""
    return Scalar(
        f"({first.key})+{weight:.9g}·({second.key})",
        lambda z: first.value(z) + weight * second.value(z),
        lambda z: first.slope(z) + weight * second.slope(z),
    )


def outside_slope(outer: Scalar, inner: Scalar) -> Scalar:
    """outer′(inner(z)): the local derivative of `outer`, seen from the Gaussian under `inner`."""
    if inner is IDENTITY:
        return outer.derivative
    return Scalar(f"d({outer.key})∘{inner.key}", lambda z: outer.slope(inner.value(z)), np.zeros_like)


_ERF_AT = np.linspace(-6.0, 6.0, 2401)
_ERF = np.array([math.erf(x) for x in _ERF_AT])
_ERF_SLOPE = 2.0 / math.sqrt(math.pi) * np.exp(-(_ERF_AT**2))
_ERF_STEP = _ERF_AT[1] - _ERF_AT[0]


def erf(z: Array) -> Array:
    """The error function by cubic Hermite interpolation of a table (error below 1e-11)."""
    x = np.clip(z, _ERF_AT[0], _ERF_AT[-1])
    position = (x - _ERF_AT[0]) / _ERF_STEP
    cell = np.minimum(position.astype(np.intp), len(_ERF_AT) - 2)
    t = position - cell
    s = 1.0 - t
    left = _ERF[cell] * (1 + 2 * t) + _ERF_SLOPE[cell] * _ERF_STEP * t
    right = _ERF[cell + 1] * (3 - 2 * t) - _ERF_SLOPE[cell + 1] * _ERF_STEP * s
    interpolated: Array = s * s * left + t * t * right
    return interpolated


def _logistic(z: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def _logistic_slope(z: Array) -> Array:
    s = _logistic(z)
    slope: Array = s * (1.0 - s)
    return slope


def _normal_cdf(z: Array) -> Array:
    return 0.5 * (1.0 + erf(z / math.sqrt(2.0)))


def _normal_pdf(z: Array) -> Array:
    return np.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _tanh_slope(z: Array) -> Array:
    return 1.0 - np.tanh(z) ** 2


def _softplus(z: Array) -> Array:
    return np.logaddexp(0.0, z)


def _between(z: Array, low: float, high: float) -> Array:
    return ((z > low) & (z < high)).astype(np.float64)


def _number(attrs: Attrs, name: str, default: float) -> float:
    value = attrs.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def _two_slopes(name: str, left: float) -> Scalar:
    return Scalar(
        f"{name}[{left:.9g}]", lambda z: np.where(z > 0, z, left * z), lambda z: np.where(z > 0, 1.0, left), (1.0, left)
    )


def _elu(alpha: float, scale: float = 1.0, stretch: float = 1.0) -> Scalar:
    """scale·(z for z > 0, else alpha·(exp(z/stretch) − 1))."""
    return Scalar(
        f"elu[{alpha:.9g},{scale:.9g},{stretch:.9g}]",
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(np.minimum(z, 0.0) / stretch)),
        lambda z: scale * np.where(z > 0, 1.0, alpha / stretch * np.exp(np.minimum(z, 0.0) / stretch)),
    )


_GELU_TANH = math.sqrt(2.0 / math.pi)


def _gelu(attrs: Attrs) -> Scalar:
    if attrs.get("approximate") == "tanh":
        inner: Function = lambda z: _GELU_TANH * (z + 0.044715 * z**3)  # noqa: E731
        return Scalar(
            "gelu[tanh]",
            lambda z: 0.5 * z * (1.0 + np.tanh(inner(z))),
            lambda z: (
                0.5 * (1.0 + np.tanh(inner(z)))
                + 0.5 * z * _tanh_slope(inner(z)) * _GELU_TANH * (1.0 + 3 * 0.044715 * z * z)
            ),
        )
    return Scalar("gelu", lambda z: z * _normal_cdf(z), lambda z: _normal_cdf(z) + z * _normal_pdf(z))


def _softplus_of(attrs: Attrs) -> Scalar:
    beta = _number(attrs, "beta", 1.0)
    return Scalar(f"softplus[{beta:.9g}]", lambda z: _softplus(beta * z) / beta, lambda z: _logistic(beta * z))


def _mish(z: Array) -> Array:
    return z * np.tanh(_softplus(z))


def _mish_slope(z: Array) -> Array:
    t = np.tanh(_softplus(z))
    slope: Array = t + z * (1.0 - t * t) * _logistic(z)
    return slope


def _clamp(attrs: Attrs, low: float = -math.inf, high: float = math.inf) -> Scalar:
    low, high = _number(attrs, "min", low), _number(attrs, "max", high)
    low, high = _number(attrs, "lower", low), _number(attrs, "upper", high)
    slopes = (1.0, 0.0) if low == 0.0 and high == math.inf else None
    return Scalar(
        f"clamp[{low:.9g},{high:.9g}]", lambda z: np.clip(z, low, high), lambda z: _between(z, low, high), slopes
    )


def _shrink(attrs: Attrs, hard: float) -> Scalar:
    limit = _number(attrs, "lambd", 0.5)
    return Scalar(
        f"shrink[{limit:.9g},{hard}]",
        lambda z: np.where(np.abs(z) > limit, z - (1.0 - hard) * limit * np.sign(z), 0.0),
        lambda z: (np.abs(z) > limit).astype(np.float64),
    )


def _threshold(attrs: Attrs) -> Scalar:
    limit, value = _number(attrs, "threshold", 0.0), _number(attrs, "value", 0.0)
    return Scalar(
        f"threshold[{limit:.9g},{value:.9g}]",
        lambda z: np.where(z > limit, z, value),
        lambda z: (z > limit).astype(np.float64),
    )


def _power(exponent: float) -> Scalar:
    if exponent == 1.0:
        return IDENTITY
    if exponent.is_integer() and exponent > 0:
        return Scalar(f"pow[{exponent:g}]", lambda z: z**exponent, lambda z: exponent * z ** (exponent - 1.0))
    tiny = 1e-30
    return Scalar(
        f"pow[{exponent:.9g}]",
        lambda z: np.maximum(z, tiny) ** exponent,
        lambda z: np.where(z > 0, exponent * np.maximum(z, tiny) ** (exponent - 1.0), 0.0),
    )


def _hard_swish(z: Array) -> Array:
    return z * np.clip(z / 6.0 + 0.5, 0.0, 1.0)


def _hard_swish_slope(z: Array) -> Array:
    return np.where(z <= -3.0, 0.0, np.where(z >= 3.0, 1.0, z / 3.0 + 0.5))


def _fixed(key: str, value: Function, slope: Function) -> Callable[[Attrs], Scalar]:
    scalar = Scalar(key, value, slope)
    return lambda attrs: scalar


def _steps(value: Function) -> Callable[[Attrs], Scalar]:
    """A piecewise constant function, through which no gradient passes."""
    return _fixed(f"steps[{value.__name__}]", value, np.zeros_like)


def _exponential(base: float) -> Scalar:
    rate = math.log(base) if base > 0.0 else math.nan
    return Scalar(f"{base:.9g}^x", lambda z: np.exp(rate * z), lambda z: rate * np.exp(rate * z))


_LN2, _LN10 = math.log(2.0), math.log(10.0)
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805

FUNCTIONS: dict[str, Callable[[Attrs], Scalar]] = {
    "identity": lambda attrs: IDENTITY,
    "relu": lambda attrs: _two_slopes("relu", 0.0),
    "relu6": lambda attrs: _clamp(attrs, 0.0, 6.0),
    "leaky_relu": lambda attrs: _two_slopes(
        "leaky_relu", _number(attrs, "negative_slope", _number(attrs, "slope", 0.01))
    ),
    "rrelu": lambda attrs: _two_slopes(
        "rrelu", 0.5 * (_number(attrs, "lower", 1.0 / 8.0) + _number(attrs, "upper", 1.0 / 3.0))
    ),
    "prelu": lambda attrs: _two_slopes("prelu", _number(attrs, "slope", 0.25)),
    "elu": lambda attrs: _elu(_number(attrs, "alpha", 1.0)),
    "selu": lambda attrs: _elu(_SELU_ALPHA, _SELU_SCALE),
    "celu": lambda attrs: _elu(_number(attrs, "alpha", 1.0), 1.0, _number(attrs, "alpha", 1.0)),
    "gelu": _gelu,
    "silu": _fixed("silu", lambda z: z * _logistic(z), lambda z: _logistic(z) + z * _logistic_slope(z)),
    "mish": _fixed("mish", _mish, _mish_slope),
    "sigmoid": _fixed("sigmoid", _logistic, _logistic_slope),
    "logsigmoid": _fixed("logsigmoid", lambda z: -_softplus(-z), lambda z: _logistic(-z)),
    "tanh": _fixed("tanh", np.tanh, _tanh_slope),
    "hardtanh": lambda attrs: _clamp(attrs, -1.0, 1.0),
    "hardswish": _fixed("hardswish", _hard_swish, _hard_swish_slope),
    "hardsigmoid": _fixed("hardsigmoid", lambda z: np.clip(z / 6 + 0.5, 0, 1), lambda z: _between(z, -3.0, 3.0) / 6.0),
    "softplus": _softplus_of,
    "softsign": _fixed("softsign", lambda z: z / (1 + np.abs(z)), lambda z: (1 + np.abs(z)) ** -2.0),
    "tanhshrink": _fixed("tanhshrink", lambda z: z - np.tanh(z), lambda z: np.tanh(z) ** 2),
    "hardshrink": lambda attrs: _shrink(attrs, 1.0),
    "softshrink": lambda attrs: _shrink(attrs, 0.0),
    "threshold": _threshold,
    "exp": _fixed("exp", np.exp, np.exp),
    "expm1": _fixed("expm1", np.expm1, np.exp),
    "log": _fixed("log", lambda z: np.log(np.maximum(z, 1e-30)), lambda z: (z > 0) / np.maximum(z, 1e-30)),
    "log1p": _fixed(
        "log1p", lambda z: np.log1p(np.maximum(z, -1 + 1e-16)), lambda z: (z > -1) / np.maximum(1 + z, 1e-30)
    ),
    "sqrt": lambda attrs: _power(0.5),
    "rsqrt": lambda attrs: _power(-0.5),
    "reciprocal": _fixed("reciprocal", lambda z: 1.0 / z, lambda z: -1.0 / (z * z)),
    "square": lambda attrs: _power(2.0),
    "pow": lambda attrs: _power(_number(attrs, "exponent", math.nan)),
    "abs": lambda attrs: Scalar("abs", np.abs, np.sign, (1.0, -1.0)),
    "neg": lambda attrs: affine(-1.0, 0.0),
    "clamp": _clamp,
    "sin": _fixed("sin", np.sin, np.cos),
    "cos": _fixed("cos", np.cos, lambda z: -np.sin(z)),
    "erf": _fixed("erf", erf, lambda z: 2.0 / math.sqrt(math.pi) * np.exp(-z * z)),
    "floor": _steps(np.floor),
    "ceil": _steps(np.ceil),
    "round": _steps(np.round),
    "trunc": _steps(np.trunc),
    "sign": _steps(np.sign),
    "log2": _fixed("log2", lambda z: np.log2(np.maximum(z, 1e-30)), lambda z: (z > 0) / (_LN2 * np.maximum(z, 1e-30))),
    "log10": _fixed(
        "log10", lambda z: np.log10(np.maximum(z, 1e-30)), lambda z: (z > 0) / (_LN10 * np.maximum(z, 1e-30))
    ),
    "exp2": _fixed("exp2", np.exp2, lambda z: _LN2 * np.exp2(z)),
    "rpow": lambda attrs: _exponential(_number(attrs, "base", math.e)),
    "sinh": _fixed("sinh", np.sinh, np.cosh),
    "cosh": _fixed("cosh", np.cosh, np.sinh),
    "atan": _fixed("atan", np.arctan, lambda z: 1.0 / (1.0 + z * z)),
}


def scalar_function(name: str, attrs: Attrs) -> Scalar | None:
    """The function that a pointwise op applies, or None when the table has no entry for it."""
    builder = FUNCTIONS.get(name)
    return None if builder is None else builder(attrs)
