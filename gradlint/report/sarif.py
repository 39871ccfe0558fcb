"""`sarif`: SARIF 2.1.0, with what GitHub code scanning requires beyond the schema (its "SARIF support" page)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

from gradlint import registry
from gradlint.error import GradlintError
from gradlint.finding import Finding, Severity, Suppression
from gradlint.graph.ir import Span
from gradlint.report.fingerprint import fingerprints
from gradlint.report.number import power
from gradlint.report.source import Sources, shown
from gradlint.report.view import View
from gradlint.result import Failure, Report, TargetReport
from gradlint.version import __version__

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS: Mapping[Severity, str] = {"error": "error", "warning": "warning", "info": "note"}
PROBLEMS: Mapping[Severity, str] = {"error": "error", "warning": "warning", "info": "recommendation"}
PRECISION = {"confirmed": "very-high", "measured": "very-high", "not-probed": "medium", "refuted": "low"}
SUPPRESSIONS = {"comment": "inSource", "configuration": "external", "baseline": "external"}
KNOWN = "known to the baseline"
LONGEST = 1024  # characters of a description that GitHub accepts
MOST_STEPS = 1000  # locations of a thread flow that GitHub keeps
Json = dict[str, Any]


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the log with one run."""
    stream.write(json.dumps(document(report, view.sources), indent=2, allow_nan=False) + "\n")


def document(report: Report, sources: Sources) -> Json:
    """The SARIF log. Findings that the probe refuted are notifications, not results: they are no alerts."""
    found = [(t, f, mark) for t, f, mark in fingerprints(report) if f.verdict != "refuted"]
    codes = sorted({finding.code: finding for _, finding, _ in found}.items())
    index = {code: i for i, (code, _) in enumerate(codes)}
    driver = {
        "name": "gradlint",
        "version": report.version,
        "semanticVersion": __version__,
        "rules": [_rule(finding) for _, finding in codes],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(report)],
        "results": [_result(t, f, mark, index[f.code], sources) for t, f, mark in found],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def page(name: str) -> str:
    """The rule's page, or "" for a rule that is not installed here."""
    try:
        return registry.page(registry.find(name))
    except GradlintError:
        return ""


def _rule(finding: Finding) -> Json:
    text = page(finding.rule)
    what = _section(text, "What it does") or finding.rule.replace("-", " ")
    return {
        "id": finding.code,
        "name": finding.rule,
        "shortDescription": {"text": re.split(r"(?<=\.)\s", what)[0][:LONGEST]},
        "fullDescription": {"text": what[:LONGEST]},
        "help": {"text": text or what, "markdown": text or what},
        "defaultConfiguration": {"level": LEVELS[finding.severity]},
        "properties": {
            "tags": ["gradlint", finding.family],
            "precision": PRECISION[finding.verdict],
            "problem.severity": PROBLEMS[finding.severity],
        },
    }


def _section(text: str, heading: str) -> str:
    """The first paragraph of a section of the page, on one line."""
    _, _, body = text.partition(f"## {heading}")
    return " ".join(body.strip().partition("\n\n")[0].split())


def _result(target: TargetReport, finding: Finding, mark: str, index: int, sources: Sources) -> Json:
    where = f" in {finding.module}" if finding.module and finding.module not in finding.message else ""
    fixes = "".join(f"\n\nfix: {fix.title}" for fix in finding.fixes)
    result: Json = {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": LEVELS[finding.severity],
        "message": {"text": f"{finding.message}{where}{fixes}"},
        "locations": [{**_location(finding.span, target, sources), **_logical(finding.module)}],
        "partialFingerprints": {"gradlint/v1": mark},
        "properties": {
            "verdict": finding.verdict,
            "predicted": _finite(finding),
            "precision": PRECISION[finding.verdict],
        },
    }
    if related := list(_related(finding, sources)):
        result["relatedLocations"] = related
    if finding.suppression:
        result["suppressions"] = [_suppression(finding.suppression, sources)]
    if steps := list(_steps(finding, target))[:MOST_STEPS]:
        result["codeFlows"] = [{"threadFlows": [{"locations": steps}]}]
    return result


