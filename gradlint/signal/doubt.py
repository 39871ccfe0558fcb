"""How far a prediction may be off: a variance in decades², carried along with the fields and the cotangents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from gradlint.graph import Graph, Op
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.kernels import expectation
from gradlint.signal.scalar import IDENTITY, Scalar, scalar_function

DECADE = 1.0 / (2.0 * math.log(10.0))  # decades of an RMS per unit of ln of its square
WIDTH = 5.0  # var ln‖x‖² per layer is 5/n at ReLU, less for other functions (Hanin 2018; Hanin & Nica 2020)
WIDTH_UNITWISE = (
    0.25  # what is left of it once the way of the mean through the weights is known, from the same residuals
)
FLOOR = 0.015**2  # of any prediction
STEP: Mapping[str, float] = {  # what the approximations of one op add, from the residuals of benchmarks/signal.py
    "norm": 0.006**2,
    "activation": 0.006**2,
    "pool": 0.015**2,
    "mul": 0.012**2,
    "softmax": 0.012**2,
    "attention": 0.012**2,
    "recurrent": 0.020**2,
    "concat": 0.004**2,
    "elementwise": 0.010**2,
}
UNSTABLE = 0.005  # relative step of the variance at which the elasticity of φ's square is taken


@dataclass
class Doubt:
    """Variances (decades²) of log10 RMS by value id, forward and backward; followed op by op."""

    graph: Graph
    width: float = WIDTH
    together: bool = False  # branches of one sum are off together: nothing normalises what they have in common
    forward: dict[int, float] = field(default_factory=dict)
    backward: dict[int, float] = field(default_factory=dict)
    _weights: dict[int, float] = field(default_factory=dict)

    def produced(self, op: Op, fields: Mapping[int, Field], assumed: float = 0.0) -> None:
        """Enter an op's outputs."""
        known = [value for value in self.graph.data_inputs(op) if value in fields]
        doubt = self._blended(known, fields, op.kind) + STEP.get(op.kind, 0.0)
        doubt += self._width(op)
        if op.kind == "norm":
            doubt = STEP["norm"]
        if op.kind == "activation" and known:
            doubt = STEP["activation"] + (doubt - STEP["activation"]) * elasticity(op, fields[known[0]]) ** 2
        for value in op.outputs:
            self.forward[value] = doubt + assumed

    def _blended(self, values: list[int], fields: Mapping[int, Field], kind: str) -> float:
        doubts = [self.forward.get(value, 0.0) for value in values]
        if kind not in ("add", "concat"):
            return sum(doubts)
        shares = [fields[value].table.square for value in values]
        total = sum(shares)
        if not total > 0.0 or not math.isfinite(total):
            return max(doubts, default=0.0)
        parts = [(share / total) ** 2 * doubt for doubt, share in zip(doubts, shares, strict=True)]
        return sum(map(math.sqrt, parts)) ** 2 if self.together else sum(parts)

    def _width(self, op: Op) -> float:
        """Fluctuation of a layer's mean square over its finite number of units."""
        if op.kind not in ("linear", "conv") or not op.outputs:
            return 0.0
        param = self.graph.param(op)
        units = param.fan_out if param is not None and op.kind == "linear" else self._channels(op)
        return DECADE**2 * self.width / max(units, 1)

    def _channels(self, op: Op) -> int:
        shape = self.graph.values[op.outputs[0]].shape
        return shape[1] if op.kind == "conv" and len(shape) > 2 else shape[-1] if shape else 1

    def returned(
        self, op: Op, squares: Mapping[int, Cotangent | None], into: Mapping[int, float], assumed: float = 0.0
    ) -> None:
        """Enter an op's contributions: `into` holds their mean squares by value id."""
        reached = [value for value in op.outputs if squares.get(value) is not None]
        arrived = max((self.backward.get(value, 0.0) for value in reached), default=0.0)
        doubt = arrived + STEP.get(op.kind, 0.0) + self._width(op) + assumed
        if op.kind in ("norm", "mul", "attention", "matmul"):
            doubt += sum(self.forward.get(value, 0.0) for value in self.graph.data_inputs(op))
        for value, square in into.items():
            self._merge(value, square, doubt)

    def _merge(self, value: int, square: float, doubt: float) -> None:
        weight = self._weights.get(value, 0.0)
        total = weight + square
        share = square / total if total > 0 and math.isfinite(total) else 1.0
        known = self.backward.get(value, 0.0)
        parts = (known * (1.0 - share) ** 2, doubt * share**2)
        self.backward[value] = sum(map(math.sqrt, parts)) ** 2 if self.together else sum(parts)
        self._weights[value] = total

    def parameter(self, op: Op, size: float) -> float:
        """Variance of a parameter's gradient at this op: what arrives, what it multiplies, the entries that count."""
        arrived = max((self.backward.get(value, 0.0) for value in op.outputs), default=0.0)
        inputs = [self.forward.get(value, 0.0) for value in self.graph.data_inputs(op)]
        return arrived + sum(inputs) + FLOOR + DECADE**2 * 2.0 / max(size, 1)


def elasticity(op: Op, x: Field) -> float:
    """d ln E[φ²]/d ln E[z²]: above 1 the forward map is unstable, and what is not known of its input grows."""
    function = scalar_function(op.function, op.attrs)
    if function is None or x.law.function is not IDENTITY:
        return 1.0
    mean, variance = x.average, x.law.moments[1]
    if not variance > 0.0 or not math.isfinite(variance):
        return 1.0
    return growth(function, mean, variance)


@lru_cache(maxsize=4096)
def growth(function: Scalar, mean: float, variance: float) -> float:
    """The same for z ~ N(mean, variance)."""
    low, high = (expectation(function, mean, variance * (1.0 + step))[1] for step in (-UNSTABLE, UNSTABLE))
    if not (low > 0.0 and high > 0.0):
        return 1.0
    return abs(math.log(high / low) / (2.0 * UNSTABLE))
