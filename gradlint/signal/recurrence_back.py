"""Gradients through a recurrent layer: the pair kernel of δ at every step, from the last step to the first."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from gradlint.signal.patterns import Array
from gradlint.signal.recurrence import Unrolled


@dataclass
class Returned:
    """Pair kernels (T, T) of the gradient at each gate's pre-activation, and squares at the initial states."""

    gates: dict[str, Array]
    inner: dict[str, Array] = field(default_factory=dict)  # GRU: at W_hn h, inside the reset gate
    hidden: float = 0.0
    cell: float = 0.0

    def recurrent(self, name: str) -> Array:
        """The kernel at the product with the recurrent weight."""
        return self.inner.get(name, self.gates[name])


def back(layer: Unrolled, sample: int, arriving: Array, last_cell: float = 0.0) -> Returned:
    """Gradients at the gates, given E[δ_t δ_u] arriving at the outputs, shape (T, T), from outside the layer."""
    return {"lstm": _lstm, "gru": _gru}.get(layer.kind, _rnn)(layer, sample, arriving, last_cell)


def _symmetric(kernel: Array, step: int) -> None:
    kernel[step:, step] = kernel[step, step:]


def _rnn(layer: Unrolled, sample: int, arriving: Array, last_cell: float) -> Returned:
    steps, slope = layer.steps, layer.slope["h"].pairs[sample]
    through = layer.weights["h"].adjoint_recurrent
    delta, gate = arriving.copy(), np.zeros((steps, steps))
    hidden = 0.0
    for step in range(steps - 1, -1, -1):
        gate[step, step:] = delta[step, step:] * slope[step, step:]
        _symmetric(gate, step)
        if step:
            delta[step - 1, step - 1 : steps - 1] += through * gate[step, step:]
            delta[step - 1 : steps - 1, step - 1] = delta[step - 1, step - 1 : steps - 1]
        else:
            hidden = through * float(gate[0, 0])
    return Returned({"h": gate}, hidden=hidden)


def _lstm(layer: Unrolled, sample: int, arriving: Array, last_cell: float) -> Returned:
    """Same-step squares exactly; between steps the cell's gradient is carried by the mean gates, one-sided."""
    steps = layer.steps
    value, slope = ({name: r.pairs[sample] for name, r in rs.items()} for rs in (layer.value, layer.slope))
    keep = layer.value["f"].mean
    passing = layer.value["o"].mean * layer.slope["tanh c"].mean
    delta, cell = arriving.copy(), np.zeros((steps + 1, steps + 1))
    gates = {name: np.zeros((steps, steps)) for name in layer.gates}
    squares = value["o"] * slope["tanh c"]
    hidden = 0.0
    for step in range(steps - 1, -1, -1):
        follow, later = (keep[step + 1] if step + 1 < steps else 0.0), slice(step + 1, steps)
        carried = _carried(delta[step], passing, keep, step)
        cell[step, later] = passing[step] * carried[later] + follow * cell[step + 1, later]
        kept = value["f"][step + 1, step + 1] if step + 1 < steps else 0.0
        cell[step, step] = delta[step, step] * squares[step, step] + kept * cell[step + 1, step + 1]
        if step + 1 < steps:
            cell[step, step] += 2.0 * passing[step] * follow * carried[step + 1]
        else:
            cell[step, step] += last_cell
        cell[later, step] = cell[step, later]
        row, at = cell[step, step:steps], slice(step, steps)
        gates["i"][step, at] = row * value["g"][step, at] * slope["i"][step, at]
        gates["g"][step, at] = row * value["i"][step, at] * slope["g"][step, at]
        gates["f"][step, at] = row * layer.cell[sample, step, step:steps] * slope["f"][step, at]
        gates["o"][step, at] = delta[step, at] * value["tanh c"][step, at] * slope["o"][step, at]
        for kernel in gates.values():
            _symmetric(kernel, step)
        into = sum(layer.weights[name].adjoint_recurrent * gates[name][step, at] for name in layer.gates)
        if step:
            delta[step - 1, step - 1 : steps - 1] += into
            delta[step - 1 : steps - 1, step - 1] = delta[step - 1, step - 1 : steps - 1]
        else:
            hidden = float(np.asarray(into)[0])
    return Returned(gates, hidden=hidden, cell=float(value["f"][0, 0] * cell[0, 0]))


def _carried(delta: Array, passing: Array, keep: Array, step: int) -> Array:
    """E[δh_step δc_u] for u > step: what the outputs from u on send back along the cell."""
    steps = len(passing)
    carried, total = np.zeros(steps + 1), 0.0
    for later in range(steps - 1, step, -1):
        total = float(delta[later] * passing[later]) + (float(keep[later + 1]) * total if later + 1 < steps else 0.0)
        carried[later] = total
    return carried


def _gru(layer: Unrolled, sample: int, arriving: Array, last_cell: float) -> Returned:
    """As for the LSTM, with the state's own leak z as the carrier."""
    steps = layer.steps
    value, slope = ({name: r.pairs[sample] for name, r in rs.items()} for rs in (layer.value, layer.slope))
    keep = layer.value["z"].mean
    delta = arriving.copy()
    gates = {name: np.zeros((steps, steps)) for name in layer.gates}
    inner = np.zeros((steps, steps))
    hidden = 0.0
    for step in range(steps - 1, -1, -1):
        at = slice(step, steps)
        row = delta[step, at]
        gates["n"][step, at] = row * value["keep"][step, at] * slope["n"][step, at]
        spread = layer.hidden[sample, step, step:steps] + value["n"][step, at]
        gates["z"][step, at] = row * spread * slope["z"][step, at]
        gates["r"][step, at] = gates["n"][step, at] * layer.inner[sample, step, at] * slope["r"][step, at]
        inner[step, at] = gates["n"][step, at] * value["r"][step, at]
        for kernel in (*gates.values(), inner):
            _symmetric(kernel, step)
        into = sum(
            layer.weights[name].adjoint_recurrent * (inner if name == "n" else gates[name])[step, at]
            for name in layer.gates
        )
        if step:
            _leak(delta, arriving, np.asarray(into), keep, float(value["z"][step, step]), step)
        else:
            hidden = float(np.asarray(into)[0]) + float(value["z"][0, 0] * delta[0, 0])
    return Returned(gates, {"n": inner}, hidden)


def _leak(delta: Array, arriving: Array, into: Array, keep: Array, kept: float, step: int) -> None:
    """Add to row step − 1 what comes through the weights and along the leak; only δ from outside meets itself later."""
    steps = len(keep)
    row = arriving[step - 1]
    meeting = np.zeros(steps + 1)
    for later in range(steps - 1, step - 1, -1):
        meeting[later] = row[later] + (float(keep[later + 1]) * meeting[later + 1] if later + 1 < steps else 0.0)
    delta[step - 1, step - 1 : steps - 1] += into
    delta[step - 1, step - 1] += kept * delta[step, step] + 2.0 * keep[step] * meeting[step]
    delta[step - 1, step:steps] += meeting[step:steps] - row[step:steps] + keep[step] * delta[step, step:steps]
    delta[step - 1 : steps, step - 1] = delta[step - 1, step - 1 : steps]
