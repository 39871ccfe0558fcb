"""The prediction unit by unit, of a graph without norms whose weights are small enough to be followed one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gradlint.graph import Graph, Op
from gradlint.signal.spread import Spread
from gradlint.signal.unit_losses import LOSSES, decades
from gradlint.signal.unit_step import Beyond, Place, Step
from gradlint.signal.unit_steps import STEPS
from gradlint.signal.units import Units


@dataclass(frozen=True)
class Unitwise:
    """log10 RMS by value id and by parameter path, mean cosine between samples, and ops' (input, output) gradients."""

    activation: Mapping[int, float]
    gradient: Mapping[int, float]
    params: Mapping[str, float]
    correlation: Mapping[int, float]
    ways: Mapping[int, Mapping[int, float]]  # by value id: log10 RMS of the gradient that each op sends to it
    through: Mapping[int, float]  # by op index: decades that its first input's gradient has on its output's
    scatter: Mapping[int | str, float] = field(default_factory=dict)  # decades² that the size of one batch varies by


def followed(graph: Graph, loss: str, inputs: Mapping[int, tuple[float, float]]) -> Run | None:
    """The run through the graph and back, or None for a graph with an op, a size or a loss that is not followed.

    Without norms a deep net's samples draw together, and what decides is the way that their mean takes through the
    weights as they were drawn: moments over all weights miss it by √(5 Σ 1/n) of ln g² (research/signal.md §2).
    """
    run = Run(graph, inputs)
    try:
        run.forward()
        run.backward(loss)
    except (Beyond, np.linalg.LinAlgError):
        return None
    return run


@dataclass
class Run:
    """One walk through the graph and back; the input has the given mean and standard deviation at every sample."""

    graph: Graph
    inputs: Mapping[int, tuple[float, float]]
    known: dict[int, Units] = field(default_factory=dict)
    steps: dict[int, Step] = field(default_factory=dict)
    given: dict[int, Spread] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)  # values that are given, but not yet taken further back
    squares: dict[str, float] = field(default_factory=dict)
    gradient: dict[int, float] = field(default_factory=dict)
    through: dict[int, float] = field(default_factory=dict)
    ways: dict[int, dict[int, float]] = field(default_factory=dict)

    @property
    def source(self) -> int:
        """The input that is followed."""
        return self.graph.inputs[0]

    def forward(self) -> None:
        """Enter the law of every value. Raises Beyond where one is not followed."""
        if any(op.kind not in STEPS or len(op.outputs) != 1 for op in self.graph.ops):
            raise Beyond("an op without a step")
        data = [self.graph.values[value] for value in self.graph.inputs]
        if len(data) != 1 or not data[0].dtype.startswith("float") or len(data[0].shape) < 2:
            raise Beyond("inputs")
        mean, std = self.inputs.get(data[0].id, (0.0, 1.0))
        self.samples = data[0].shape[0]
        one = np.ones(1)
        self.known[data[0].id] = Units(mean * one, 0.0 * one, std**2 * one, 1)
        for op in self.graph.ops:
            self._step(op)

    def _step(self, op: Op) -> None:
        if not op.grad_enabled:
            raise Beyond("an op without a gradient")
        found = STEPS[op.kind](Place(self.graph, op, self.known, self.samples))
        self.steps[op.index] = found
        self.known[op.outputs[0]] = found.output

    def backward(self, loss: str) -> None:
        """Enter the gradient of every value and parameter."""
        value = next((v for v in self.graph.outputs if self.graph.values[v].requires_grad), None)
        if value is None or loss not in LOSSES or value not in self.known or self.known[value].flat:
            raise Beyond(loss)
        y, shape = self.known[value], self.graph.values[value].shape
        if y.uniform or shape[-1 if y.positions == 1 else 1] != len(y.mean):
            raise Beyond("an output of another layout")
        self._give(value, LOSSES[loss](y, self.samples))
        for op in reversed(self.graph.ops):
            arrived = self.given.get(op.outputs[0])
            if arrived is not None:
                self._back(op, arrived)

    def _back(self, op: Op, arrived: Spread) -> None:
        self.waiting.discard(op.outputs[0])
        arrived = arrived if self.waiting else arrived.condensed()
        size = decades(float(arrived.own.mean()))
        self.gradient[op.outputs[0]] = size
        into, squares = self.steps[op.index].back(arrived)
        for path, square in squares.items():
            self.squares[path] = self.squares.get(path, 0.0) + square
        for value, spread in into.items():
            self._give(value, spread)
            sent = decades(float(spread.own.mean()))
            self.ways.setdefault(value, {})[op.index] = sent
            self.through.setdefault(op.index, sent - size)

    def _give(self, value: int, spread: Spread) -> None:
        first = self.given.get(value)
        self.given[value] = spread if first is None else first + spread
        self.waiting.add(value)

    def found(self) -> Unitwise:
        """The sizes that were entered."""
        inputs = {v: decades(float(self.given[v].own.mean())) for v in self.graph.inputs if v in self.given}
        return Unitwise(
            activation={value: decades(units.square) for value, units in self.known.items()},
            gradient=self.gradient | inputs,
            params={path: decades(square) for path, square in self.squares.items()},
            correlation={value: units.correlation for value, units in self.known.items()},
            ways=self.ways,
            through=self.through,
        )
