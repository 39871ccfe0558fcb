"""Second moments of a recurrent layer over time: E[h_t h_u] for one sample and for two, step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gradlint.signal.kernels import series
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import Scalar, affine, compose, scalar_function

TERMS = 24  # of Mehler's series; gates saturate at correlations that matter before the tail does
SAME, OTHER = 0, 1  # one sample, two samples


def _named(name: str) -> Scalar:
    found = scalar_function(name, {})
    assert found is not None
    return found


SIGMOID, TANH, RELU = _named("sigmoid"), _named("tanh"), _named("relu")
KEEP = compose(affine(-1.0, 1.0), SIGMOID)  # 1 − z of a GRU

GATES: Mapping[str, tuple[tuple[str, Scalar], ...]] = {
    "lstm": (("i", SIGMOID), ("f", SIGMOID), ("g", TANH), ("o", SIGMOID)),
    "gru": (("r", SIGMOID), ("z", SIGMOID), ("n", TANH)),
    "rnn_tanh": (("h", TANH),),
    "rnn_relu": (("h", RELU),),
}


@dataclass(frozen=True)
class GateWeights:
    """A gate's weights per unit: ‖W_x‖²/H, ‖W_h‖²/H and the squared row sums of W_x/H; biases; their adjoints."""

    into: float
    into_rows: float
    recurrent: float
    adjoint_in: float
    adjoint_recurrent: float
    mean: float
    bias: float
    bias_in: float
    bias_recurrent: float


class Response:
    """A function of a gate's pre-activation at every step: Hermite coefficients, and pair expectations by Mehler."""

    def __init__(self, function: Scalar, mean: float, steps: int) -> None:
        self.function, self.level = function, mean
        self.coefficients = np.zeros((steps, TERMS))
        self.squares = np.zeros(steps)
        self.pairs = np.zeros((2, steps, steps))

    @property
    def mean(self) -> Array:
        """E[f] at every step."""
        return self.coefficients[:, 0]

    def settle(self, step: int, variance: float) -> None:
        """Fix the law of the pre-activation at a step."""
        coefficients, square = series(self.function, self.level, float(f"{max(variance, 0.0):.7g}"))
        self.coefficients[step], self.squares[step] = coefficients[:TERMS], square

    def column(self, sample: int, step: int, powers: Array) -> Array:
        """E[f_u f_step] for u ≤ step, given the powers of their correlation; kept in `pairs`."""
        both = self.coefficients[: step + 1] * self.coefficients[step]
        values: Array = np.einsum("un,un->u", both, powers)
        if sample == SAME:
            values[-1] = self.squares[step]
        self.pairs[sample, : step + 1, step] = values
        self.pairs[sample, step, : step + 1] = values
        return values


@dataclass
class Unrolled:
    """A recurrent layer's moments: index t + 1 of `hidden` and `cell` is the state after step t, 0 the initial one."""

    kind: str
    steps: int
    weights: Mapping[str, GateWeights]
    hidden: Array
    cell: Array
    value: dict[str, Response] = field(default_factory=dict)
    slope: dict[str, Response] = field(default_factory=dict)
    inner: Array = field(default_factory=lambda: np.zeros(0))  # GRU: E[(W_hn h)(W_hn h)′]

    @property
    def gates(self) -> list[str]:
        """Names of the gates in torch's order."""
        return [name for name, _ in GATES[self.kind]]


