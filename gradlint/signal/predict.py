"""The static prediction: fields forward in topological order, cotangents backward, weight sharing adds."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import numpy as np

from gradlint.graph import Graph, Op
from gradlint.profile import Gain, Profile, Signal
from gradlint.signal import known, patterns
from gradlint.signal import table as tables
from gradlint.signal.doubt import FLOOR, WIDTH_UNITWISE, Doubt
from gradlint.signal.field import Cotangent, Field, added, none, white
from gradlint.signal.losses import cotangent
from gradlint.signal.site import Dependent, Flow, Labels, Site, Square, Unanswered, complex_values, entries
from gradlint.signal.table import Dims, Table
from gradlint.signal.transfer import DERIVATIVE, RELABELLING, TRANSFER, WEIGHT, transfer_of
from gradlint.signal.transfer_write import rebased
from gradlint.signal.unit_run import Unitwise
from gradlint.signal.unit_scales import unitwise

BROKEN = (ValueError, TypeError, IndexError, KeyError, ZeroDivisionError, OverflowError, AssertionError, RecursionError)
CANCELLED = 1e-9  # a sum below this share of its terms' magnitudes is a structural zero


def predict(graph: Graph, loss: str = "unit", inputs: Mapping[int, tuple[float, float]] | None = None) -> Signal:
    """Second moments of everything that flows in the graph, from its parameters' statistics alone.

    Float inputs are white with the given (mean, std) by value id, N(0, 1) when not given; integer inputs are uniform
    tokens; the first axis of an input counts samples. `loss` is one of "unit", "mse", "bce", "bce_logits", "ce", "nll",
    or "own" when the model returns its loss. What depends on an op without a transfer function is left out of the
    profile, and `Signal.unknown` says why.
    """
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"), uncollected():
        run = _Run(graph, dict(inputs or {}), unitwise(graph, loss, inputs or {}))
        run.forward()
        run.backward(loss)
        return run.signal(loss)


@contextmanager
def uncollected() -> Iterator[None]:
    """Hold the garbage collector back: with torch loaded, one full collection takes as long as a prediction."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass
