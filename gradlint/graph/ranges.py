"""Interval analysis: which numbers each value can hold, and whether it can be exactly at the ends of its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered
from gradlint.graph.unit_vectors import is_cosine

INFINITY = math.inf


@dataclass(frozen=True)
class Range:
    """`low` … `high`, ends included; `at_low` and `at_high` say that an entry sits on that end with some probability.

    ReLU's output is [0, ∞) with `at_low`: a whole unit can be off. The square of a Gaussian is [0, ∞) without: it comes
    near 0 but is never there. `varies` is False for numbers that depend on nothing that is trained or fed.
    """

    low: float = -INFINITY
    high: float = INFINITY
    at_low: bool = False
    at_high: bool = False

    def holds(self, number: float) -> bool:
        """Whether an entry can be this number with some probability, or can lie on either side of it."""
        if self.low < number < self.high:
            return True
        return (number == self.low and self.at_low) or (number == self.high and self.at_high)


ANY = Range()
COSINE = Range(-1.0 - 1e-6, 1.0 + 1e-6)  # rounding puts that of a vector with itself on either side of 1
Rule = Callable[[Op, list[Range]], Range]


@remembered
def ranges(graph: Graph) -> Mapping[int, Range]:
    """The range of every value, by value id; what no entry of the tables answers can be any number."""
    known: dict[int, Range] = {}
    for op in graph.ops:
        operands = [known.get(v, _leaf(graph, v)) for v in op.inputs]
        result = COSINE if is_cosine(graph, op) else _transfer(op, operands)
        known |= dict.fromkeys(op.outputs, result)
    return known


def _transfer(op: Op, operands: list[Range]) -> Range:
    if not operands:
        return ANY
    rule = BY_FUNCTION.get(op.function) or BY_KIND.get(op.kind)
    return ANY if rule is None else rule(op, operands)


def _leaf(graph: Graph, value: int) -> Range:
    """A parameter's range is its own largest entry; an input or a buffer can be anything."""
    origin, name = graph.values[value].origin, graph.values[value].name
    param = graph.params.get(name) if origin == "param" else None
    if param is None or param.abs_max is None:
        return ANY
    return ANY if param.abs_max else Range(0.0, 0.0, True, True)


def _scalar(op: Op) -> float | None:
    value = op.attrs.get("scalar")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _end(op: Op, name: str, default: float) -> float:
    value = op.attrs.get(name, default)
    return float(value) if isinstance(value, int | float) else default


def _given(op: Op, operands: list[Range], roles: tuple[str, ...]) -> list[Range]:
    """The operands in these roles; a number in place of a tensor is among the attributes under the role's name."""
    found = [known for known, role in zip(operands, op.roles, strict=True) if role in roles]
    numbers = [op.attrs[role] for role in roles if isinstance(op.attrs.get(role), int | float)]
    return found + [_point(float(number)) for number in numbers if isinstance(number, int | float)]


def _same(op: Op, operands: list[Range]) -> Range:
    return operands[0]


def _union(op: Op, operands: list[Range]) -> Range:
    if not operands:
        return ANY
    low, high = min(r.low for r in operands), max(r.high for r in operands)
    return Range(
        low,
        high,
        any(r.at_low for r in operands if r.low == low),
        any(r.at_high for r in operands if r.high == high),
    )


def _fixed(low: float, high: float, *, at_low: bool = False, at_high: bool = False) -> Rule:
    bounds = Range(low, high, at_low, at_high)
    return lambda op, operands: bounds


def _monotone(function: Callable[[float], float]) -> Rule:
    """The image of a rising function."""

    def image(op: Op, operands: list[Range]) -> Range:
        x = operands[0]
        return Range(function(x.low), function(x.high), x.at_low, x.at_high)

    return image


def _clip(low: float, high: float, x: Range) -> Range:
    return Range(
        min(max(x.low, low), high),
        max(min(x.high, high), low),
        x.low < low or x.at_low,
        x.high > high or x.at_high,
    )


