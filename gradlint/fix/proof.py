"""Fixes proven: every finding's candidates are tried, and those that helped are ranked and kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gradlint.config import Settings
from gradlint.finding import Finding, Fix
from gradlint.fix.candidate import Candidate
from gradlint.fix.candidates import candidates
from gradlint.fix.changes import changes
from gradlint.fix.evidence import Pair, compare, helped
from gradlint.fix.experiment import Experiment, experiments
from gradlint.fix.recipes import NOTES
from gradlint.fix.registration import registered
from gradlint.fix.symptom import symptoms
from gradlint.fix.training import FIXES, School, contrast, trained
from gradlint.fix.trial import Laboratory, Trial
from gradlint.graph.ir import Graph
from gradlint.layers import sizes
from gradlint.probe.health import judge
from gradlint.profile import Measurement

if TYPE_CHECKING:
    from gradlint.load.model import LoadedModel

# Families that are about the flow of the signal: what helps one of their findings may help another.
FLOW = frozenset({"vanishing", "exploding", "init", "normalization", "architecture", "units"})
KEPT = 3  # fixes printed for a finding
TRIED = 6  # candidates tried for a finding


@dataclass(frozen=True)
class Proof:
    """A candidate that helped, the runs that show it, and its place in the table."""

    candidate: Candidate
    pair: Pair
    place: int

    @property
    def rank(self) -> int:
        """The state of the model's health with the fix; 0 is healthy."""
        return self.pair.after.rank

    @property
    def order(self) -> tuple[int, int, int, float, int]:
        """Healthiest first, then cheapest: parameters added, kinds of edit, elementwise work, and the evidence."""
        cost = self.candidate
        return self.rank, cost.parameters, cost.edits, round(max(0.0, cost.work), 2), self.place


def prove(
    loaded: LoadedModel,
    graph: Graph,
    findings: Sequence[Finding],
    measurement: Measurement,
    settings: Settings,
) -> list[Finding]:
    """The findings with `fixes` filled: changes applied to the recorded run, measured again and found to help.

    `measurement` is what the unchanged model showed; it is taken again at the settings' seed when it is about others.
    Refuted findings, and mere notes without fixes of their own, are returned as they are, and so are those for which
    nothing helped. What helped one finding is offered to those that have no fix of their own, when it helps them too.
    """
    found = Trial(measurement, judge(graph, measurement))
    before = found if measurement.seeds == (settings.seed,) else None  # trials are made at one seed, and so is this
    laboratory = Laboratory(loaded, graph, settings, found, before)
    searched = [_search(laboratory, finding) if _wanted(finding) else ([], []) for finding in findings]
    general = [proof for proofs, _ in searched for proof in proofs if proof.pair.setup is None]
    # one change for several findings, where one does: a diff would else carry a change for each
    chosen = [[*own, *_shared(laboratory, f, general, own)] for f, (own, _) in zip(findings, searched, strict=True)]
    kept = [sorted(proofs, key=lambda proof: proof.order)[:KEPT] for proofs in chosen]
    done = [
        _fixed(laboratory, finding, proofs, vain) if _wanted(finding) else finding
        for finding, proofs, (_, vain) in zip(findings, kept, searched, strict=True)
    ]
    steps = [[proof.candidate.steps for proof in proofs] for proofs in kept]
    best = {own[0] for own in steps if own}
    school = School(loaded, graph, settings, measurement.loss, 1 + max(1, min(FIXES, len(best))))
    done = [trained(school, f, own) for f, own in zip(done, steps, strict=True)] if settings.prove else done
    return [_held(school, finding, found) if _wanted(finding) else finding for finding in done]


def _held(school: School, finding: Finding, found: Trial) -> Finding:
    """The finding with what it says to be unregistered registered, where it is about that and has no fix yet."""
    settings = school.settings
    held = None if finding.fixes else registered(school.loaded, school.graph, finding, settings, found.health.state)
    if held is None:
        return finding
    other = replace(school, loaded=held.loaded, graph=held.graph, runs={})
    fix = replace(held.fix, trained=contrast(school, (), other, ())) if settings.prove else held.fix
    return replace(finding, fixes=(fix,))