class _Run:
    graph: Graph
    inputs: dict[int, tuple[float, float]]
    closer: Unitwise | None  # the same unit by unit, where that is possible
    fields: dict[int, Field] = field(default_factory=dict)
    indices: dict[int, Labels] = field(default_factory=dict)
    flows: dict[int, Flow] = field(default_factory=dict)
    cotangents: dict[int, Cotangent | None] = field(default_factory=dict)  # None: unknown
    further: dict[int, list[Cotangent]] = field(default_factory=dict)  # what has not been added to them yet
    squares: dict[str, Square | None] = field(default_factory=dict)
    unknown: dict[int, str] = field(default_factory=dict)
    gains: dict[int, Gain] = field(default_factory=dict)
    spread: dict[int | str, float] = field(default_factory=dict)
    ways: dict[int, dict[int, float]] = field(default_factory=dict)
    exact: dict[int, Field] = field(default_factory=dict)  # of what depends on nothing that was fed in

    def __post_init__(self) -> None:
        self.complex = complex_values(self.graph)
        if self.closer is not None:
            self.doubt = Doubt(self.graph, WIDTH_UNITWISE, together=True)
        else:
            self.doubt = Doubt(self.graph)

    def forward(self) -> None:
        self._feed()
        for op in self.graph.ops:
            if not self._label(op):
                self._flow(op)
                self._chance(op)
                self._take_known(op)
        for index in known.settled(self.graph):
            self.unknown.pop(index, None)

    def _take_known(self, op: Op) -> None:
        """What was there in place of what was predicted; a mask of logits is no number."""
        for value in op.outputs:
            if value in self.exact:
                self.fields[value] = self.exact[value]
            elif value in self.graph.fixed:
                self.fields.pop(value, None)

    def _feed(self) -> None:
        for number in self.graph.inputs:
            self._input(number)
        for value in self.graph.values:
            if value.origin in ("buffer", "constant") and _integer(value.dtype) and math.prod(value.shape) > 2:
                dims = tables.dims_of(value.shape)
                self.indices[value.id] = Labels(Field(tables.constant(dims, 1.0), np.zeros(1)), random=False)
        self.exact = known.fields(self.graph)
        self.fields.update(self.exact)
        self.indices.update(known.labels(self.graph))

    def _input(self, number: int) -> None:
        value = self.graph.values[number]
        dims = tables.dims_of(value.shape, batch=0)
        if _integer(value.dtype):
            self.indices[number] = Labels(Field(tables.constant(dims, 1.0), np.zeros(1)), random=True)
        elif value.dtype.startswith(("float", "bfloat")):
            mean, std = self.inputs.get(number, (0.0, 1.0))
            self.fields[number] = white(dims, mean, std)

    def _label(self, op: Op) -> bool:
        """Follow integer tensors through relabellings; whether the op is about integers."""
        outputs = [self.graph.values[value] for value in op.outputs]
        if not outputs or not all(_integer(value.dtype) for value in outputs):
            return False
        if all(value in self.graph.fixed for value in op.outputs):
            return True
        if op.kind == "create" and op.function in ("arange", "range") and outputs[0].shape:
            dims = tables.dims_of(outputs[0].shape)
            self.indices[outputs[0].id] = Labels(Field(tables.constant(dims, 1.0), np.zeros(1)), random=False)
            return True
        known = [self.indices[value] for value in op.inputs if value in self.indices]
        if not known or (op.kind not in RELABELLING and not (op.kind == "add" and len(op.inputs) == 1)):
            self._chance(op)
            return True
        labelled = {value: self.indices[value].field for value in op.inputs if value in self.indices}
        try:
            flow = TRANSFER[op.kind](Site(self.graph, op, labelled, {}))
        except Unanswered:
            self._chance(op)
            return True
        for value, found in zip(op.outputs, flow.outputs, strict=False):
            if found is not None:
                self.indices[value] = Labels(found, known[0].random)
        self._chance(op)
        return True

    def _chance(self, op: Op) -> None:
        """Integers computed in a way that is not followed: two of them are equal by chance."""
        for value in op.outputs:
            found = self.graph.values[value]
            if value in self.indices or not found.consumers or not _integer(found.dtype):
                continue
            dims = tables.dims_of(found.shape)
            self.indices[value] = Labels(Field(tables.constant(dims, 1.0), np.zeros(1)), random=True)

    def _flow(self, op: Op) -> None:
        if op.kind == "compare" or not op.outputs:
            return
        if all(0 in self.graph.values[value].shape for value in op.outputs):
            self.flows[op.index] = self._empty(op)
            return
        transfer = transfer_of(self.graph, op)
        try:
            if transfer is None:
                raise Unanswered(f"no transfer function for {op.kind} ({op.function or op.name})")
            site = Site(self.graph, op, self.fields, self.indices)
            flow = transfer(site)
            flow = self._with_base(site, flow)
        except Dependent:
            return
        except Unanswered as reason:
            self.unknown[op.index] = str(reason)
            return
        except BROKEN as error:
            self.unknown[op.index] = f"moments of {op.kind} not computable: {error}"
            return
        self.flows[op.index] = flow
        for value, found in zip(op.outputs, flow.outputs, strict=False):
            if found is not None and entries(self.graph.values[value]) == found.shape:
                self.fields[value] = found
        self.doubt.produced(op, self.fields, flow.doubt)

    def _empty(self, op: Op) -> Flow:
        """Of an op that gives no entries, because the data picked none: no gradient comes back."""
        inputs = [self.graph.values[value] for value in op.inputs]
        nothing = {value.id: none(value.shape) for value in inputs if value.requires_grad}
        return Flow((), lambda cotangents: nothing)

    def _with_base(self, site: Site, flow: Flow) -> Flow:
        """The flow with the tensor that an in-place op changed through a view; without it where that is not known."""
        if not site.op.inplace or len(site.op.outputs) <= len(flow.outputs):
            return flow
        try:
            return rebased(site, flow)
        except (Unanswered, *BROKEN):
            return flow

    def backward(self, loss: str) -> None:
        self._start(loss)
        for op in reversed(self.graph.ops):
            reached = [value for value in op.outputs if value in self.cotangents]
            if reached:
                self._add_up(reached)
                self._back(op, reached)
        self._add_up(list(self.further))

    def _start(self, loss: str) -> None:
        for value in self._targets(loss):
            y = None if value in self.complex else self.fields.get(value)
            if loss == "own":
                self.cotangents[value] = Cotangent(tables.constant(tables.dims_of(self.graph.values[value].shape), 1.0))
                continue
            try:
                self.cotangents[value] = None if y is None else cotangent(loss, y)
            except Unanswered:
                self.cotangents[value] = None

    def _targets(self, loss: str) -> list[int]:
        floating = [v for v in self.graph.outputs if self.graph.values[v].requires_grad]
        if loss == "own":
            floating = [v for v in floating if math.prod(self.graph.values[v].shape) == 1] or floating
        return floating[:1]

    def _back(self, op: Op, reached: Sequence[int]) -> None:
        answers = known.arrived(self.graph, op, self.cotangents)
        if answers is not None:
            self._answer(op, answers)
            return
        flow = self.flows.get(op.index)
        arrived = [self.cotangents.get(value) for value in op.outputs]
        if flow is None or any(self.cotangents[value] is None for value in reached):
            self._poison(op)
            return
        try:
            contributions = flow.backward(arrived)
        except (Unanswered, *BROKEN) as reason:
            self.unknown[op.index] = str(reason)
            self._poison(op)
            return
        squares = {v: c.table.square for v, c in contributions.items() if isinstance(c, Cotangent)}
        self.doubt.returned(op, self.cotangents, squares, flow.returned)
        for value, contribution in contributions.items():
            self._add(op, value, contribution)
        self._gain(op, arrived, contributions)

    def _answer(self, op: Op, answers: Mapping[str, Square | None]) -> None:
        """Enter what reaches parameters through a value that is computed from them alone."""
        for path, square in answers.items():
            if square is None:
                self.squares[path] = None
            elif path in self._parameters:
                self._add(op, self._parameters[path], square)

    @cached_property
    def _parameters(self) -> dict[str, int]:
        """Value ids by parameter path."""
        return {value.name: value.id for value in self.graph.values if value.origin == "param"}

    def _poison(self, op: Op) -> None:
        for value in op.inputs:
            found = self.graph.values[value]
            if found.requires_grad:
                self.cotangents[value] = None
                if found.origin == "param":
                    self.squares[found.name] = None

    def _add(self, op: Op, value: int, contribution: Cotangent | Square) -> None:
        found = self.graph.values[value]
        if found.origin == "param":
            count = contribution.count if isinstance(contribution, Square) else math.inf
            variance = self.doubt.parameter(op, min(math.prod(found.shape), count))
            self.spread[found.name] = max(self.spread.get(found.name, 0.0), math.sqrt(variance))
        if found.origin == "param" and isinstance(contribution, Cotangent):
            square = contribution.table.square
            magnitude = float(np.abs(contribution.table.values).max())
            contribution = Square(square, magnitude)
        if isinstance(contribution, Square) and found.origin != "param":
            contribution = Cotangent(tables.constant(tables.dims_of(found.shape), max(contribution.value, 0.0)))
        if isinstance(contribution, Square):
            known = self.squares.get(found.name, Square(0.0, 0.0))
            if known is not None:
                total = Square(known.value + contribution.value, known.magnitude + contribution.magnitude)
                self.squares[found.name] = total
            return
        if not found.requires_grad and found.origin != "input":
            return
        self.ways.setdefault(value, {})[op.index] = self._size(value, contribution.table)
        if value in self.cotangents:
            self.further.setdefault(value, []).append(contribution)
        else:
            self.cotangents[value] = contribution

    def _add_up(self, values: Iterable[int]) -> None:
        """Everything that has reached these values as one cotangent each."""
        for value in values:
            further, first = self.further.pop(value, None), self.cotangents[value]
            if further is not None and first is not None:
                self.cotangents[value] = added([first, *further])

    def _gain(self, op: Op, arrived: Sequence[Cotangent | None], contributions: Mapping[int, object]) -> None:
        first = next(iter(self.graph.data_inputs(op)), None)
        given = next(((v, c) for v, c in zip(op.outputs, arrived, strict=True) if c is not None), None)
        into = contributions.get(first) if first is not None else None
        if not isinstance(into, Cotangent) or given is None or first is None:
            return
        backward = self._size(first, into.table) - self._size(given[0], given[1].table)
        x, y = self.fields.get(first), self.fields.get(op.outputs[0])
        forward = None
        if x is not None and y is not None:
            forward = self._size(op.outputs[0], y.table) - self._size(first, x.table)
        self.gains[op.index] = Gain(
            forward if forward is None or math.isfinite(forward) else None,
            backward if math.isfinite(backward) else None,
            backward if op.kind in DERIVATIVE and math.isfinite(backward) else None,
            backward if op.kind in WEIGHT and math.isfinite(backward) else None,
        )

    def signal(self, loss: str) -> Signal:
        gradient = {v: self._size(v, c.table) for v, c in self.cotangents.items() if c is not None}
        params, zeros = {}, {}
        for path, square in self.squares.items():
            if square is None or math.isnan(square.value):
                continue
            structural = abs(square.value) <= CANCELLED * square.magnitude
            params[path] = -math.inf if structural else _decades(abs(square.value))  # below 0: terms that nearly cancel
            if structural:
                zeros[path] = "no gradient arrives" if square.magnitude == 0.0 else "its gradient cancels"
        profile = Profile(
            activation={value: self._size(value, found.table) for value, found in self.fields.items()},
            gradient=gradient,
            params=params,
            gains=self.gains,
            spread=self._spread(gradient),
            correlation={value: correlation(found.table) for value, found in self.fields.items()},
            ways=self.ways,
        )
        closer = profile if self.closer is None else refined(self.graph, profile, self.closer)
        return Signal(closer, loss, self.unknown, zeros)

    def _size(self, value: int, table: Table) -> float:
        """log10 RMS of a tensor's entries; the magnitude of a complex one is of two."""
        return _decades(table.square * (2.0 if value in self.complex else 1.0))

    def _spread(self, gradient: Mapping[int, float]) -> dict[int | str, float]:
        spread = dict(self.spread)
        spread.update({value: math.sqrt(self.doubt.backward.get(value, 0.0) + FLOOR) for value in gradient})
        return spread