def unroll(
    kind: str, inputs: Array, means: Array, weights: Mapping[str, GateWeights], start: tuple[Array, Array]
) -> Unrolled:
    """Run the recurrence on moments.

    inputs: (2, T, T), E[x_t x_u] for one sample and for two, entries of the same feature less those of different ones;
    means: the latter. start: E[h₀h₀′] and E[c₀c₀′] for one sample and for two, each of shape (2,).
    """
    steps = inputs.shape[1]
    layer = Unrolled(kind, steps, weights, np.zeros((2, steps + 1, steps + 1)), np.zeros((2, steps + 1, steps + 1)))
    layer.hidden[:, 0, 0], layer.cell[:, 0, 0] = start
    for name, function in GATES[kind]:
        layer.value[name] = Response(function, weights[name].mean, steps)
        layer.slope[name] = Response(function.derivative, weights[name].mean, steps)
    run = {"lstm": _Lstm, "gru": _Gru}.get(kind, _Rnn)(layer, inputs, means)
    for step in range(steps):
        for sample in (SAME, OTHER):
            run.step(sample, step)
    return layer


class _Rnn:
    """h = φ(W_x x + W_h h + b)."""

    def __init__(self, layer: Unrolled, inputs: Array, means: Array) -> None:
        self.layer, self.inputs, self.means = layer, inputs, means
        self.pre = {name: np.zeros((2, layer.steps, layer.steps)) for name in layer.gates}

    def step(self, sample: int, step: int) -> None:
        column = self.gate("h", sample, step, self.drive("h", sample, step))
        self.store(self.layer.hidden, sample, step, column)

    def drive(self, name: str, sample: int, step: int) -> Array:
        """E[z_u z_step] from the input, the state and the bias."""
        weights, upto = self.layer.weights[name], slice(0, step + 1)
        return (
            weights.into * self.inputs[sample, upto, step]
            + weights.into_rows * self.means[sample, upto, step]
            + weights.recurrent * self.layer.hidden[sample, upto, step]
            + weights.bias
        )

    def gate(self, name: str, sample: int, step: int, column: Array) -> Array:
        """Enter a column of pre-activation moments; E[φ_u φ_step]."""
        pre = self.pre[name]
        pre[sample, : step + 1, step] = column
        value, slope = self.layer.value[name], self.layer.slope[name]
        if sample == SAME:
            value.settle(step, column[-1])
            slope.settle(step, column[-1])
        powers = self.powers(column, np.diagonal(pre[SAME])[: step + 1])
        slope.column(sample, step, powers)
        return value.column(sample, step, powers)

    @staticmethod
    def powers(column: Array, variances: Array) -> Array:
        """Powers 0 … TERMS−1 of the correlations of one column."""
        rho = np.clip(column / np.sqrt(np.maximum(variances * variances[-1], 1e-300)), -1.0, 1.0)
        powers = np.ones((len(rho), TERMS))
        powers[:, 1:] = rho[:, None]
        result: Array = np.multiply.accumulate(powers, axis=1)
        return result

    @staticmethod
    def store(table: Array, sample: int, step: int, column: Array) -> None:
        table[sample, 1 : step + 2, step + 1] = column
        table[sample, step + 1, 1 : step + 2] = column


class _Leaky(_Rnn):
    """What LSTM and GRU share: a state s ← keep·s + write·g, with E[g_t s_u] carried along.

    Unit biases make g persistent, so that the new content is correlated with the state it is added to.
    """

    def __init__(self, layer: Unrolled, inputs: Array, means: Array) -> None:
        super().__init__(layer, inputs, means)
        self.cross = np.zeros((2, layer.steps + 1, layer.steps + 1))  # E[g_t s_u]
        self.reach = np.zeros((layer.steps + 1, layer.steps + 1))  # share of g_a in s_u

    def content(self, sample: int, step: int, keep: Array, write: Array, name: str) -> Array:
        """write_u keep_step E[g_step s_u] + keep_u write_step E[g_u s_step] for u ≤ step; updates `cross`."""
        content = self.layer.value[name].pairs[sample]
        upto = slice(0, step + 1)
        if step:
            self.cross[sample, step, upto] = content[step, upto] @ self.reach[upto, upto]
            past = slice(0, step)
            self.cross[sample, past, step] = (
                keep[step - 1] * self.cross[sample, past, step - 1] + write[step - 1] * content[past, step - 1]
            )
        first = keep[upto] * write[step] * self.cross[sample, step, upto]
        second = keep[step] * write[upto] * self.cross[sample, upto, step]
        result: Array = first + second
        return result

    def advance(self, step: int, keep: float, write: float) -> None:
        """The share of every earlier content in the state after this step."""
        self.reach[:, step + 1] = self.reach[:, step] * keep
        self.reach[step, step + 1] = write


