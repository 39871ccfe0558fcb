"""Fixes proven: every finding's candidates are tried, and those that helped are ranked and kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gradlint.config import Settings
from gradlint.engine import holds
from gradlint.finding import Finding, Fix
from gradlint.fix.candidate import Candidate
from gradlint.fix.candidates import candidates
from gradlint.fix.symptom import clipping
from gradlint.fix.trial import Laboratory, Trial, claim_of, numbers, value
from gradlint.graph.ir import Graph
from gradlint.load.model import LoadedModel
from gradlint.probe.health import judge
from gradlint.profile import Measurement

KEPT = 3  # fixes printed for a finding
TRIED = 6  # candidates tried for a finding
SECONDS = 10.0  # wall clock for all trials of one model


def prove(
    loaded: LoadedModel,
    graph: Graph,
    findings: Sequence[Finding],
    measurement: Measurement,
    settings: Settings,
) -> list[Finding]:
    """The findings with `fixes` filled: changes applied to the recorded run, measured again and found to help.

    `measurement` is what the unchanged model showed at the same seed and inputs. Refuted findings and mere notes are
    returned as they are, and so are those for which no candidate helped.
    """
    before = Trial(measurement, judge(graph, measurement))
    laboratory = Laboratory(loaded, graph, settings, before, SECONDS)
    return [_proven(laboratory, finding) if _wanted(finding) else finding for finding in findings]


@dataclass(frozen=True)
class Proof:
    """A candidate that helped, with the trial that shows it."""

    candidate: Candidate
    trial: Trial

    @property
    def order(self) -> tuple[int, int, float, int, float]:
        """Healthiest first, then cheapest: parameters added, elementwise work, kinds of edit."""
        cheap = self.candidate
        return self.trial.rank, cheap.parameters, round(cheap.work, 3), cheap.edits, self.trial.health.score


def _wanted(finding: Finding) -> bool:
    return finding.severity != "info" and finding.verdict in ("confirmed", "measured")


def _proven(laboratory: Laboratory, finding: Finding) -> Finding:
    proofs = sorted(_search(laboratory, finding), key=lambda proof: proof.order)[:KEPT]
    fixes = [_fix(laboratory, finding, proof) for proof in proofs]
    trials = [proof.trial for proof in proofs]
    if finding.family == "exploding" and (clip := clipping(laboratory.graph, laboratory.before, trials)):
        fixes.append(clip)
    return replace(finding, fixes=tuple(fixes))


def _search(laboratory: Laboratory, finding: Finding) -> list[Proof]:
    """Tries candidates in the order of the evidence until enough of them leave the model healthy."""
    proofs: list[Proof] = []
    for candidate in candidates(laboratory.graph, finding)[:TRIED]:
        if sum(1 for proof in proofs if proof.trial.rank == 0) >= KEPT:
            break
        trial = laboratory.attempt(candidate)
        if trial is not None and helped(laboratory.graph, finding, laboratory.before, trial):
            proofs.append(Proof(candidate, trial))
    return proofs


def helped(graph: Graph, finding: Finding, before: Trial, after: Trial) -> bool:
    """Whether a trial is better than the unchanged model in what the finding says, and no worse in anything else.

    The finding's claim must no longer hold, or the health be better by a state; what is left must be finite, and must
    not be an error.
    """
    if not after.finite or after.health.state == "error" or after.rank > before.rank:
        return False
    claim = claim_of(graph, finding)
    number = None if claim is None else value(graph, after.measurement, claim)
    if claim is None or number is None:
        return after.rank < before.rank
    return not holds(claim, number) or after.rank < before.rank


def _fix(laboratory: Laboratory, finding: Finding, proof: Proof) -> Fix:
    graph, before = laboratory.graph, laboratory.before
    return Fix(
        title=proof.candidate.title,
        measured_before=numbers(graph, before, finding, before.health.weakest),
        measured_after=numbers(graph, proof.trial, finding, before.health.weakest),
        price=proof.candidate.price,
    )
