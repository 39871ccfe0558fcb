"""One candidate tried: the recorded run again with the candidate's steps, measured and judged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.fix.candidate import Score, Skip, Step
from gradlint.fix.interventions import apply
from gradlint.graph.ir import Graph
from gradlint.probe import measure
from gradlint.probe.health import Health, judge
from gradlint.profile import Measurement

if TYPE_CHECKING:
    from gradlint.load.model import LoadedModel

STATES = ("healthy", "unknown", "warning", "error")
UNSCORED = "none"  # what a measurement calls the loss of an output that none was found for
SECONDS = 10.0  # wall clock for all trials of one model …
LONGEST = 4.0  # … or so many times its longest trial …
SHARE = 0.25  # … but no more than this of the target's time limit


@dataclass(frozen=True)
class Trial:
    """What was measured with steps applied, or with none.

    `notes` is what witnesses among them saw, `scales` what the run multiplied weights with, by their paths.
    """

    measurement: Measurement
    health: Health
    notes: Mapping[str, float] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def finite(self) -> bool:
        """Whether neither the forward nor the backward pass met NaN or Inf."""
        return self.measurement.nonfinite_op is None and self.measurement.nonfinite_gradient_op is None

    @property
    def rank(self) -> int:
        """The place of the health's state in STATES, where 0 is healthy; beyond them for a run that is not finite."""
        return STATES.index(self.health.state) if self.finite else len(STATES)


def scored(steps: Sequence[Step], loss: str) -> str:
    """The loss that the steps put in the place of this one."""
    return next((step.loss for step in steps if isinstance(step, Score)), loss)


def bypassed(steps: Sequence[Step]) -> frozenset[int]:
    """The ops that skips among the steps lead the signal past, from the first to the last op of each."""
    return frozenset(op for step in steps if isinstance(step, Skip) for op in range(step.start, step.end + 1))


@dataclass
class Laboratory:
    """Tries steps on one model at one seed, until its time is spent; nothing is tried twice."""

    loaded: LoadedModel
    graph: Graph
    settings: Settings
    found: Trial  # what the findings were judged by
    before: Trial | None = None  # the model as it is at the trials' seed, where that was run
    spent: float = 0.0
    longest: float = 0.0
    trials: dict[tuple[Step, ...], Trial | None] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether there is time for another trial."""
        return self.spent < min(max(SECONDS, LONGEST * self.longest), SHARE * self.settings.timeout)

    def attempt(self, steps: tuple[Step, ...]) -> Trial | None:
        """The trial of these steps; None when the model cannot run with them or no time is left."""
        if not steps and self.before is not None:
            return self.before
        if steps not in self.trials and self.open:
            started = time.perf_counter()
            self.trials[steps] = self._run(steps)
            taken = time.perf_counter() - started
            self.spent, self.longest = self.spent + taken, max(self.longest, taken)
        return self.trials.get(steps)

    def _run(self, steps: Sequence[Step]) -> Trial | None:
        seed, loss = self.settings.seed, scored(steps, self.found.measurement.loss)
        applied = apply(self.graph, steps, seed)
        try:
            _, measured = measure(
                self.loaded,
                settings=self.settings,
                graph=self.graph,
                interventions=applied.interventions,
                edits=applied.edits,
                seed=seed,
                loss=None if loss == UNSCORED else loss,
            )
        except GradlintError:  # a norm over one position, a loss that does not take the new range: it does not fit
            return None
        health = judge(self.graph, measured, around=bypassed(steps))
        return Trial(measured, health, applied.notes, applied.scales)
