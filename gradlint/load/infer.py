"""Finding inputs that a model accepts: propose, run, read the refusal, repair, retry."""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from torch import nn

from gradlint.load.feed_plan import Plan
from gradlint.load.feed_trial import Trial, attempt
from gradlint.load.infer_context import Context
from gradlint.load.infer_layers import device_of
from gradlint.load.infer_repair import Broken, Change, History, structural
from gradlint.load.infer_text import textual

REAL_SECONDS = 1.5
"""After this much time in real runs, slow ones go on on meta, whose first kernel imports for 1.0 to 1.4 s."""

HEAVY = 50_000_000
"""Parameters from which plans are tried on meta first: one real run would take seconds."""

LARGE_INPUT = 2**21
"""Numbers in the inputs from which a plan is tried on meta first."""

COSTLY_INPUT = 2**18
"""Numbers in the inputs from which two samples are tried in place of the whole batch: the probe runs that anyway."""

FEW = 2

MOST_SECONDS = 8.0
MOST_BYTES = 2 * 2**30
MOST_ELEMENTS = 2**25


def affordable(trial: Trial) -> bool:
    """Whether the same run for real would take few seconds and little memory."""
    return trial.seen.cost.seconds <= MOST_SECONDS and trial.seen.cost.bytes <= MOST_BYTES


def _fewer(plan: Plan) -> Plan | None:
    """The plan with two samples, where every input has the same number of more."""
    leaves = plan.leaves()
    sizes = {plan.shape(guess)[0] if guess.axes else 0 for guess in leaves.values()}
    if len(sizes) != 1 or min(sizes) <= FEW:
        return None
    for path, guess in leaves.items():
        plan = plan.put(path, replace(guess, axes=(FEW, *guess.axes[1:])))
    return plan


def _beyond_meta(trial: Trial) -> bool:
    """Whether the run was refused for want of numbers, not for its inputs."""
    return trial.refusal is not None and "meta" in trial.refusal.text.lower()


@dataclass(order=True)
class Candidate:
    """A plan to try, cheapest first; `calls` is how far the run got that it was repaired after."""

    cost: float
    order: int
    plan: Plan = field(compare=False)
    calls: int = field(compare=False, default=0)
    depth: int = field(compare=False, default=0)


@dataclass
class Search:
    """The state of one search; `last` is the refusal that got furthest, for the message when nothing is accepted."""

    model: nn.Module
    known: Context
    seconds: float = 20.0
    fixed: frozenset[str] = frozenset()  # arguments that the user gave, which no repair changes
    spent: float = 0.0  # seconds of all real runs, and of the latest
    latest: float = 0.0
    trials: int = 0
    last: Trial | None = None
    history: History = field(default_factory=dict)
    tried: set[Plan] = field(default_factory=set)

    def device(self, plan: Plan) -> str:
        """Real runs while they are cheap; meta once they are not, where the model is, or for a large model or input."""
        large = self.known.parameters > HEAVY or plan.elements > LARGE_INPUT
        slow = self.spent > REAL_SECONDS and self.latest > REAL_SECONDS / 5
        return "meta" if self.on_meta or large or slow else "cpu"

    @property
    def on_meta(self) -> bool:
        """Whether the model itself has no numbers."""
        return device_of(self.model).type == "meta"

    def run(self, starts: Iterable[Change], trials: int) -> Trial | None:
        """The first accepted trial, best-first from the starting plans; None when none is found in so many trials."""
        order = itertools.count()
        heap = [Candidate(cost, next(order), plan) for cost, plan in starts]
        heapq.heapify(heap)
        deadline = time.perf_counter() + self.seconds
        most = self.trials + trials
        while heap and self.trials < most and time.perf_counter() < deadline:
            candidate = heapq.heappop(heap)
            trial = self.attempt(candidate.plan)
            if trial is None:
                continue
            if trial.refusal is None:
                return trial
            for cost, plan in self.repairs(trial) if candidate.depth < 12 else ():
                paid = candidate.cost + cost + (0.0 if trial.seen.calls > candidate.calls else 0.25)
                heapq.heappush(heap, Candidate(paid, next(order), plan, trial.seen.calls, candidate.depth + 1))
        return None

    def attempt(self, plan: Plan) -> Trial | None:
        """Run the plan unless it was run before; a plan accepted on meta must also run for real."""
        if plan in self.tried:
            return None
        self.tried.add(plan)
        device = self.device(plan)
        trial = self._sampled(plan) if device == "cpu" and plan.elements > COSTLY_INPUT else None
        if trial is not None:
            return trial
        trial = self._timed(plan, device)
        if device == "meta" and not self.on_meta and (_beyond_meta(trial) if trial.refusal else affordable(trial)):
            trial = self._timed(plan, "cpu")
        if trial.refusal is not None and (self.last is None or trial.seen.calls >= self.last.seen.calls):
            self.last = trial
        return trial

    def _sampled(self, plan: Plan) -> Trial | None:
        """What a run of two samples of the batch says of the whole; None where there are no more or they do not run."""
        few = _fewer(plan)
        if few is None:
            return None
        trial = self._timed(few, "cpu")
        if trial.refusal is not None:
            return None
        trial.seen.cost = trial.seen.cost.times(plan.elements / few.elements)
        return replace(trial, plan=plan)

    def _timed(self, plan: Plan, device: str) -> Trial:
        trial = attempt(self.model, plan, device=device)
        self.trials += 1
        if device == "cpu":
            self.latest = trial.seconds
            self.spent += trial.seconds
        return trial

    def repairs(self, trial: Trial) -> Iterator[Change]:
        """Every repair of a refused plan, cheapest first."""
        assert trial.refusal is not None
        broken = Broken(trial, trial.refusal, self.known, self.history)
        changes = sorted(itertools.chain(structural(broken), textual(broken)), key=lambda change: change[0])
        yield from (change for change in changes if self._keeps(trial.plan, change[1]))

    def _keeps(self, old: Plan, new: Plan) -> bool:
        before, after = dict(old.arguments), dict(new.arguments)
        return new.elements <= MOST_ELEMENTS and all(before.get(name) == after.get(name) for name in self.fixed)

    def accepted(self, plan: Plan) -> Trial | None:
        """The trial of the plan when it is accepted."""
        trial = self.attempt(plan)
        return trial if trial is not None and trial.refusal is None else None
