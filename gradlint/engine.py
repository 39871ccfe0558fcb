"""Rules × graph × signal × probe → findings: drafts are collected, claims measured, causes folded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from gradlint.error import GradlintError, UsageError
from gradlint.finding import SEVERITIES, Claim, Draft, Finding, Number, Severity, Verdict
from gradlint.graph.ir import Graph, Op, Span
from gradlint.graph.place import place
from gradlint.profile import Measurement, Signal
from gradlint.quantity import QUANTITIES, Facts
from gradlint.rule import Rule

Options = Mapping[str, Mapping[str, Number]]

# Families whose findings share their cause when they are about the same stretch of the graph.
CAUSES: Mapping[str, str] = {
    "vanishing": "flow",
    "exploding": "flow",
    "init": "flow",
    "normalization": "flow",
    "architecture": "flow",
    "numerics": "numerics",
    "output": "units",
    "units": "units",
    "wiring": "wiring",
}
# Which finding of a cause stands for the others: the fault itself, then what merely would have prevented it.
RANK: Mapping[str, int] = {
    "numerics": 0,
    "wiring": 1,
    "output": 2,
    "init": 3,
    "exploding": 4,
    "vanishing": 4,
    "units": 5,
    "normalization": 6,
    "architecture": 7,
}
# Families in which a finding of the probe alone is a symptom, which any finding that explains it stands before.
SYMPTOMS = frozenset({"vanishing", "exploding", "numerics"})
# Families whose errors end in numbers that are not finite, wherever that first shows.
OVERFLOWING = frozenset({"init", "exploding"})
MOST = 0.5  # of a symptom's ops and parameters that a finding of another family must be about to explain it


def draft(
    rules: Iterable[Rule],
    graph: Graph,
    signal: Signal,
    probe: Measurement | None,
    loss: str,
    options: Options | None = None,
) -> list[tuple[Rule, Draft]]:
    """What the rules say, in rule order. A rule that asks for the probe is left out when nothing was probed.

    `options` holds overrides by rule name. Raises GradlintError naming the rule that raised, and UsageError for an
    option that the rule does not have.
    """
    facts = {"graph": graph, "signal": signal, "probe": probe, "loss": loss}
    drafts = []
    for rule in rules:
        if not applicable(rule, probe):
            continue
        given = facts | {"options": settle(rule, (options or {}).get(rule.name, {}))}
        drafts += [(rule, found) for found in _check(rule, {name: given[name] for name in rule.facts})]
    return drafts


def applicable(rule: Rule, probe: Measurement | None) -> bool:
    """Whether every fact that the rule asks for exists."""
    return "idle" not in rule.facts and (probe is not None or "probe" not in rule.facts)


def settle(rule: Rule, given: Mapping[str, Number]) -> dict[str, Number]:
    """The rule's options with the given ones in place. Raises UsageError for an unknown name or another type."""
    for name, value in given.items():
        if name not in rule.options:
            known = ", ".join(sorted(rule.options)) or "none"
            raise UsageError(f"rule {rule.name} has no option {name!r}", f"its options: {known}")
        default = rule.options[name]
        number = isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool)
        if type(value) is not type(default) and not number:
            raise UsageError(f"option {name} of rule {rule.name} takes a {type(default).__name__}, not {value!r}")
    return {**rule.options, **given}


def judge(
    drafts: Iterable[tuple[Rule, Draft]],
    graph: Graph,
    signal: Signal,
    measurement: Measurement | None,
    reason: str = "",
) -> list[Finding]:
    """Findings with their numbers and verdicts, one a cause, worst first; `reason` says why nothing was measured."""
    findings = [finish(rule, found, graph, signal, measurement, reason) for rule, found in drafts]
    return sorted(fold(sorted(findings, key=_explains), graph), key=_order)


def regrade(findings: Iterable[Finding], severities: Mapping[str, str]) -> list[Finding]:
    """The findings with the severities asked for, by rule name or code, worst first; refuted ones stay notes."""
    told = {name: severity for name in severities for severity in SEVERITIES if severity == severities[name]}
    graded = (
        finding
        if finding.verdict == "refuted"
        else replace(finding, severity=told.get(finding.rule, told.get(finding.code, finding.severity)))
        for finding in findings
    )
    return sorted(graded, key=_order)


def finish(
    rule: Rule, found: Draft, graph: Graph, signal: Signal, measurement: Measurement | None, reason: str
) -> Finding:
    """One draft with the rule's metadata, its place, its claim evaluated on both profiles, and the verdict."""
    predicted = {**evaluate(found, graph, signal), **found.predicted}
    measured = {**({} if measurement is None else evaluate(found, graph, measurement)), **found.measured}
    verdict, why = _verdict(rule, found, graph, measurement, reason)
    op = None if found.op is None else graph.ops[found.op]
    return Finding(
        code=rule.code,
        rule=rule.name,
        family=rule.family,
        severity="info" if verdict == "refuted" else found.severity or rule.severity,
        verdict=verdict,
        message=found.message,
        module=found.module if found.module is not None else op.module_path if op else "",
        span=_span(graph, found, op),
        related=found.related,
        predicted=predicted,
        measured=measured,
        claim=found.claim,
        reason=why,
        factors=found.factors,
        op=found.op,
        ops=found.ops,
        cause=found.cause or rule.name,
        subjects=dict(found.numbers),
    )


def _span(graph: Graph, found: Draft, op: Op | None) -> Span | None:
    """The line of the draft's op, or where the module that it names was constructed."""
    if op is not None:
        return place(graph, op)
    return next((module.constructed for module in graph.modules if module.path == found.module), None)