def _clamp(op: Op, operands: list[Range]) -> Range:
    low, high = op.attrs.get("min"), op.attrs.get("max")
    bounds = [float(b) if isinstance(b, int | float) else e for b, e in ((low, -INFINITY), (high, INFINITY))]
    if len(operands) > 1 and low is None and high is None:
        return ANY
    return _clip(bounds[0], bounds[1], operands[0])


def _relu(op: Op, operands: list[Range]) -> Range:
    return _clip(0.0, INFINITY, operands[0])


def _absolute(op: Op, operands: list[Range]) -> Range:
    x = operands[0]
    if x.low >= 0:
        return x
    high = max(-x.low, x.high)
    if x.high <= 0:
        return Range(-x.high, high, x.at_high, x.at_low)
    return Range(0.0, high)


def _square(op: Op, operands: list[Range]) -> Range:
    x = _absolute(op, operands)
    return Range(_times(x.low, x.low), _times(x.high, x.high), x.at_low, x.at_high)


def _power(op: Op, operands: list[Range]) -> Range:
    exponent = op.attrs.get("exponent", op.attrs.get("scalar"))
    x = operands[0]
    if not isinstance(exponent, int | float):
        return ANY
    if exponent > 0 and exponent % 2 == 0:
        y = _absolute(op, operands)
        return Range(y.low**exponent, y.high**exponent, y.at_low, y.at_high)
    if exponent > 0 and x.low >= 0:
        return Range(x.low**exponent, x.high**exponent, x.at_low, x.at_high)
    return Range(0.0, INFINITY) if x.low >= 0 else ANY


def _add(op: Op, operands: list[Range]) -> Range:
    scale = op.attrs.get("alpha", 1)
    factor = float(scale) if isinstance(scale, int | float) else 1.0
    scalar, sign = _scalar(op), -1.0 if op.function == "sub" else 1.0
    if len(operands) > 1:
        return _sum(operands[0], _scaled(operands[1], sign * factor))
    if scalar is None:
        return ANY
    if op.attrs.get("reversed"):
        return _sum(_point(scalar), _scaled(operands[0], sign * factor))
    return _sum(operands[0], _point(sign * factor * scalar))


def _multiply(op: Op, operands: list[Range]) -> Range:
    if op.function == "div":
        return _divide(op, operands)
    scalar = _scalar(op)
    if len(operands) > 1:
        if op.inputs[0] == op.inputs[1]:
            return _square(op, operands)
        return _product(operands[0], operands[1])
    return ANY if scalar is None else _scaled(operands[0], scalar)


def _divide(op: Op, operands: list[Range]) -> Range:
    scalar = _scalar(op)
    if len(operands) > 1:
        return _product(operands[0], reciprocal(operands[1]))
    if scalar is None:
        return ANY
    if op.attrs.get("reversed"):
        return _scaled(reciprocal(operands[0]), scalar)
    return _scaled(operands[0], 1 / scalar) if scalar else ANY


def reciprocal(x: Range) -> Range:
    """1 ÷ x; anything when x can be on both sides of 0."""
    if x.low < 0 < x.high:
        return ANY
    if x.low >= 0:
        return Range(_inverse(x.high, INFINITY), _inverse(x.low, INFINITY), x.at_high, x.at_low)
    return Range(_inverse(x.high, -INFINITY), _inverse(x.low, -INFINITY), x.at_high, x.at_low)


def _reduced_sum(op: Op, operands: list[Range]) -> Range:
    x = operands[0]
    low, high = min(x.low, 0.0) * INFINITY if x.low < 0 else x.low, max(x.high, 0.0)
    return Range(low, INFINITY if high > 0 else x.high, x.at_low and low == x.low, False)


def _variance(op: Op, operands: list[Range]) -> Range:
    return Range(0.0, INFINITY)


def _norm(op: Op, operands: list[Range]) -> Range:
    x = operands[0]
    return Range(0.0, INFINITY, at_low=x.low == 0 and x.at_low)


def _sum(x: Range, y: Range) -> Range:
    return Range(x.low + y.low, x.high + y.high, x.at_low and y.at_low, x.at_high and y.at_high)


