"""One candidate tried: the recorded run again with the candidate's steps, measured and judged."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.finding import Claim, Finding, Number
from gradlint.fix.candidate import Candidate, Step
from gradlint.fix.interventions import interventions
from gradlint.graph.ir import Graph
from gradlint.load.model import LoadedModel
from gradlint.probe import measure
from gradlint.probe.health import Health, judge
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES

UNITS = ("dead-share", "saturated-share", "constant-share")
HALF = 0.5
STATES = ("healthy", "unknown", "warning", "error")


@dataclass(frozen=True)
class Trial:
    """What was measured with a candidate's steps applied, or with none."""

    measurement: Measurement
    health: Health

    @property
    def rank(self) -> int:
        """The place of the health's state in STATES: 0 is healthy."""
        return STATES.index(self.health.state)

    @property
    def finite(self) -> bool:
        """Whether neither the forward nor the backward pass met NaN or Inf."""
        return self.measurement.nonfinite_op is None and self.measurement.nonfinite_gradient_op is None


@dataclass
class Laboratory:
    """Tries candidates on one model at one seed until `seconds` are spent; none is tried twice."""

    loaded: LoadedModel
    graph: Graph
    settings: Settings
    before: Trial
    seconds: float
    spent: float = 0.0
    trials: dict[tuple[Step, ...], Trial | None] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether there is time for another trial."""
        return self.spent < self.seconds

    def attempt(self, candidate: Candidate) -> Trial | None:
        """The trial of a candidate; None when the model cannot run with it or no time is left."""
        if candidate.steps not in self.trials and self.open:
            started = time.perf_counter()
            self.trials[candidate.steps] = self._run(candidate.steps)
            self.spent += time.perf_counter() - started
        return self.trials.get(candidate.steps)

    def _run(self, steps: Sequence[Step]) -> Trial | None:
        seed = self.settings.seed
        changes, edits = interventions(self.graph, steps, seed)
        try:
            _, measured = measure(
                self.loaded,
                settings=self.settings,
                graph=self.graph,
                interventions=changes,
                edits=edits,
                seed=seed,
            )
        except (
            GradlintError
        ):  # a norm over one position, a loss that does not take the new range: the change does not fit
            return None
        return Trial(measured, judge(self.graph, measured))


def claim_of(graph: Graph, finding: Finding) -> Claim | None:
    """What a fix must refute: the finding's claim, or for a measured share of units that at most half stay so."""
    if finding.claim is not None:
        return finding.claim
    name = next((name for name in finding.measured if name in UNITS), None)
    return None if name is None else Claim(name, finding.ops or _place(finding), HALF, "above")


def value(graph: Graph, measurement: Measurement, claim: Claim) -> float | None:
    """The claim's quantity in a measurement."""
    return QUANTITIES[claim.quantity].function(graph, measurement, claim.subject)


def numbers(graph: Graph, trial: Trial, finding: Finding, weakest: str) -> dict[str, Number]:
    """The finding's measured quantities as this trial shows them, under the same names, and the state of the health.

    `weakest` is the parameter that sets m in the unchanged model, which "relative-gradient" is about without a claim.
    """
    claim, found = claim_of(graph, finding), dict[str, float | None]()
    for name in dict.fromkeys([*([] if claim is None else [claim.quantity]), *finding.measured]):
        own = claim is not None and claim.quantity == name
        subject = claim.subject if claim is not None and own else _subject(graph, finding, name, weakest)
        if name in QUANTITIES and subject:
            found[name] = QUANTITIES[name].function(graph, trial.measurement, subject)
    if "relative-gradient" not in found and trial.health.m is not None:
        found["relative-gradient"] = trial.health.m
    return {**{name: number for name, number in found.items() if number is not None}, "health": trial.health.state}


def _subject(graph: Graph, finding: Finding, name: str, weakest: str) -> tuple[int | str, ...]:
    """What a quantity that a rule printed is about: the stretch's ends, its ops, the weakest weight, or the output."""
    ops = finding.ops or _place(finding)
    if name in UNITS:
        return ops
    if name in ("gradient-change", "activation-change") and ops:
        before = graph.data_inputs(graph.ops[ops[0]])
        return (before[0], graph.ops[ops[-1]].outputs[0]) if before else ()
    if name == "relative-gradient":
        return (weakest,) if weakest else ()
    return graph.outputs[:1] if name in ("activation-size", "output-spread", "loss-above-chance") else ()


def _place(finding: Finding) -> tuple[int, ...]:
    return () if finding.op is None else (finding.op,)
