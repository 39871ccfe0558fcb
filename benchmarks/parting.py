"""Where prediction and measurement part: both for the output of every op of one network, in decades of RMS.

    python benchmarks/parting.py NET [--passes N]

NET is a case of benchmarks/prediction.py ("mobilenetv2_100", "relu d16") or an architecture of the zoo ("hf/swinv2"),
which must call the same ops in every run. For every op: the measured activation and
gradient of its output and predicted minus measured; for its parameters predicted minus measured. Read the gradients
from the bottom: where the error of an op's input and of its output differ, its transfer function is off.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:1] = [str(ROOT), str(ROOT / "rules"), str(ROOT / "tests" / "zoo"), str(ROOT / "benchmarks")]

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from benchmarks import coverage, prediction
from gradlint.capture import capture, run
from gradlint.capture.structure import flatten
from gradlint.config import Settings
from gradlint.graph import Graph
from gradlint.load.inputs import feed
from gradlint.signal import predict

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Subject:
    """A network in train mode, what it is fed by the number of the pass, and what its output is differentiated by."""

    model: nn.Module
    loss: str
    draw: Callable[[int], Arguments]


def named(name: str) -> Subject | None:
    """The network of this name."""
    if "/" in name:
        return from_zoo(name)
    cases = (case for family in prediction.FAMILIES.values() for case in family())
    case = next((case for case in cases if case.name == name), None)
    if case is None:
        return None
    return Subject(
        case.build().train(), case.loss, lambda seed: ((case.draw(torch.Generator().manual_seed(seed)),), {})
    )


def from_zoo(name: str) -> Subject | None:
    """An architecture of the zoo, fed what gradlint finds for it."""
    import build

    if name not in build.names():
        return None
    model = build.build(name)
    given = feed(model, Settings())
    graph, _ = capture(model, given.args, given.kwargs)
    return Subject(model, coverage.loss_of(graph), given.draw)


def objective(loss: str, output: Any, generator: torch.Generator) -> Tensor:
    """What is differentiated: the first output with a gradient, by itself or weighed at random."""
    first = next(tensor for _, tensor in flatten(output) if tensor.requires_grad)
    return first if loss == "own" else prediction.objective(loss, first, generator)


class Watcher:
    """Sums of squares of every floating output and of the gradient that arrives at it, by value id."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.activation: dict[int, list[float]] = {}
        self.gradient: dict[int, list[float]] = {}

    def on_output(self, index: int, outputs: tuple[torch.Tensor, ...]) -> None:
        for position, tensor in enumerate(outputs):
            if tensor.is_floating_point() and tensor.numel():
                value = self.graph.ops[index].outputs[position]
                self.activation.setdefault(value, []).append(float((tensor.detach() ** 2).mean()))
                if tensor.grad_fn is not None:
                    tensor.grad_fn.register_prehook(partial(self._arrived, value, tensor.output_nr))

    def _arrived(self, value: int, number: int, gradients: tuple[torch.Tensor | None, ...]) -> None:
        gradient = gradients[number]
        if gradient is not None:
            self.gradient.setdefault(value, []).append(float((gradient**2).mean()))


def in_double(entry: Any) -> Any:
    """A float tensor in float64, anything else as it is."""
    return entry.double() if isinstance(entry, Tensor) and entry.is_floating_point() else entry


def decades(squares: list[float] | None) -> float:
    """log10 of the root of the mean of these mean squares; NaN where there are none."""
    mean = sum(squares) / len(squares) if squares else 0.0
    return 0.5 * math.log10(mean) if mean > 0 else math.nan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--passes", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    subject = named(options.net)
    if subject is None:
        parser.error(f"no network is named {options.net}")
    args, kwargs = subject.draw(1)
    graph, _ = capture(subject.model, args, kwargs)
    profile = predict(graph, subject.loss).profile
    watcher, model = Watcher(graph), subject.model.double()
    generator = torch.Generator().manual_seed(0)
    params: dict[str, list[float]] = {}
    for seed in range(2, 2 + options.passes):
        args, kwargs = tree_map(in_double, subject.draw(seed))
        model.zero_grad(set_to_none=True)
        output = run(model, args, kwargs, record=False, observer=watcher).output
        objective(subject.loss, output, generator).backward()
        for name, param in model.named_parameters():
            if param.grad is not None:
                params.setdefault(name, []).append(float((param.grad**2).mean()))
    print(
        f"{'op':>4} {'kind':<22} {'shape':<18} {'forward':>8} {'off':>7} {'backward':>8} {'off':>7}  path, parameters"
    )
    for op in graph.ops:
        for value in op.outputs:
            if value not in watcher.activation:
                continue
            forward, backward = decades(watcher.activation[value]), decades(watcher.gradient.get(value))
            off = profile.activation.get(value, math.nan) - forward, profile.gradient.get(value, math.nan) - backward
            found = [(graph.values[v].name, params.get(graph.values[v].name)) for v in op.inputs]
            own = [
                f"{name.rpartition('.')[2]} {profile.params.get(name, math.nan) - decades(squares):+.3f}"
                for name, squares in found
                if squares
            ]
            print(
                f"{op.index:>4} {op.kind + ' ' + op.function:<22.22} {graph.values[value].shape!s:<18}"
                f" {forward:>8.3f} {off[0]:>+7.3f} {backward:>8.3f} {off[1]:>+7.3f}  {op.module_path} {' '.join(own)}"
            )


if __name__ == "__main__":
    main()