def _suppression(suppression: Suppression, sources: Sources) -> Json:
    made: Json = {"kind": SUPPRESSIONS[suppression.kind], "status": "accepted"}
    reason = suppression.reason or (KNOWN if suppression.kind == "baseline" else "")
    if reason:
        made["justification"] = reason
    if suppression.span:
        made["location"] = {"physicalLocation": _physical(suppression.span, sources)}
    return made


def _finite(finding: Finding) -> Json:
    numbers = {**finding.predicted, **{f"measured {key}": value for key, value in finding.measured.items()}}
    return {k: v for k, v in numbers.items() if not isinstance(v, float) or abs(v) < float("inf")}


def _related(finding: Finding, sources: Sources) -> Iterator[Json]:
    """Every further place once, numbered, with its label."""
    places: dict[Span, str] = {}
    for item in finding.related:
        if item.span is not None and item.span != finding.span:
            places.setdefault(item.span, f"{item.label} ({item.module})" if item.module else item.label)
    for i, (span, label) in enumerate(places.items(), 1):
        yield {"id": i, "message": {"text": label or "related"}, "physicalLocation": _physical(span, sources)}


def _steps(finding: Finding, target: TargetReport) -> Iterator[Json]:
    """The path of the gradient from the loss back: each factor at the line of its layer."""
    places = {key: layer for layer in target.layers if layer.path for key in (layer.module, layer.index)}
    for factor in finding.factors:
        layer = places.get(factor.op) or places.get(factor.module)
        if layer and layer.path:
            text = f"{factor.module or 'model'}: {factor.label} {power(factor.decades)}"
            physical = {"artifactLocation": _artifact(layer.path), "region": {"startLine": layer.line or 1}}
            yield {"location": {"message": {"text": text}, "physicalLocation": physical}}


def _location(span: Span | None, target: TargetReport, sources: Sources) -> Json:
    if span is not None:
        return {"physicalLocation": _physical(span, sources)}
    region = {"startLine": target.line or 1}
    return {"physicalLocation": {"artifactLocation": _artifact(target.path or target.target), "region": region}}


def _physical(span: Span, sources: Sources) -> Json:
    region = {"startLine": span.line}
    if underline := sources.underline(span):
        region |= {"startColumn": underline[0] + 1, "endLine": span.line, "endColumn": underline[1] + 1}
    return {"artifactLocation": _artifact(span.path), "region": region}


def _artifact(path: str) -> Json:
    """Relative to the root of the repository, which is where code scanning runs; absolute only outside of it."""
    name = shown(path)
    return {"uri": Path(name).as_uri() if Path(name).is_absolute() else quote(Path(name).as_posix())}


def _logical(module: str) -> Json:
    return {"logicalLocations": [{"fullyQualifiedName": module, "kind": "module"}]} if module else {}


def _invocation(report: Report) -> Json:
    failures = [(t.error, t) for t in report.targets if t.error]
    refuted = [(f, t) for t in report.targets for f in t.findings if f.verdict == "refuted"]
    notes = [
        *(_notification("note", note, None, None) for note in report.notes),
        *(_notification("error", f"{error.kind}: {error.message}", error, None) for error in report.errors),
        *(_notification("error", f"{error.kind}: {error.message}", error, target) for error, target in failures),
        *(_notification("note", f"{f.code} {f.rule}: {f.message}: refuted by the probe", None, t) for f, t in refuted),
    ]
    done: Json = {"executionSuccessful": not (report.errors or failures)}
    return {**done, "toolExecutionNotifications": notes} if notes else done


def _notification(level: str, text: str, failure: Failure | None, target: TargetReport | None) -> Json:
    path = (failure.path if failure else None) or (target.path if target else None)
    note: Json = {"level": level, "message": {"text": " ".join(text.split())}}
    if path:
        line = (failure.line if failure else None) or (target.line if target else None) or 1
        physical = {"artifactLocation": _artifact(path), "region": {"startLine": line}}
        note["locations"] = [{"physicalLocation": physical}]
    return note
