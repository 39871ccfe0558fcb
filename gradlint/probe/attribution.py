"""Where the signal is lost or gained, and what each op on the way costs: the chain rule with its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from gradlint.finding import Factor
from gradlint.graph.ir import Graph, Op
from gradlint.probe.route import Route

SHARE = 0.9  # of the decades that the whole route loses or gains

LABELS: Mapping[str, str] = {
    "linear": "W",
    "conv": "W",
    "matmul": "W",
    "embedding": "W",
    "recurrent": "recurrence",
    "norm": "norm",
    "softmax": "softmax",
    "attention": "attention",
    "add": "merge",
    "concat": "merge",
    "mul": "gate",
    "pool": "pool",
    "reduce": "pool",
    "dropout": "dropout",
}


@dataclass(frozen=True)
class Attribution:
    """A stretch of a route: its ops first to last, the decades between its ends, and one factor an op.

    The factors add up to `decades` exactly. `total` is the change over the whole route. Decades are negative where the
    signal gets smaller in its own direction: a gradient from the output back, an activation from the input on.
    """

    ops: tuple[int, ...]
    decades: float
    total: float
    factors: tuple[Factor, ...]


def gradient(graph: Graph, route: Route, sizes: Mapping[int, float]) -> Attribution | None:
    """The shortest stretch with SHARE of what the gradient loses or gains on the route, from log10 RMS by value id."""
    known = [(op, value) for op, value in zip(route.ops, route.values, strict=True) if value in sizes]
    steps = [(graph.ops[op], sizes[before] - sizes[value]) for (_, before), (op, value) in pairwise(known)]
    return _attribute(steps)


def activation(graph: Graph, route: Route, sizes: Mapping[int, float]) -> Attribution | None:
    """The same for the activation, from the input on."""
    known = [(op, value) for op, value in zip(route.ops, route.values, strict=True) if value in sizes]
    steps = [(graph.ops[op], sizes[value] - sizes[before]) for (_, before), (op, value) in pairwise(known)]
    return _attribute(steps)


def label(op: Op) -> str:
    """What the factor of an op is called: "σ′(z)" for an activation, "W" for a weight, "norm", "merge"."""
    if op.kind in ("activation", "elementwise"):
        return f"{'σ' if op.function == 'sigmoid' else op.function}′(z)"
    return LABELS.get(op.kind, op.kind)


def shortest(changes: list[float], share: float = SHARE) -> tuple[int, int]:
    """Start and end (exclusive) of the shortest run of changes that sums to at least `share` of all of them.

    Of runs of one length the one that sums to most; an infinite change is a run of its own.
    """
    total = sum(changes)
    if not math.isfinite(total):
        first = next(i for i, change in enumerate(changes) if not math.isfinite(change))
        return first, first + 1
    sign = math.copysign(1.0, total)
    sums = [0.0]
    for change in changes:
        sums.append(sums[-1] + sign * change)
    for length in range(1, len(changes) + 1):
        reach, start = max((sums[i + length] - sums[i], -i) for i in range(len(changes) - length + 1))
        if reach >= share * sums[-1] - 1e-9:
            return -start, -start + length
    return 0, len(changes)


def _attribute(steps: list[tuple[Op, float]]) -> Attribution | None:
    # From one zero (or one infinity) to the next nothing more is lost.
    changes = [0.0 if math.isnan(change) else change for _, change in steps]
    if not changes:
        return None
    start, end = shortest(changes)
    stretch = steps[start:end]
    factors = tuple(
        Factor(op.index, op.module_path, label(op), change)
        for (op, _), change in zip(stretch, changes[start:end], strict=True)
    )
    return Attribution(
        ops=tuple(op.index for op, _ in stretch),
        decades=sum(factor.decades for factor in factors),
        total=sum(changes),
        factors=factors,
    )
