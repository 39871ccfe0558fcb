"""What a finding and a fix are compared by: the claim that must fall, and the numbers printed before and after."""

from __future__ import annotations

from gradlint.engine import holds
from gradlint.finding import Claim, Finding, Number
from gradlint.fix.experiment import Experiment
from gradlint.fix.trial import Trial
from gradlint.graph.ir import Graph
from gradlint.quantity import QUANTITIES

SHARES = ("dead-share", "saturated-share", "constant-share")
HALF = 0.5  # of the units: what a share must fall below
RECTIFIED = -0.05  # decades: a rectifier that is off for a fifth of the entries takes this off the gradient
HALFWAY = 0.5  # of the distance to its limit: what a claim that still holds must have moved
NAMES = {"distinct": "distinct-share", "width": "output range"}


def helped(graph: Graph, finding: Finding, experiment: Experiment | None, before: Trial, after: Trial) -> bool:
    """Whether a trial is better than the unchanged model in what the finding says, and no worse in anything else.

    What is left must be finite and not an error. Then either the claim must have fallen, or be half-way to it in a
    model that is healthier by a state; without a claim it is the experiment, or else the health, that must be better.
    """
    if not after.finite or after.health.state == "error" or after.rank > before.rank:
        return False
    if experiment is not None and experiment.better is not None:
        return experiment.better(before.notes, after.notes)
    healthier = after.rank < before.rank
    claim = claim_of(graph, finding)
    numbers = None if claim is None else (value(graph, before, claim), value(graph, after, claim))
    if claim is None or numbers is None or numbers[1] is None or not before.finite:
        return healthier
    if numbers[0] is None or not holds(claim, numbers[0]):
        return healthier
    return not holds(claim, numbers[1]) or (healthier and _halfway(claim, numbers[0], numbers[1]))


def claim_of(graph: Graph, finding: Finding) -> Claim | None:
    """The finding's claim; where the rule makes none, what its family implies of the ops that it names."""
    ops = places(finding)
    if finding.claim is not None:
        return finding.claim
    if finding.family == "output" and ops:
        ends = _ends(graph, ops)
        return Claim("gradient-change", ends, RECTIFIED, "below") if ends else None
    name = next((name for name in finding.measured if name in SHARES), None)
    return None if name is None else Claim(name, ops, HALF, "above")


def value(graph: Graph, trial: Trial, claim: Claim) -> float | None:
    """The claim's quantity in a trial."""
    return QUANTITIES[claim.quantity].function(graph, trial.measurement, claim.subject)


def compare(graph: Graph, finding: Finding, before: Trial, after: Trial) -> tuple[dict[str, Number], dict[str, Number]]:
    """The finding's measured quantities, by their names, in both trials; then the health. What stays equal is left out.

    Whether the run is finite is said where it was not.
    """
    weakest = before.health.weakest
    first, second = (_numbers(graph, trial, finding, weakest) for trial in (before, after))
    if not before.finite:
        first, second = {**first, "finite": before.finite}, {**second, "finite": after.finite}
    changed = [name for name in second if first.get(name) != second[name]]
    shown = [*changed, *(["health"] if "health" not in changed else [])]
    return {name: first[name] for name in shown if name in first}, {name: second[name] for name in shown}


def places(finding: Finding) -> tuple[int, ...]:
    """The ops that the finding names."""
    return finding.ops or (() if finding.op is None else (finding.op,))


def _numbers(graph: Graph, trial: Trial, finding: Finding, weakest: str) -> dict[str, Number]:
    claim = claim_of(graph, finding)
    found: dict[str, Number] = {NAMES[kind]: number for kind, number in trial.notes.items()}
    for name in dict.fromkeys([*([] if claim is None else [claim.quantity]), *finding.measured]):
        own = claim is not None and claim.quantity == name
        subject = claim.subject if claim is not None and own else _subject(graph, finding, name, weakest)
        number = (
            QUANTITIES[name].function(graph, trial.measurement, subject) if name in QUANTITIES and subject else None
        )
        if number is not None:
            found[name] = number
    if "relative-gradient" not in found and trial.health.m is not None:
        found["relative-gradient"] = trial.health.m
    return {**found, "health": trial.health.state}


def _subject(graph: Graph, finding: Finding, name: str, weakest: str) -> tuple[int | str, ...]:
    """What a quantity that a rule printed is about: the ends of its ops, the ops, the weakest weight, or the output."""
    ops = places(finding)
    if name in SHARES:
        return ops
    if name in ("gradient-change", "activation-change") and ops:
        return _ends(graph, ops)
    if name == "relative-gradient":
        return (weakest,) if weakest else ()
    return graph.outputs[:1] if name in ("activation-size", "output-spread", "loss-above-chance") else ()


def _ends(graph: Graph, ops: tuple[int, ...]) -> tuple[int, ...]:
    """The value that goes into the first op and the one that the last one makes."""
    inputs = graph.data_inputs(graph.ops[ops[0]])
    return (inputs[0], graph.ops[ops[-1]].outputs[0]) if inputs else ()


def _halfway(claim: Claim, before: float, after: float) -> bool:
    if before in (float("inf"), float("-inf")):
        return after != before
    return (after - before) / (claim.limit - before) >= HALFWAY
