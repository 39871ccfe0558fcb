"""How a fault that one pass need not show is provoked, before and after a fix (after RANUM, Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gradlint.finding import Finding
from gradlint.fix.candidate import Candidate, Fuse, Score, Step, Stress, Swap, Witness

DISTINCT = 0.9  # share of units that differ, from which symmetry counts as broken
WIDER = 1.2  # how much wider an output's range must become
PROBABILITIES = frozenset({"sigmoid", "log_softmax"})  # outputs that losses of probabilities take
MORE_VARIED = 2.0  # how much less alike the units must become


@dataclass(frozen=True)
class Experiment:
    """Steps for a pair of runs without and with the fix, and what they are called in the fix's price.

    `better` compares the notes of the two runs; without it the first must not be finite and the second must be.
    `blind` asks instead whether the first loss becomes that of a blind guess.
    """

    steps: tuple[Step, ...]
    setting: str = ""
    better: Callable[[Mapping[str, float], Mapping[str, float]], bool] | None = None
    blind: bool = False

    @property
    def provokes(self) -> bool:
        """Whether the steps change what the model computes, so that its health has to be taken from another run."""
        return any(isinstance(step, Stress) for step in self.steps)


def experiment(finding: Finding) -> Experiment | None:
    """The experiment of a finding's cause, rule or family; None where the recorded run shows all."""
    ops = finding.ops or (() if finding.op is None else (finding.op,))
    keys = (finding.cause, finding.rule, finding.family)
    maker = next((EXPERIMENTS[key] for key in keys if key in EXPERIMENTS), None)
    return None if maker is None or not ops else maker(ops)


def experiments(finding: Finding, candidate: Candidate) -> tuple[Experiment | None, ...]:
    """The experiments of which one has to show what a candidate does for a finding: the finding's, or the candidate's.

    A function that takes the place of several is provoked by what goes into the first of them, another loss by none. An
    output that the loss is made for has a small derivative, which the loss makes up for: what tells is the first loss.
    """
    ends = [step.function for step in candidate.steps if isinstance(step, Swap)]
    fits = finding.family == "output" and len(ends) == len(candidate.steps) and set(ends) <= PROBABILITIES
    return (_experiment_of(finding, candidate), *([Experiment((), blind=True)] if fits else []))


def _experiment_of(finding: Finding, candidate: Candidate) -> Experiment | None:
    starts = dict.fromkeys(step.start for step in candidate.steps if isinstance(step, Fuse))
    if starts:
        return Experiment(tuple(Stress(op, "extreme") for op in starts), "shown with the logits of one sample at ±1000")
    if any(isinstance(step, Score) for step in candidate.steps):
        return Experiment((), blind=True)
    return experiment(finding)


def _symmetry(ops: tuple[int, ...]) -> Experiment:
    return Experiment(tuple(Witness(op, "distinct") for op in ops), better=_distinct)


def _zero(ops: tuple[int, ...]) -> Experiment:
    return Experiment(tuple(Stress(op, "zero") for op in ops), "shown with the argument of one sample set to 0")


def _overflow(ops: tuple[int, ...]) -> Experiment:
    return Experiment((Stress(ops[0], "high"),), "shown with a positive argument, 1000 times larger")


def _range(ops: tuple[int, ...]) -> Experiment:
    steps = (Stress(ops[0], "large"), Witness(ops[-1], "width"))
    return Experiment(steps, "range shown for arguments 1000 times larger", _wider)


def _correlation(ops: tuple[int, ...]) -> Experiment:
    return Experiment(tuple(Witness(op, "variety") for op in ops), better=_varied)


def _distinct(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    return before["distinct"] < DISTINCT <= after["distinct"]


def _varied(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    return after["variety"] > MORE_VARIED * before["variety"]


def _wider(before: Mapping[str, float], after: Mapping[str, float]) -> bool:
    return after["width"] > WIDER * before["width"]


EXPERIMENTS: Mapping[str, Callable[[tuple[int, ...]], Experiment]] = {
    "constant-init": _symmetry,
    "zero-init": _symmetry,
    "one-sided-init": _correlation,
    "log-of-zero": _zero,
    "log-of-probability": _zero,
    "root-at-zero": _zero,
    "division-by-zero": _zero,
    "clamp-after-exp": _overflow,
    "double-activation": _range,
}