def evaluate(found: Draft, graph: Graph, facts: Facts) -> dict[str, Number]:
    """The quantities of the draft's claim and of its further numbers that are known, by name."""
    subjects = dict(found.numbers)
    if found.claim is not None:
        subjects = {found.claim.quantity: found.claim.subject, **subjects}
    numbers = {name: QUANTITIES[name].function(graph, facts, subject) for name, subject in subjects.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def holds(claim: Claim, number: float) -> bool:
    """Whether the number lies beyond the claim's limit."""
    return number > claim.limit if claim.sense == "above" else number < claim.limit


def fold(findings: Sequence[Finding], graph: Graph) -> list[Finding]:
    """One finding a cause: of those about one stretch the first stands and names the others in `folded`.

    Findings share a cause when they have an op or a parameter in common and their families share one (CAUSES), or when
    one rule makes them on one line (a layer called twice). A symptom that only the probe saw also folds under a finding
    of another family that is about most of its ops. Refuted findings only fold under refuted ones. The one that stands
    is as severe as the worst of them.
    """
    kept: list[tuple[Finding, set[int | str]]] = []
    for finding in findings:
        reach = _reach(finding, graph)
        shares = [_kinship(finding, other, reach, covered) for other, covered in kept]
        best = max(range(len(kept)), key=lambda i: (shares[i], -i), default=None)
        if best is None or shares[best] <= 0:
            kept.append((finding, reach))
        else:
            other, covered = kept[best]
            kept[best] = (_with(other, finding), covered | reach)
    return [finding for finding, _ in kept]


def _check(rule: Rule, facts: Mapping[str, object]) -> list[Draft]:
    try:
        return list(rule.check(**facts))
    except Exception as error:
        detail = f"{type(error).__name__}: {error}"
        raise GradlintError(
            f"rule {rule.name} ({rule.code}) raised {detail}", f"`--ignore {rule.name}` runs without it"
        ) from error


def _verdict(
    rule: Rule,
    found: Draft,
    graph: Graph,
    measurement: Measurement | None,
    reason: str,
) -> tuple[Verdict, str]:
    """The verdict and, for one that is refuted or not probed, its reason."""
    if "probe" in rule.facts:
        return "measured", ""
    if measurement is None:
        return "not-probed", reason or "nothing was measured"
    if found.claim is None:
        return "not-probed", "decided by the graph alone"
    number = QUANTITIES[found.claim.quantity].function(graph, measurement, found.claim.subject)
    if number is None:
        return "not-probed", "the measured pass did not reach it"
    if holds(found.claim, number):
        return "confirmed", ""
    return "refuted", f"measured {found.claim.quantity} {number:.3g}, not {found.claim.sense} {found.claim.limit:.3g}"


def _explains(finding: Finding) -> tuple[bool, bool, int, int, int]:
    """The order in which findings are taken when one is to stand for the others of its cause."""
    return (
        finding.verdict == "refuted",
        is_symptom(finding),
        RANK[finding.family],
        SEVERITIES.index(finding.severity),
        _place(finding),
    )


def _order(finding: Finding) -> tuple[bool, int, int, int, str]:
    """The order of the report: worst first, refuted last."""
    severity = SEVERITIES.index(finding.severity)
    return (finding.verdict == "refuted", severity, RANK[finding.family], _place(finding), finding.code)


def is_symptom(finding: Finding) -> bool:
    """Whether the finding says what was measured and not what causes it."""
    return finding.verdict == "measured" and finding.family in SYMPTOMS


def _place(finding: Finding) -> int:
    return finding.op if finding.op is not None else 1 << 30


def _kinship(finding: Finding, other: Finding, reach: set[int | str], covered: set[int | str]) -> float:
    """How much speaks for one cause behind two findings; 0 when nothing does.

    `reach` is what the first one is about and `covered` what the other and those folded under it are about.
    """
    shared = len(reach & covered) / max(1, len(reach))
    if (finding.verdict == "refuted") != (other.verdict == "refuted"):
        return 0.0
    if finding.rule == other.rule and finding.span is not None and finding.span == other.span:
        return 2.0
    if other.severity == "info" and other.claim is None and finding.severity != "info":
        return 0.0  # a note on the graph explains nothing that went wrong
    if CAUSES[finding.family] == CAUSES[other.family]:
        return 1.0 + shared if shared else 0.0
    if (
        is_symptom(finding)
        and finding.family == "numerics"
        and other.family in OVERFLOWING
        and other.severity == "error"
    ):
        return MOST
    explained = finding.verdict == "measured" and other.severity != "info" and shared >= MOST
    return shared if explained else 0.0


def _reach(finding: Finding, graph: Graph) -> set[int | str]:
    """The ops the finding is about and their parameters."""
    indices = finding.ops or (() if finding.op is None else (finding.op,))
    ops: list[Op] = [graph.ops[index] for index in indices]
    return {op.index for op in ops} | {path for op in ops for path in op.params}


def _with(finding: Finding, other: Finding) -> Finding:
    """The finding with another folded under it; the same words are not said twice."""
    said = (f"{finding.rule}: {finding.message}", *finding.folded)
    more = (f"{other.rule}: {other.message}", *other.folded)
    severity = SEVERITIES[min(SEVERITIES.index(finding.severity), SEVERITIES.index(other.severity))]
    return replace(finding, severity=severity, folded=(*finding.folded, *(each for each in more if each not in said)))


def severest(findings: Iterable[Finding]) -> Severity | None:
    """The worst severity among the findings that were not refuted."""
    standing = [SEVERITIES.index(finding.severity) for finding in findings if finding.verdict != "refuted"]
    return SEVERITIES[min(standing)] if standing else None
