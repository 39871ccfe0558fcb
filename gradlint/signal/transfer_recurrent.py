"""RNN, LSTM and GRU layers: the time kernels of `recurrence` between tables with a profile along time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gradlint.signal import patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.norm_plan import merged
from gradlint.signal.patterns import Array
from gradlint.signal.recurrence import GATES, SAME, GateWeights, Unrolled, significant_mean, unroll
from gradlint.signal.recurrence_back import Returned, back
from gradlint.signal.site import Contribution, Contributions, Flow, Site, Square, Unanswered
from gradlint.signal.table import Dims, Profile, Table
from gradlint.signal.weights import Vector, Weight

LONGEST = 512  # steps that are unrolled


@dataclass(frozen=True)
class Clock:
    """Which dimensions of (batch, time, feature) are which, and how long they are."""

    batch: int
    time: int
    samples: int
    steps: int

    def order(self) -> list[int]:
        """Dimensions in the order batch, time, feature."""
        return [self.batch, self.time, 2]


@dataclass(frozen=True, eq=False)
class Run:
    """One layer in one direction."""

    layer: Unrolled
    inputs: Array  # (2, T, T), entries of the same feature
    names: tuple[str, str, str, str]
    fan_in: int
    reverse: bool


def layers(site: Site, x: Field, clock: Clock) -> Flow:
    """All layers and directions of an RNN, LSTM or GRU over a sequence x of three dimensions."""
    if clock.steps > LONGEST:
        raise Unanswered(f"more than {LONGEST} steps")
    x = merged(x)
    stack = _stack(site, x, clock)
    outputs = _outputs(site, x, clock, stack)

    def backward(cotangents: Sequence[Cotangent | None]) -> Contributions:
        return _backward(site, x, clock, stack, outputs, cotangents)

    return Flow(outputs[: len(site.op.outputs)], backward)


def _stack(site: Site, x: Field, clock: Clock) -> list[list[Run]]:
    """Run every layer on the kernel of the one below."""
    same, different = time_kernels(x.table, clock)
    directions = ("", "_reverse") if site.op.attrs.get("bidirectional") else ("",)
    start = _start(site, "hidden"), _start(site, "cell")
    stack: list[list[Run]] = []
    for number in range(int(site.number("layers", 1))):
        runs = []
        for way in directions:
            names = tuple(f"{name}_l{number}{way}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            weights, fan_in = gate_weights(site, names)  # type: ignore[arg-type]
            turn = bool(way)
            inputs, means = _turned(same, turn), _turned(different, turn)
            layer = unroll(site.op.function, inputs - means, means, weights, start)
            runs.append(Run(layer, inputs, names, fan_in, turn))  # type: ignore[arg-type]
        stack.append(runs)
        same = sum((_turned(run.layer.hidden[:, 1:, 1:], run.reverse) for run in runs), np.zeros(1)) / len(runs)
        same = thinned(same, _dropped_between(site))
        different = np.zeros_like(same)
    return stack


def _dropped_between(site: Site) -> float:
    """The chance that an entry between two layers is dropped; no op follows the last one."""
    chance = site.number("dropout", 0.0)
    if not 0.0 <= chance < 1.0:
        raise Unanswered(f"dropout between layers with p = {chance}")
    return chance


def thinned(kernel: Array, chance: float) -> Array:
    """(2, T, T) kernels after inverted dropout, which draws for each sample and step anew: E[x²] grows by 1/(1 − p)."""
    if chance == 0.0:
        return kernel
    grown = kernel.copy()
    steps = np.arange(kernel.shape[-1])
    grown[SAME, steps, steps] /= 1.0 - chance
    return grown


def _turned(kernel: Array, turn: bool) -> Array:  # noqa: FBT001
    return kernel[:, ::-1, ::-1] if turn else kernel


def _start(site: Site, role: str) -> Array:
    """E[h₀h₀′] for one sample and for two; zero where none is given."""
    value = site.value(role)
    if value is None:
        return np.zeros(2)
    table = site.known(value.id).table.collapse()
    if table.square == 0.0:
        return np.zeros(2)
    raise Unanswered("an initial state that is not zero")


def gate_weights(site: Site, names: tuple[str, str, str, str]) -> tuple[dict[str, GateWeights], int]:
    """Sums of every gate's rows, and the fan-in of the input weight."""
    gates = [name for name, _ in GATES[site.op.function]]
    into, across = site.weight(names[0]), site.weight(names[1])
    biases = [site.vector(name) for name in names[2:]]
    units, fan_in = into.shape[0] // len(gates), into.shape[1]
    square_in, square_across = _by_gate(into, "square", len(gates)), _by_gate(across, "square", len(gates))
    rows = _squared_rows(into, len(gates))
    found = {}
    for position, gate in enumerate(gates):
        mean, bias, first, second = _gate_bias(biases, position, len(gates), units)
        found[gate] = GateWeights(
            square_in[position] / units,
            rows[position] / units,
            square_across[position] / units,
            square_in[position] / fan_in,
            square_across[position] / units,
            mean,
            bias,
            first,
            second,
        )
    return found, fan_in


