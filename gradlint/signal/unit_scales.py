"""A batch of several scales: where φ makes large samples grow faster than small ones, one scale is not all."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from gradlint.graph import Graph
from gradlint.signal.doubt import DECADE, growth
from gradlint.signal.patterns import Array
from gradlint.signal.scalar import scalar_function
from gradlint.signal.sway import LARGEST, sampling
from gradlint.signal.unit_run import Run, Unitwise, followed
from gradlint.signal.units import Units

Inputs = Mapping[int, tuple[float, float]]
Key = TypeVar("Key", int, str)

STEP = 0.1  # relative step of the input's variance at which its growth is taken
UNSTABLE = 1.25  # d ln E[x²] per d ln of the input's energy, up to which one scale stands for all
NODES = np.linspace(-3.0, 3.0, 11)  # of the log energy, in standard deviations: a batch has few samples beyond
WEIGHTS = np.exp(-0.5 * NODES**2) / np.exp(-0.5 * NODES**2).sum()
CLOSER = np.exp(-0.5 * (NODES / 0.8) ** 2) / np.exp(-0.5 * (NODES / 0.8) ** 2).sum()


def unitwise(graph: Graph, loss: str, inputs: Inputs) -> Unitwise | None:
    """The prediction unit by unit, over the scales of the samples where they part ways; None where there is none."""
    run = followed(graph, loss, inputs)
    if run is None or not _suspect(run):
        return None if run is None else run.found()
    spread = _spread(run)
    if spread == 0.0:
        return run.found()
    energies = np.exp(math.sqrt(spread) * NODES)
    runs = [followed(graph, loss, _scaled(run, energy)) for energy in energies / float(energies @ WEIGHTS)]
    found = [other.found() for other in runs if other is not None]
    return blended(found, run.samples) if len(found) == len(runs) else run.found()


def _suspect(run: Run) -> bool:
    """Whether the activations could make an energy grow by more than `UNSTABLE`, each from its input's energy alone."""
    total = 1.0
    for op in run.graph.ops:
        function = scalar_function(op.function, op.attrs) if op.kind == "activation" else None
        if function is None or function.slopes is not None:
            continue
        total *= max(growth(function, 0.0, run.known[op.inputs[0]].square), 1.0)
    return total > UNSTABLE


def _spread(run: Run) -> float:
    """Variance of the log energy of the samples as if all of it were there at the input; 0 where it hardly grows.

    What k units of an activation add, Var φ²/(k E[φ²]²), has grown by less than what was there before.
    """
    other = Run(run.graph, _scaled(run, 1.0 + STEP))
    other.forward()
    grown = {value: _growth(units, other.known[value]) for value, units in run.known.items()}
    if max(grown.values()) < UNSTABLE:
        return 0.0
    total = 2.0 / math.prod(run.graph.values[run.source].shape[1:])
    for op in run.graph.ops:
        function = scalar_function(op.function, op.attrs) if op.kind == "activation" else None
        if function is None:
            continue
        x, y = run.known[op.inputs[0]], run.known[op.outputs[0]]
        noise = sampling(function, 0.0, x.square, float(len(x.mean) * x.positions)) * (1.0 - y.correlation**2)
        total += noise / max(grown[op.outputs[0]], 1.0) ** 2
    return min(total, LARGEST)


def _growth(first: Units, second: Units) -> float:
    if not (first.square > 0.0 and math.isfinite(first.square) and second.square > 0.0):
        return 1.0
    return math.log(second.square / first.square) / math.log(1.0 + STEP)


def _scaled(run: Run, energy: float) -> Inputs:
    mean, std = run.inputs.get(run.source, (0.0, 1.0))
    return {**run.inputs, run.source: (mean * math.sqrt(energy), std * math.sqrt(energy))}


def blended(parts: Sequence[Unitwise], samples: int) -> Unitwise:
    """The mean squares over samples of these scales, and how far a batch of this many samples is from them."""
    scatter: dict[int | str, float] = {}

    def mean(tables: Sequence[Mapping[Key, float]], *, kept: bool = False) -> dict[Key, float]:
        sizes = np.array([[table[key] for table in tables] for key in tables[0]]).reshape(len(tables[0]), -1)
        found, variance = _over_scales(sizes, samples)
        if kept:
            scatter.update(zip(tables[0], variance.tolist(), strict=True))
        return dict(zip(tables[0], found.tolist(), strict=True))

    activation = mean([part.activation for part in parts])
    return Unitwise(
        activation,
        mean([part.gradient for part in parts], kept=True),
        mean([part.params for part in parts], kept=True),
        {value: _correlation(parts, value, activation[value]) for value in activation},
        {value: mean([part.ways[value] for part in parts]) for value in parts[0].ways},
        mean([part.through for part in parts]),
        scatter,
    )


def _over_scales(sizes: Array, samples: int) -> tuple[Array, Array]:
    """log10 RMS over the scales (values, scales), and the variance in decades² of what a batch shows of it.

    Few large samples make most of the mean, and how far the scales lie apart is known to a fifth.
    """
    top = sizes.max(1, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0.0)
    squares = 10.0 ** (2.0 * (sizes - top[:, None]))
    level, closer = np.maximum(squares @ WEIGHTS, 1e-300), np.maximum(squares @ CLOSER, 1e-300)
    drawn = np.log1p(np.maximum(squares**2 @ WEIGHTS / level**2 - 1.0, 0.0) / samples)
    return top + 0.5 * np.log10(level), DECADE**2 * drawn + (0.5 * np.log10(level / closer)) ** 2


def _correlation(parts: Sequence[Unitwise], value: int, size: float) -> float:
    """Mean cosine between samples whose scales are independent."""
    shared = sum(
        weight * math.sqrt(max(part.correlation[value], 0.0)) * 10.0 ** (part.activation[value] - size)
        for part, weight in zip(parts, WEIGHTS.tolist(), strict=True)
        if math.isfinite(part.activation[value]) and math.isfinite(size)
    )
    return min(float(shared) ** 2, 1.0)