def _scaled(x: Range, factor: float) -> Range:
    if factor < 0:
        return _scaled(Range(-x.high, -x.low, x.at_high, x.at_low), -factor)
    return Range(_times(x.low, factor), _times(x.high, factor), x.at_low, x.at_high)


def _product(x: Range, y: Range) -> Range:
    corners = [_times(a, b) for a in (x.low, x.high) for b in (y.low, y.high)]
    low, high = min(corners), max(corners)
    zero = any(r.holds(0.0) and not r.low < 0 < r.high for r in (x, y))
    return Range(low, high, low == 0 and zero, high == 0 and zero)


def _point(number: float) -> Range:
    return Range(number, number, True, True)


def _times(a: float, b: float) -> float:
    """The product, with 0 · ∞ = 0: an end of an interval that is never reached."""
    return 0.0 if a == 0 or b == 0 else a * b


def _inverse(number: float, at_zero: float) -> float:
    return at_zero if number == 0 else 1 / number


def _exp(number: float) -> float:
    return math.exp(number) if number < 700 else INFINITY


def _log(number: float) -> float:
    return math.log(number) if 0 < number < INFINITY else (-INFINITY if number <= 0 else INFINITY)


def _root(number: float) -> float:
    return math.sqrt(number) if 0 <= number < INFINITY else (0.0 if number < 0 else INFINITY)


# Exact where a healthy model depends on it; every other function answers "any number".
BY_FUNCTION: Mapping[str, Rule] = {
    "relu": _relu,
    "relu6": _fixed(0.0, 6.0, at_low=True, at_high=True),
    "hardsigmoid": _fixed(0.0, 1.0, at_low=True, at_high=True),
    "hardtanh": lambda op, operands: _clip(_end(op, "lower", -1.0), _end(op, "upper", 1.0), operands[0]),
    "sigmoid": _fixed(0.0, 1.0),
    "tanh": _fixed(-1.0, 1.0),
    "softsign": _fixed(-1.0, 1.0),
    "softplus": _fixed(0.0, INFINITY),
    "elu": _fixed(-1.0, INFINITY),
    "softmax": _fixed(0.0, 1.0),
    "softmin": _fixed(0.0, 1.0),
    "log_softmax": _fixed(-INFINITY, 0.0),
    "logsigmoid": _fixed(-INFINITY, 0.0),
    "exp": _monotone(_exp),
    "expm1": _monotone(lambda x: _exp(x) - 1),
    "log": _monotone(_log),
    "log1p": _monotone(lambda x: _log(1 + x)),
    "sqrt": _monotone(_root),
    "abs": _absolute,
    "square": _square,
    "pow": _power,
    "clamp": _clamp,
    "neg": lambda op, operands: _scaled(operands[0], -1.0),
    "reciprocal": lambda op, operands: reciprocal(operands[0]),
    "normalize": _fixed(COSINE.low, COSINE.high),
    "cosine_similarity": _fixed(COSINE.low, COSINE.high),
    "sin": _fixed(-1.0, 1.0),
    "cos": _fixed(-1.0, 1.0),
    "sum": _reduced_sum,
    "mean": _same,
    "amax": _same,
    "amin": _same,
    "max": _same,
    "min": _same,
    "avg": _same,
    "adaptive_avg": _same,
    "adaptive_max": _same,
    "maximum": _union,
    "minimum": _union,
    "where": lambda op, operands: _union(op, _given(op, operands, ("input", "other"))),
    "var": _variance,
    "std": _variance,
    "norm": _norm,
    "cat": _union,
    "stack": _union,
}
BY_KIND: Mapping[str, Rule] = {
    "add": _add,
    "mul": _multiply,
    "reshape": _same,
    "permute": _same,
    "copy": _same,
    "slice": _same,
    "split": _same,
    "expand": _same,
    "concat": _union,
    "resize": _same,
    "pool": _same,
    "dropout": lambda op, operands: (
        _union(op, [operands[0], _point(0.0)]) if op.attrs.get("training") and op.attrs.get("p") else operands[0]
    ),
}