class _Lstm(_Leaky):
    """c ← f·c + i·g, h = o·tanh(c)."""

    def __init__(self, layer: Unrolled, inputs: Array, means: Array) -> None:
        super().__init__(layer, inputs, means)
        layer.value["tanh c"] = Response(TANH, 0.0, layer.steps)
        layer.slope["tanh c"] = Response(TANH.derivative, 0.0, layer.steps)

    def step(self, sample: int, step: int) -> None:
        layer, upto = self.layer, slice(0, step + 1)
        out = {name: self.gate(name, sample, step, self.drive(name, sample, step)) for name in layer.gates}
        keep, write = layer.value["f"].mean, layer.value["i"].mean
        column = out["f"] * layer.cell[sample, upto, step] + out["i"] * out["g"]
        column = column + self.content(sample, step, keep, write, "g")
        self.store(layer.cell, sample, step, column)
        value, slope = layer.value["tanh c"], layer.slope["tanh c"]
        if sample == SAME:
            value.settle(step, column[-1])
            slope.settle(step, column[-1])
        powers = self.powers(column, np.diagonal(layer.cell[SAME])[1 : step + 2])
        slope.column(sample, step, powers)
        self.store(layer.hidden, sample, step, out["o"] * value.column(sample, step, powers))
        if sample == OTHER:
            self.advance(step, float(keep[step]), float(write[step]))


class _Gru(_Leaky):
    """n = tanh(W_x x + b + r·(W_h h + b_h)), h ← (1−z)·n + z·h."""

    def __init__(self, layer: Unrolled, inputs: Array, means: Array) -> None:
        super().__init__(layer, inputs, means)
        layer.value["keep"] = Response(KEEP, layer.weights["z"].mean, layer.steps)
        layer.inner = np.zeros((2, layer.steps, layer.steps))

    def step(self, sample: int, step: int) -> None:
        layer, upto = self.layer, slice(0, step + 1)
        reset = self.gate("r", sample, step, self.drive("r", sample, step))
        stay = self.gate("z", sample, step, self.drive("z", sample, step))
        write = layer.value["keep"]
        if sample == SAME:
            write.settle(step, float(self.pre["z"][SAME, step, step]))
        powers = self.powers(self.pre["z"][sample, upto, step], np.diagonal(self.pre["z"][SAME])[upto])
        fresh = write.column(sample, step, powers)
        content = self.gate("n", sample, step, self._candidate(sample, step, reset))
        column = fresh * content + stay * layer.hidden[sample, upto, step]
        column = column + self.content(sample, step, layer.value["z"].mean, write.mean, "n")
        self.store(layer.hidden, sample, step, column)
        if sample == OTHER:
            self.advance(step, float(layer.value["z"].mean[step]), float(write.mean[step]))

    def _candidate(self, sample: int, step: int, reset: Array) -> Array:
        layer, upto = self.layer, slice(0, step + 1)
        weights = layer.weights["n"]
        inner = weights.recurrent * layer.hidden[sample, upto, step] + weights.bias_recurrent
        layer.inner[sample, upto, step] = inner
        layer.inner[sample, step, upto] = inner
        outer = weights.into * self.inputs[sample, upto, step] + weights.into_rows * self.means[sample, upto, step]
        return outer + weights.bias_in + reset * inner


def significant_mean(mean: float, deviation: float, count: int) -> float:
    """The mean of a bias where it is one (a forget bias of 1), 0 where it is a sample's fluctuation."""
    return mean if abs(mean) > 4.0 * deviation / math.sqrt(max(count, 1)) else 0.0
