"""Gradient clipping and weight decay, which bound what an explosion does to a training and leave its cause."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gradlint.config import Settings
from gradlint.finding import Fix
from gradlint.fix.candidate import Initialise
from gradlint.fix.training import STEPS
from gradlint.fix.trial import Laboratory, Trial
from gradlint.graph.ir import Graph
from gradlint.probe.trace import RATES
from gradlint.profile import Measurement

STUDY = "in our study of 24 failing nets neither clipping nor weight decay made one train"
CLIPPED = (
    "treats the symptom: it bounds one update but not the growth from layer to layer, and one probe cannot prove that "
    f"training then works ({STUDY})"
)
DECAYED = (
    "treats the symptom: {0} steps at a learning rate of {1:g} shrink every weight to {2:.2g} of its size, whatever it "
    f"has learned, and until then the gradient is as large as before ({STUDY})"
)
TOO_LARGE = (
    10.0  # a global norm that a clip at 1 is commonly set for (research/field.md §1c: GradientFlow, torch-audit)
)
FIRST = 0.9  # the share of their size that weights are shrunk to first, to see how fast the gradient falls with them …
TRIALS = 3  # … and how often what that foretells is corrected
OPTIMIZERS = {"adam": "torch.optim.AdamW", "sgd": "torch.optim.SGD"}


def symptoms(laboratory: Laboratory, repaired: Sequence[Trial]) -> tuple[Fix, ...]:
    """What is left to offer for an explosion beside its repairs, or without one."""
    graph, before = laboratory.graph, laboratory.found
    found = (clipping(graph, before, repaired), decay(laboratory))
    return tuple(fix for fix in found if fix is not None)


def clipping(graph: Graph, before: Trial, repaired: Sequence[Trial]) -> Fix | None:
    """Clipping at the gradient norm of the best repair, or at 1; None when the norm is not large or not finite."""
    norm = _norm(graph, before)
    if norm < TOO_LARGE or not math.isfinite(norm):
        return None
    bound = next((n for trial in repaired if 0.0 < (n := global_norm(graph, trial.measurement)) < norm), 1.0)
    return Fix(
        title=f"clip gradients: torch.nn.utils.clip_grad_norm_(model.parameters(), {_round(bound):g})",
        measured_before={"gradient norm": norm},
        measured_after={"gradient norm": _round(bound)},
        price=CLIPPED,
        symptomatic=True,
    )


def decay(laboratory: Laboratory) -> Fix | None:
    """The weight decay that brings the gradient norm below TOO_LARGE within a short training, if nothing is learned.

    A step at rate η multiplies every parameter by 1 - ηλ (Loshchilov & Hutter 2019, algorithm 2), so that after T steps
    a share c = exp(-ηλT) is left. The norm is measured with parameters at such shares, until one is small enough. None
    when it is not large, not finite, or does not fall with the parameters, as with norms between the layers.
    """
    graph, before = laboratory.graph, laboratory.attempt(())
    norm = math.inf if before is None else _norm(graph, before)
    share = _share(laboratory, norm) if TOO_LARGE <= norm < math.inf else None
    if share is None:
        return None
    optimizer, rate, steps = _schedule(laboratory.settings)
    rate_of_decay = -math.log(share[0]) / (rate * steps)
    return Fix(
        title=f"decay weights: {OPTIMIZERS[optimizer]}(model.parameters(), weight_decay={rate_of_decay:.2g})",
        measured_before={"gradient norm": norm},
        measured_after={"gradient norm": share[1]},
        price=DECAYED.format(steps, rate, share[0]),
        symptomatic=True,
    )


def _schedule(settings: Settings) -> tuple[str, float, int]:
    """The optimiser, rate and number of steps that the decay is meant for: Adam's where none is told."""
    optimizer = settings.optimizer if settings.optimizer in OPTIMIZERS else "adam"
    return optimizer, settings.rate or RATES[optimizer], settings.steps or STEPS


def _share(laboratory: Laboratory, norm: float) -> tuple[float, float] | None:
    """The share of their size at which the parameters give a norm below TOO_LARGE, and that norm; None without one.

    The norm is taken for a power of the share: of depth d it is about the d-th.
    """
    known, share = (1.0, norm), FIRST
    for _ in range(1 + TRIALS):
        measured = _shrunk(laboratory, share)
        if measured is None or not 0.0 < measured < known[1]:
            return None
        if measured < TOO_LARGE:
            return share, measured
        power = math.log(measured / known[1]) / math.log(share / known[0])
        known, share = (share, measured), share * (TOO_LARGE / 2.0 / measured) ** (1.0 / power)
    return None


def _shrunk(laboratory: Laboratory, share: float) -> float | None:
    params = laboratory.graph.params.values()
    steps = tuple(Initialise(param.path, "scale", share) for param in params if param.requires_grad)
    trial = laboratory.attempt(steps)
    return None if trial is None else _norm(laboratory.graph, trial)


def _norm(graph: Graph, trial: Trial) -> float:
    """The global norm of a trial, inf where that is not finite."""
    return global_norm(graph, trial.measurement) if trial.finite else math.inf


def global_norm(graph: Graph, measurement: Measurement) -> float:
    """The Euclidean norm of all parameter gradients; inf where one is not finite or beyond float64."""
    found = ((param.grad, math.prod(graph.params[path].shape)) for path, param in measurement.params.items())
    return math.sqrt(sum(_power(2.0 * grad) * size for grad, size in found if grad > -math.inf))


def _power(decades: float) -> float:
    return 10.0**decades if decades < 300 else math.inf


def _round(number: float) -> float:
    """One significant digit, as one writes a clip value."""
    return float(f"{number:.0e}")
