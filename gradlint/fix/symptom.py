"""Gradient clipping, which bounds what an explosion does to one update and leaves its cause."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradlint.finding import Fix
from gradlint.fix.trial import Trial
from gradlint.graph.ir import Graph
from gradlint.profile import Measurement

PRICE = (
    "treats the symptom: it bounds one update but not the growth from layer to layer, and one probe cannot prove that "
    "training then works (in our study of 24 failing nets neither clipping nor weight decay made one train)"
)
TOO_LARGE = (
    10.0  # a global norm that a clip at 1 is commonly set for (research/field.md §1c: GradientFlow, torch-audit)
)


def clipping(graph: Graph, before: Trial, repaired: Sequence[Trial]) -> Fix | None:
    """Clipping at the gradient norm of the best repair, or at 1; None when the norm is not large or not finite."""
    norm = global_norm(graph, before.measurement)
    if not before.finite or not math.isfinite(norm) or norm < TOO_LARGE:
        return None
    bound = next((n for trial in repaired if 0.0 < (n := global_norm(graph, trial.measurement)) < norm), 1.0)
    return Fix(
        title=f"clip gradients: torch.nn.utils.clip_grad_norm_(model.parameters(), {_round(bound):g})",
        measured_before={"gradient norm": norm},
        measured_after={"gradient norm": _round(bound)},
        price=PRICE,
        symptomatic=True,
    )


def global_norm(graph: Graph, measurement: Measurement) -> float:
    """The Euclidean norm of all parameter gradients; inf where one is not finite or beyond float64."""
    found = ((param.grad, math.prod(graph.params[path].shape)) for path, param in measurement.params.items())
    return math.sqrt(sum(_power(2.0 * grad) * size for grad, size in found if grad > -math.inf))


def _power(decades: float) -> float:
    return 10.0**decades if decades < 300 else math.inf


def _round(number: float) -> float:
    """One significant digit, as one writes a clip value."""
    return float(f"{number:.0e}")
