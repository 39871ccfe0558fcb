"""Where the static prediction and the probe part by more than the prediction says it may be off."""

from __future__ import annotations

import math

from gradlint.graph import Graph, Op
from gradlint.profile import Profile

LEAST = 0.5  # decades: one batch of the probe is itself off by 0.1–0.3 in small tensors
DEVIATIONS = 3.0  # of the prediction's stated spread


def disagreement(graph: Graph, predicted: Profile, measured: Profile) -> tuple[str, ...]:
    """One line on the op nearest the loss whose gradient the two disagree about, and how many further ones; or none.

    The gradient is followed from the loss, so what lies before that op is off because it is.
    """
    compared = [(op, apart) for op in graph.ops for apart in [_apart(op, predicted, measured)] if apart is not None]
    beyond = [(op, apart) for op, apart in compared if apart[0] > apart[1]]
    if not beyond:
        return ()
    op, (gap, limit) = beyond[-1]
    value = op.outputs[0]
    sizes = f"predicted {10 ** predicted.gradient[value]:.2g}, measured {10 ** measured.gradient[value]:.2g}"
    return (
        f"prediction and measurement part at {_place(op)}: gradient RMS {sizes}, {gap:.1f} decades apart where"
        f" {limit:.1f} are stated; so do {len(beyond) - 1} of {len(compared) - 1} other operations",
    )


def _apart(op: Op, predicted: Profile, measured: Profile) -> tuple[float, float] | None:
    """|log10 predicted − log10 measured| of the gradient at the op's output, and how much of it is stated."""
    value = op.outputs[0] if op.outputs else -1
    first, second = predicted.gradient.get(value), measured.gradient.get(value)
    if first is None or second is None or not (math.isfinite(first) and math.isfinite(second)):
        return None
    return abs(first - second), max(LEAST, DEVIATIONS * predicted.spread.get(value, 0.0))


def _place(op: Op) -> str:
    path = op.module_path or "the model"
    line = f" ({op.span.path}:{op.span.line})" if op.span is not None else ""
    return f"{path}, {op.function or op.kind}{line}"