def _by_gate(weight: Weight, key: str, gates: int) -> Array:
    rows = weight.rows.get(key)
    if rows is None:
        return np.full(gates, weight.square / gates)
    result: Array = rows.reshape(gates, -1).sum(1)
    return result


def _squared_rows(weight: Weight, gates: int) -> Array:
    rows = weight.rows.get("sum")
    if rows is None:
        return np.full(gates, weight.sums["0"] / gates)
    summed: Array = (rows.reshape(gates, -1) ** 2).sum(1)
    return summed


def _gate_bias(
    biases: Sequence[Vector | None], position: int, gates: int, units: int
) -> tuple[float, float, float, float]:
    """(significant mean, mean square about it, mean squares of the input's and of the state's bias)."""
    parts = []
    for bias in biases:
        if bias is None:
            parts.append(np.zeros(units))
        elif bias.values is not None:
            parts.append(bias.values.reshape(gates, -1)[position])
        else:
            return 0.0, sum(b.square for b in biases if b is not None), bias.square, bias.square
    total = parts[0] + parts[1]
    mean = significant_mean(float(total.mean()), float(total.std()), units)
    return mean, float(((total - mean) ** 2).mean()), float((parts[0] ** 2).mean()), float((parts[1] ** 2).mean())


def time_kernels(table: Table, clock: Clock) -> tuple[Array, Array]:
    """(2, T, T) kernels of x over time for one sample and two: entries of the same feature, and of different ones."""
    turned = tables.permute(table, clock.order())
    if turned.profile is not None and turned.profile.axis not in turned.at(1):
        turned = turned.collapse()
    values = turned.values
    for dim in range(3):
        if not turned.dims[dim]:
            values = patterns.insert(values, dim)
    steps = clock.steps
    repeats = turned.profile.counts if turned.profile is not None else (steps,)
    rows = np.repeat(np.arange(len(values)), repeats)
    return _kernel(values[..., 1], rows), _kernel(values[..., 0], rows)


def _kernel(values: Array, rows: Array) -> Array:
    """(K, batch, time) entries as kernels: the diagonal by class, the rest the mean of both rows' averages."""
    kernels = []
    for sample in (1, 0):
        apart = values[rows.astype(np.intp), sample, 0]
        kernel = 0.5 * (apart[:, None] + apart[None, :])
        np.fill_diagonal(kernel, values[rows.astype(np.intp), sample, 1])
        kernels.append(kernel)
    return np.stack(kernels)


def _table_of(kernel: Array, clock: Clock, dims: Dims) -> Table:
    """A time kernel as a table over (batch, time, feature), features independent, with one class a step."""
    steps = clock.steps
    diagonal = np.diagonal(kernel, axis1=1, axis2=2)
    apart = (kernel.sum(2) - diagonal) / max(steps - 1, 1)
    values = np.zeros((steps, 2, 2, 2))
    for sample, position in ((0, 1), (1, 0)):
        values[:, position, 1, 1], values[:, position, 0, 1] = diagonal[sample], apart[sample]
    table = Table(tuple(dims[dim] for dim in clock.order()), values, Profile(1, (1,) * steps))
    for dim, size in ((2, None), (1, steps), (0, None)):
        if not table.dims[dim]:
            table = _dropped(table, dim, size)
    return tables.permute(table, [clock.order().index(dim) for dim in range(3)])


def _dropped(table: Table, dim: int, size: int | None) -> Table:
    """The values of a dimension of size 1, whose axis does not exist."""
    profile = table.profile
    if profile is not None:
        profile = None if size is not None else Profile(profile.axis - (dim == 0), profile.counts)
    return Table(table.dims, patterns.take(table.values, dim, 1), profile)


def _outputs(site: Site, x: Field, clock: Clock, stack: list[list[Run]]) -> tuple[Field | None, ...]:
    hidden = sum((_turned(run.layer.hidden[:, 1:, 1:], run.reverse) for run in stack[-1]), np.zeros(1)) / len(stack[-1])
    dims = (*x.dims[:2], tables.dims_of(site.shape())[-1])
    sequence = Field(_table_of(hidden, clock, dims), np.zeros(clock.steps if clock.steps > 1 else 1))
    runs = [run for layer in stack for run in layer]
    states = [np.array([run.layer.hidden[:, -1, -1] for run in runs])]
    if site.op.function == "lstm":
        states.append(np.array([run.layer.cell[:, -1, -1] for run in runs]))
    return (sequence, *(_state(site, position + 1, x, clock, state) for position, state in enumerate(states)))