def refined(graph: Graph, profile: Profile, closer: Unitwise) -> Profile:
    """The profile with what is known unit by unit in place of what was expected over all weights."""
    gains = {}
    for index, gain in profile.gains.items():
        op = graph.ops[index]
        first = next(iter(graph.data_inputs(op)))
        forward = _finite(closer.activation[op.outputs[0]] - closer.activation[first])
        backward = _finite(closer.through.get(index, math.nan))
        gains[index] = Gain(
            forward,
            backward,
            backward if gain.derivative is not None else None,
            backward if gain.weight is not None else None,
        )
    params = {
        path: closer.params.get(path, size) if math.isfinite(size) else size for path, size in profile.params.items()
    }
    spread = {key: math.hypot(size, math.sqrt(closer.scatter.get(key, 0.0))) for key, size in profile.spread.items()}
    return replace(
        profile,
        spread=spread,
        activation=closer.activation,
        gradient={**profile.gradient, **closer.gradient},
        params=params,
        gains=gains,
        correlation=closer.correlation,
        ways={**profile.ways, **closer.ways},
    )


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _integer(dtype: str) -> bool:
    return dtype.startswith(("int", "uint", "bool"))


def _decades(square: float) -> float:
    """log10 of the root of a mean square."""
    return 0.5 * math.log10(square) if square > 0 else (-math.inf if square == 0 or square < 0 else math.nan)


def correlation(table: Table) -> float:
    """Mean cosine between samples: E[x x′] over different samples against E[x²]."""
    sizes, same = _samples(table.dims)
    if not sizes or table.square <= 0:
        return 1.0
    _, different = patterns.joint(table.values[same], range(len(sizes)), sizes)
    return float(table.weights @ different) / table.square


@lru_cache(maxsize=4096)
def _samples(dims: Dims) -> tuple[tuple[int, ...], tuple[slice | int, ...]]:
    """Sizes of the axes that count samples, and the index of the patterns in which all other axes are the same."""
    axes = tables.layout_of(dims).axes
    others = [axis for axis, known in enumerate(axes) if not known.batch]
    return tuple(axis.size for axis in axes if axis.batch), patterns.shared(1 + len(axes), others)