def _wanted(finding: Finding) -> bool:
    """Whether fixes are tried: of mere notes only for those that the table of notes has."""
    return finding.verdict != "refuted" and (finding.severity != "info" or finding.rule in NOTES)


def _search(laboratory: Laboratory, finding: Finding) -> tuple[list[Proof], list[Proof]]:
    """What helped and what did not, tried in the order of the evidence until enough leave the model healthy."""
    graph = laboratory.graph
    proofs, vain = list[Proof](), list[Proof]()
    found = candidates(graph, finding, laboratory.found.measurement.loss)[:TRIED]
    for place, candidate in enumerate(found):
        setups = () if _enough(proofs, candidate) else experiments(finding, candidate)
        pairs = [pair for setup in setups if (pair := _tried(laboratory, setup, candidate)) is not None]
        good = next((pair for pair in pairs if helped(graph, finding, pair)), None)
        if pairs:
            (vain if good is None else proofs).append(Proof(candidate, good or pairs[0], place))
    return proofs, vain


def _tried(laboratory: Laboratory, setup: Experiment | None, candidate: Candidate) -> Pair | None:
    """The runs of a candidate; None when one of them could not be made."""
    always = () if setup is None else setup.steps
    plain = laboratory.attempt(candidate.steps) if setup is None or setup.provokes else None
    bare, first, last = (laboratory.attempt(steps) for steps in ((), always, (*always, *candidate.steps)))
    if bare is None or first is None or last is None or (plain is None and (setup is None or setup.provokes)):
        return None
    return Pair(laboratory.found, bare, plain or last, setup, None if setup is None else (first, last))


def _enough(proofs: Sequence[Proof], candidate: Candidate) -> bool:
    """Whether the proofs so far make the candidate needless: there are plenty, or a variant of it did."""
    healthy = [proof for proof in proofs if proof.rank == 0]
    variants = {proof.candidate.variant for proof in healthy} - {""}
    return len(healthy) >= KEPT or candidate.variant in variants


def _shared(laboratory: Laboratory, finding: Finding, proofs: Iterable[Proof], own: Sequence[Proof]) -> list[Proof]:
    """What helped another finding and helps this one too, when it is about the flow of the signal."""
    known = {proof.candidate.steps for proof in own}
    unique = {proof.candidate.steps: proof for proof in proofs}.values() if finding.family in FLOW else ()
    fresh = (proof for proof in unique if proof.candidate.steps not in known)
    return [proof for proof in fresh if helped(laboratory.graph, finding, proof.pair)]


def _fixed(laboratory: Laboratory, finding: Finding, kept: Sequence[Proof], vain: Iterable[Proof]) -> Finding:
    fixes = [_fix(laboratory.graph, finding, proof) for proof in kept]
    fixes[:1] = [replace(f, layers=sizes(laboratory.graph, kept[0].pair.after.measurement.profile)) for f in fixes[:1]]
    trials = [proof.pair.after for proof in kept]
    explodes = finding.family in FLOW and laboratory.found.health.kind in ("exploding", "blow-up")
    fixes += symptoms(laboratory, trials) if explodes else ()
    rejected = tuple(replace(_fix(laboratory.graph, finding, proof), changes=()) for proof in vain)
    return replace(finding, fixes=tuple(fixes), rejected=rejected)


def _fix(graph: Graph, finding: Finding, proof: Proof) -> Fix:
    before, after = compare(graph, finding, proof.pair)
    setting = "" if proof.pair.setup is None else proof.pair.setup.setting
    price = "; ".join(t for t in (setting, proof.candidate.price) if t)
    made = changes(graph, proof.candidate.steps, proof.pair.after.scales)
    return Fix(proof.candidate.title, before, after, price, changes=made)
