"""What a finding and a fix are compared by: the claim that must fall, and the numbers printed before and after."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradlint.engine import holds
from gradlint.finding import Claim, Finding, Number
from gradlint.fix.experiment import Experiment
from gradlint.fix.trial import Trial
from gradlint.graph.ir import Graph
from gradlint.quantity import QUANTITIES

SHARES = ("dead-share", "saturated-share", "constant-share")
HALF = 0.5  # of the units: what a share must fall below
RECTIFIED = -0.02  # decades: what a rectifier that is off for a tenth of the entries takes off the gradient
BLIND = "loss-above-chance"
GUESS = 0.3  # decades about the loss of a blind guess: where the first loss of a model that knows nothing lies
HALFWAY = 0.5  # of the distance to its limit: what a claim that still holds must have moved
NAMES = {"distinct": "distinct-share", "variety": "units unlike each other", "width": "output range"}


@dataclass(frozen=True)
class Pair:
    """The runs without and with a fix, and the same under the finding's experiment where there is one.

    `found` is what the finding was judged by: the run without, or several seeds of it.
    """

    found: Trial
    before: Trial
    after: Trial
    setup: Experiment | None = None
    provoked: tuple[Trial, Trial] | None = None


def helped(graph: Graph, finding: Finding, pair: Pair) -> bool:
    """Whether the fix makes better what the finding says, and nothing else worse.

    What is left must be finite, not an error, and in no worse a state. Then the experiment decides where there is one;
    else the claim must have fallen, or be half-way to that in a model that is healthier by a state; and without a claim
    that held before, the model must be healthier.
    """
    found, after = pair.found, pair.after
    if not after.finite or after.health.state == "error" or after.rank > found.rank:
        return False
    if pair.setup is not None and pair.provoked is not None:
        return _shown(graph, pair.setup, *pair.provoked)
    healthier = after.rank < found.rank
    claim = claim_of(graph, finding)
    first, last = (None, None) if claim is None else (value(graph, found, claim), value(graph, after, claim))
    if claim is None or last is None or (first is not None and not holds(claim, first)):
        return healthier
    if not holds(claim, last):
        return healthier if first is None else _nearer(claim, value(graph, pair.before, claim), last)
    return healthier and first is not None and _halfway(claim, first, last)


def _shown(graph: Graph, setup: Experiment, before: Trial, after: Trial) -> bool:
    if setup.blind:
        first, last = _above_chance(graph, before), _above_chance(graph, after)
        return isinstance(first, float) and isinstance(last, float) and abs(last) <= GUESS < abs(first)
    return setup.better(before.notes, after.notes) if setup.better else after.finite and not before.finite


def _above_chance(graph: Graph, trial: Trial) -> Number:
    return QUANTITIES[BLIND].function(graph, trial.measurement, ())


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


def compare(graph: Graph, finding: Finding, pair: Pair) -> tuple[dict[str, Number], dict[str, Number]]:
    """The finding's measured quantities without and with the fix, by their names, then the health.

    What stays equal is left out, but the health; whether a run is finite is said where one is not.
    """
    first, last = _known(graph, finding, pair.before), _known(graph, finding, pair.after)
    first = {name: number for name, number in first.items() if _agrees(graph, finding, name, number)}
    shown = pair.provoked or (pair.before, pair.after)
    if not (shown[0].finite and shown[1].finite):
        first, last = {"finite": shown[0].finite, **first}, {"finite": shown[1].finite, **last}
    if pair.setup is not None and pair.setup.blind:
        first, last = ({BLIND: _above_chance(graph, trial)} for trial in shown)
    first |= {NAMES[kind]: number for kind, number in shown[0].notes.items()}
    last |= {NAMES[kind]: number for kind, number in shown[1].notes.items()}
    names = [name for name in first if name in last and first[name] != last[name]]
    if "relative-gradient" not in names:
        first, last = _with_weakest(first, pair.before), _with_weakest(last, pair.after)
        names += ["relative-gradient"] if "relative-gradient" in first and "relative-gradient" in last else []
    before = {name: first[name] for name in names} | {"health": pair.before.health.state}
    return before, {name: last[name] for name in names} | {"health": pair.after.health.state}


def _with_weakest(numbers: dict[str, Number], trial: Trial) -> dict[str, Number]:
    m = trial.health.m
    return numbers if m is None else {**numbers, "relative-gradient": m}


def _agrees(graph: Graph, finding: Finding, name: str, number: Number) -> bool:
    """Whether a quantity is about what the finding means by its name: known, or told by the number that it prints."""
    claim, printed = claim_of(graph, finding), finding.measured.get(name)
    if name in finding.subjects or (claim is not None and claim.quantity == name):
        return True
    if not isinstance(printed, float) or not isinstance(number, float):
        return True
    return printed == number or math.isclose(printed, number, rel_tol=1e-3, abs_tol=1e-6)


def places(finding: Finding) -> tuple[int, ...]:
    """The ops that the finding names."""
    return finding.ops or (() if finding.op is None else (finding.op,))


def _known(graph: Graph, finding: Finding, trial: Trial) -> dict[str, Number]:
    """The quantities of the finding that this trial has, by name."""
    claim = claim_of(graph, finding)
    found: dict[str, Number] = {}
    for name in dict.fromkeys([*([] if claim is None else [claim.quantity]), *finding.measured]):
        own = claim is not None and claim.quantity == name
        subject = (
            claim.subject if claim is not None and own else finding.subjects.get(name) or _subject(graph, finding, name)
        )
        number = (
            QUANTITIES[name].function(graph, trial.measurement, subject) if name in QUANTITIES and subject else None
        )
        if number is not None:
            found[name] = number
    reach = [trial.health.reach[op] for op in places(finding) if op in trial.health.reach]
    return {**found, "reached-share": min(reach)} if reach else found


def _subject(graph: Graph, finding: Finding, name: str) -> tuple[int | str, ...]:
    """What a quantity that a rule printed is about: the ends of its ops, the ops themselves, or the output."""
    ops = places(finding)
    if name in SHARES:
        return ops
    if name in ("gradient-change", "activation-change") and ops:
        return _ends(graph, ops)
    return graph.outputs[:1] if name in ("activation-size", "output-spread", "loss-above-chance") else ()


def _ends(graph: Graph, ops: tuple[int, ...]) -> tuple[int, ...]:
    """The value that goes into the first op and the one that the last one makes."""
    inputs = graph.data_inputs(graph.ops[ops[0]])
    return (inputs[0], graph.ops[ops[-1]].outputs[0]) if inputs else ()


def _nearer(claim: Claim, before: float | None, after: float) -> bool:
    """Whether the number moved off the claim in the run that the trial is compared with."""
    return before is None or (after < before if claim.sense == "above" else after > before)


def _halfway(claim: Claim, before: float, after: float) -> bool:
    if before in (float("inf"), float("-inf")):
        return after != before
    return (after - before) / (claim.limit - before) >= HALFWAY
