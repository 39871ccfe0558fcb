"""Fixes put to the test of a short training: the model as it is and with a fix, on the same data, each at its rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from gradlint.config import LOSSES, Settings
from gradlint.error import GradlintError
from gradlint.finding import Finding, Fix, Trained
from gradlint.fix.candidate import Step
from gradlint.fix.interventions import apply
from gradlint.fix.rates import at_best_rate
from gradlint.fix.trial import scored
from gradlint.graph.ir import Graph
from gradlint.probe import Training, train
from gradlint.profile import Trace

if TYPE_CHECKING:
    from gradlint.load.model import LoadedModel

STEPS = 200  # what most of the study's nets that train at all need to show it (research/signal.md §5)
OPTIMIZERS = ("sgd", "adam")
SHARE = 0.5  # of the target's time limit, for all trainings of a model
FIXES = 2  # fixes of a model that are trained: more findings than that seldom have different ones


@dataclass
class School:
    """Trains one model with steps applied, or with none, until its time is spent; nothing is trained twice."""

    loaded: LoadedModel
    graph: Graph
    settings: Settings
    loss: str
    versions: int = 1 + FIXES  # that share the time
    runs: dict[tuple[str, tuple[Step, ...]], Trace | None] = field(default_factory=dict)

    def compare(self, steps: tuple[Step, ...]) -> tuple[Trained, ...]:
        """Both losses with each optimizer; nothing for one with which either version cannot be trained."""
        return contrast(self, (), self, steps)

    def trained(self, optimizer: str, steps: tuple[Step, ...]) -> Trace | None:
        """The run with these steps applied; None when the model cannot be trained so."""
        key = optimizer, steps
        if key not in self.runs:
            self.runs[key] = self._run(optimizer, steps)
        return self.runs[key]

    def _run(self, optimizer: str, steps: tuple[Step, ...]) -> Trace | None:
        settings, loss = self.settings, scored(steps, self.loss)
        training = Training(
            settings.steps or STEPS,
            optimizer,
            settings.rate,
            settings.seed,
            settings.device,
            loss if loss in LOSSES or ":" in loss else None,
            SHARE * settings.timeout / (len(OPTIMIZERS) * self.versions),
            settings.memory,
        )

        def run(asked: Training) -> Trace:
            applied = apply(self.graph, steps, settings.seed, lasting=True)  # anew: some steps act once
            return train(
                self.loaded,
                self.graph,
                asked,
                interventions=applied.interventions,
                edits=applied.edits,
                added=applied.learned,
            )

        try:
            return at_best_rate(training, run)
        except GradlintError:  # the fix fits the recorded pass only: another batch takes another way
            return None


def contrast(school: School, steps: tuple[Step, ...], other: School, others: tuple[Step, ...]) -> tuple[Trained, ...]:
    """Both losses, where the version with the fix may be another model."""
    found = []
    for optimizer in OPTIMIZERS:
        before, after = school.trained(optimizer, steps), other.trained(optimizer, others)
        if before is not None and after is not None:
            found.append(_compared(before, after))
    return tuple(found)


def trained(school: School, finding: Finding, steps: Sequence[tuple[Step, ...]]) -> Finding:
    """The finding with the best of its fixes trained; `steps` are those of its fixes, in their order."""
    if not steps or len({key for _, key in school.runs} | {(), steps[0]}) > 1 + FIXES:
        return finding
    first: Fix = replace(finding.fixes[0], trained=school.compare(steps[0]))
    return replace(finding, fixes=(first, *finding.fixes[1:]))


def _compared(before: Trace, after: Trace) -> Trained:
    """Both curves, as long as the shorter one where time ran out."""
    lengths = [len(trace.losses) for trace in (before, after) if trace.finite]
    length = min(lengths, default=max(len(before.losses), len(after.losses)))
    times = [trace.seconds / len(trace.losses) for trace in (before, after) if trace.losses]
    return Trained(
        optimizer=before.optimizer,
        rate=after.rate,
        rate_before=None if before.rate == after.rate else before.rate,
        data=before.data,
        before=before.losses[:length],
        after=after.losses[:length],
        step_time=times[1] / times[0] if len(times) == 2 and times[0] else None,
        stopped=(before.stopped, after.stopped),
    )
