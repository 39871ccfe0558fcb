"""The ways that a gradient takes from the loss to a value: what each loses, and how they share it where they meet."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gradlint.graph.ir import Graph
from gradlint.graph.memo import remembered
from gradlint.profile import Profile
from gradlint.result import Ways


@dataclass(frozen=True)
class Step:
    """One consumer of a value: its op index, its share of the mean square that arrives, and its own ways to the loss.

    `decades` is the gain from the gradient at the consumer's output to what it sends to the value.
    """

    op: int
    share: float
    decades: float
    ways: Ways


@remembered
def steps(graph: Graph, profile: Profile) -> Mapping[int, tuple[Step, ...]]:
    """By value id, the consumers that a gradient reaches it from, the largest share first; an output has none.

    One pass from the loss back: nothing is enumerated. Shares take the gradients of consumers as independent.
    """
    found: dict[int, tuple[Step, ...]] = {}
    for value in [*(v for op in reversed(graph.ops) for v in op.outputs), *graph.inputs]:
        sent = {op: size for op, size in profile.ways.get(value, {}).items() if math.isfinite(size)}
        top = max(sent.values(), default=0.0)
        whole = sum(10 ** (2.0 * (size - top)) for size in sent.values())
        shares = {op: 10 ** (2.0 * (size - top)) / whole for op, size in sent.items()}
        known = [_step(graph, profile, found, op, size, shares[op]) for op, size in sent.items()]
        found[value] = tuple(sorted((step for step in known if step is not None), key=lambda step: -step.share))
    return found


def _step(
    graph: Graph, profile: Profile, found: Mapping[int, tuple[Step, ...]], op: int, size: float, share: float
) -> Step | None:
    """The consumer by its output with the largest gradient."""
    arrived = {value: profile.gradient.get(value, math.nan) for value in graph.ops[op].outputs}
    known = [value for value, decades in arrived.items() if math.isfinite(decades)]
    if not known:
        return None
    output = max(known, key=lambda value: arrived[value])
    return Step(op, share, size - arrived[output], _ways(found[output]))


def ways(graph: Graph, profile: Profile, value: int) -> Ways:
    """The accumulated log-gain of the ways from the loss to a value: along the strongest, and the bounds over all."""
    return _ways(steps(graph, profile).get(value, ()))


def ways_to_parameter(graph: Graph, profile: Profile, path: str) -> tuple[Ways, ...]:
    """The ways to every use of a parameter, in the order of the run: those to the output of the op that reads it."""
    return tuple(ways(graph, profile, op.outputs[0]) for op in graph.ops if path in op.params and op.outputs)


def _ways(known: tuple[Step, ...]) -> Ways:
    """Of a value with these consumers."""
    if not known:
        return Ways(0.0, 0.0, 0.0)
    strongest = known[0]
    return Ways(
        strongest.decades + strongest.ways.strongest,
        min(step.decades + step.ways.least for step in known),
        max(step.decades + step.ways.greatest for step in known),
        {step.op: step.share for step in known} if len(known) > 1 else {},
    )
