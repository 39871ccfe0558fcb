"""Where a model applies one weight step after step, and the gradient that arrives at each step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered
from gradlint.probe.health import GATED, STEPS
from gradlint.profile import Measurement
from gradlint_rules import passage


@dataclass(frozen=True)
class Recurrence:
    """One recurrence: its ops, what it is called, and log10 RMS of the gradient at each step, first step first."""

    ops: tuple[int, ...]
    name: str
    steps: tuple[float, ...]

    @property
    def grows(self) -> bool:
        """Whether the gradient is larger at the first quarter of the steps than at the last one."""
        quarter = len(self.steps) // 4
        return max(self.steps[:quarter]) > max(self.steps[-quarter:])


@remembered
def recurrences(graph: Graph, probe: Measurement) -> tuple[Recurrence, ...]:
    """Recurrent ops and loops unrolled by hand, without gates, of enough steps to be judged."""
    return (*_fused(graph, probe), *_unrolled(graph, probe))


def _fused(graph: Graph, probe: Measurement) -> Iterator[Recurrence]:
    for index, steps in probe.through_time.items():
        op = graph.ops[index]
        if op.function not in GATED and len(steps) >= STEPS:
            yield Recurrence((index,), op.function, steps)


def _unrolled(graph: Graph, probe: Measurement) -> Iterator[Recurrence]:
    """Ops that read one hidden weight, each of them what the one before made."""
    users: dict[str, list[Op]] = {}
    for op in graph.ops:
        for path in passage.weights(graph).get(op.index, ())[-1:]:
            users.setdefault(path, []).append(op)
    for path, ops in users.items():
        chain = [op for op in ops if op.function not in GATED]
        steps = [probe.profile.gradient.get(op.outputs[0]) for op in chain]
        known = tuple(step for step in steps if step is not None)
        if len(chain) >= STEPS and len(known) == len(chain) and _is_ungated_chain(graph, chain):
            yield Recurrence(tuple(op.index for op in chain), f"loop over {path}", known)


def _is_ungated_chain(graph: Graph, chain: list[Op]) -> bool:
    """Whether each op depends on the one before, and no product of two activations lies between the first two."""
    between = _between(graph, chain[0], chain[1])
    products = [op for op in between if op.kind == "mul" and len(set(graph.data_inputs(op))) > 1]
    return bool(between) and not products and all(_between(graph, a, b) for a, b in pairwise(chain))


def _between(graph: Graph, first: Op, last: Op) -> list[Op]:
    """The ops on a way from the first to the last, the last included; empty when none leads there."""
    made, on = set(first.outputs), []
    for op in graph.ops[first.index + 1 : last.index + 1]:
        if made.intersection(graph.data_inputs(op)):
            made.update(op.outputs)
            on.append(op)
    return on if on and on[-1].index == last.index else []
