"""Fixes proven: every finding's candidates are tried, and those that helped are ranked and kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradlint.config import Settings
from gradlint.finding import Finding, Fix
from gradlint.fix.candidate import Candidate
from gradlint.fix.candidates import candidates
from gradlint.fix.evidence import compare, helped
from gradlint.fix.experiment import experiment
from gradlint.fix.symptom import clipping
from gradlint.fix.trial import Laboratory, Trial
from gradlint.graph.ir import Graph
from gradlint.probe.health import judge
from gradlint.profile import Measurement

if TYPE_CHECKING:
    from gradlint.load.model import LoadedModel

KEPT = 3  # fixes printed for a finding
TRIED = 6  # candidates tried for a finding


@dataclass(frozen=True)
class Proof:
    """A candidate that helped, the trial that shows it, the trial without it, and its place in the table."""

    candidate: Candidate
    before: Trial
    after: Trial
    place: int
    setting: str = ""

    @property
    def order(self) -> tuple[int, int, int, float, int]:
        """Healthiest first, then cheapest: parameters added, kinds of edit, elementwise work, and the evidence."""
        cost = self.candidate
        return self.after.rank, cost.parameters, cost.edits, round(max(0.0, cost.work), 2), self.place


def prove(
    loaded: LoadedModel,
    graph: Graph,
    findings: Sequence[Finding],
    measurement: Measurement,
    settings: Settings,
) -> list[Finding]:
    """The findings with `fixes` filled: changes applied to the recorded run, measured again and found to help.

    `measurement` is what the unchanged model showed at the same seed and inputs. Refuted findings and mere notes are
    returned as they are, and so are those for which nothing helped. What helped one finding is offered to those that
    have no fix of their own, when it helps them too.
    """
    laboratory = Laboratory(loaded, graph, settings, Trial(measurement, judge(graph, measurement)))
    proofs = [_search(laboratory, finding) if _wanted(finding) else [] for finding in findings]
    found = [proof for each in proofs for proof in each if proof.before is laboratory.before]
    return [
        _fixed(laboratory, finding, own or _shared(laboratory, finding, found)) if _wanted(finding) else finding
        for finding, own in zip(findings, proofs, strict=True)
    ]


def _wanted(finding: Finding) -> bool:
    return finding.severity != "info" and finding.verdict != "refuted"


def _search(laboratory: Laboratory, finding: Finding) -> list[Proof]:
    """Tries candidates in the order of the evidence until enough of them leave the model healthy."""
    graph, setup = laboratory.graph, experiment(finding)
    always = () if setup is None else setup.steps
    before, proofs = laboratory.attempt(always), list[Proof]()
    found = candidates(graph, finding, laboratory.before.measurement.loss)[:TRIED]
    for place, candidate in enumerate(found if before is not None else []):
        if _enough(proofs, candidate):
            continue
        after = laboratory.attempt((*always, *candidate.steps))
        if before is not None and after is not None and helped(graph, finding, setup, before, after):
            proofs.append(Proof(candidate, before, after, place, "" if setup is None else setup.setting))
    return proofs


def _enough(proofs: Sequence[Proof], candidate: Candidate) -> bool:
    """Whether the proofs so far make the candidate needless: there are plenty, or a variant of it did."""
    healthy = [proof for proof in proofs if proof.after.rank == 0]
    return len(healthy) >= KEPT or any(
        candidate.variant and proof.candidate.variant == candidate.variant for proof in healthy
    )


def _shared(laboratory: Laboratory, finding: Finding, proofs: Iterable[Proof]) -> list[Proof]:
    """What helped another finding and helps this one too."""
    if experiment(finding) is not None:
        return []
    before = laboratory.before
    unique = {proof.candidate.steps: proof for proof in proofs}.values()
    return [proof for proof in unique if helped(laboratory.graph, finding, None, before, proof.after)]


def _fixed(laboratory: Laboratory, finding: Finding, proofs: Iterable[Proof]) -> Finding:
    kept = sorted(proofs, key=lambda proof: proof.order)[:KEPT]
    fixes = [_fix(laboratory.graph, finding, proof) for proof in kept]
    trials = [proof.after for proof in kept]
    if finding.family == "exploding" and (clip := clipping(laboratory.graph, laboratory.before, trials)):
        fixes.append(clip)
    return replace(finding, fixes=tuple(fixes))


def _fix(graph: Graph, finding: Finding, proof: Proof) -> Fix:
    before, after = compare(graph, finding, proof.before, proof.after)
    price = "; ".join(text for text in (proof.setting, proof.candidate.price) if text)
    return Fix(proof.candidate.title, before, after, price)