def _state(site: Site, output: int, x: Field, clock: Clock, squares: Array) -> Field | None:
    """The last state, (layers·directions, batch, hidden), one class a layer."""
    if output >= len(site.op.outputs):
        return None
    values = np.zeros((len(squares), 2, 2, 2))
    values[:, 1, 1, 1], values[:, 1, 0, 1] = squares[:, 0], squares[:, 1]
    shape = site.shape(output)
    dims = tables.dims_of(shape)
    table = Table((dims[0], x.dims[clock.batch], dims[2]), values, Profile(0, (1,) * len(squares)))
    if not dims[2]:
        table = Table(table.dims, patterns.take(table.values, 2, 1), table.profile)
    if not x.dims[clock.batch]:
        table = Table(table.dims, patterns.take(table.values, 1, 1), table.profile)
    if not dims[0]:
        table = Table(table.dims, patterns.take(table.values, 0, 1), None)
    return Field(table, np.zeros(len(table.values)))


def _backward(
    site: Site,
    x: Field,
    clock: Clock,
    stack: list[list[Run]],
    outputs: Sequence[Field | None],
    cotangents: Sequence[Cotangent | None],
) -> Contributions:
    """Layers from the last to the first; every one gets what arrives at the sequence and at its own last state."""
    sequence = outputs[0]
    assert sequence is not None
    kernel = np.zeros((2, clock.steps, clock.steps))
    if cotangents[0] is not None:
        kernel = time_kernels(tables.regroup(cotangents[0].table, sequence.dims), clock)[0]
    hidden = _state_squares(cotangents, 1, stack)
    cell = _state_squares(cotangents, 2, stack)
    out: dict[int, Contribution] = {}
    for number in range(len(stack) - 1, -1, -1):
        below = np.zeros_like(kernel)
        for way, run in enumerate(stack[number]):
            place = number * len(stack[0]) + way
            given = _turned(kernel, run.reverse).copy()
            given[:, -1, -1] += hidden[place]
            returned = [back(run.layer, sample, given[sample], float(cell[place, sample])) for sample in (0, 1)]
            below += _turned(into_inputs(run, returned), run.reverse)
            gradients(site, run, returned, clock, out)
        kernel = thinned(below, _dropped_between(site)) if number else below
    table = _table_of(kernel, clock, x.dims)
    out[site.id("input")] = Cotangent(table)
    return out


def _state_squares(cotangents: Sequence[Cotangent | None], output: int, stack: list[list[Run]]) -> Array:
    """E[δδ′] at the last state of every layer and direction, for one sample and for two, shape (runs, 2)."""
    count = len(stack) * len(stack[0])
    squares = np.zeros((count, 2))
    cotangent = cotangents[output] if output < len(cotangents) else None
    if cotangent is None:
        return squares
    table = cotangent.table
    batch = len(table.dims[0])
    if table.profile is not None and table.profile.axis not in table.at(0):
        table = table.collapse()
    values = patterns.take_all(table.values, table.at(0)) if batch else table.values
    counts = table.profile.counts if table.profile is not None else (count,)
    rows = np.repeat(np.arange(len(values)), counts)
    flat = values.reshape(len(values), -1)
    squares[:, 0] = flat[rows, -1]
    if table.dims[1]:
        squares[:, 1] = values[rows, 0].reshape(count, -1)[:, -1]
    return squares


def into_inputs(run: Run, returned: Sequence[Returned]) -> Array:
    """The gradient's kernel at the layer's input."""
    weights: Mapping[str, GateWeights] = run.layer.weights
    kernels = [
        sum((weights[name].adjoint_in * part.gates[name] for name in run.layer.gates), np.zeros(1)) for part in returned
    ]
    return np.stack(kernels)


def gradients(site: Site, run: Run, returned: Sequence[Returned], clock: Clock, out: dict[int, Contribution]) -> None:
    """Σ over steps and samples of E[δ_t δ_u] times E[x_t x_u], E[h_{t−1} h_{u−1}] or 1, averaged over the gates."""
    steps, layer = clock.steps, run.layer
    pairs = (clock.samples, clock.samples * (clock.samples - 1))
    totals = dict.fromkeys(run.names, 0.0)
    for sample, part in enumerate(returned):
        inputs, hidden = run.inputs[sample], layer.hidden[sample, :steps, :steps]
        for name in layer.gates:
            gate, recurrent_gate = part.gates[name], part.recurrent(name)
            terms = (gate * inputs, recurrent_gate * hidden, gate, recurrent_gate)
            for key, term in zip(run.names, terms, strict=True):
                totals[key] += pairs[sample] * float(term.sum()) / len(layer.gates)
    for key, total in totals.items():
        value = site.value(key)
        if value is not None and value.requires_grad:
            out[value.id] = Square(max(total, 0.0), abs(total))
