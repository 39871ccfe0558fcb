"""What a report amounts to: its exit status and its counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args

from gradlint.finding import SEVERITIES, Finding, Severity, Verdict
from gradlint.result import Report, Status

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
STATUSES: tuple[Status, ...] = get_args(Status)
SUPPRESSIONS = ("comment", "configuration", "baseline")
CLEAN, FOUND, FAILED = 0, 1, 2
OPTIONS: Mapping[str, str] = {"safe": "--fix", "unsafe": "--fix --unsafe-fixes"}  # what writes a fix


def stands(finding: Finding) -> bool:
    """Whether the finding counts."""
    return finding.stands


def reaches(severity: Severity, threshold: str) -> bool:
    """Whether the severity is at or above the threshold ("error", "warning", "info", "never")."""
    return threshold in SEVERITIES and SEVERITIES.index(severity) <= SEVERITIES.index(threshold)


def suppressed(report: Report, *kinds: str) -> int:
    """How many findings are suppressed in one of these ways."""
    return sum(f.suppression is not None and f.suppression.kind in kinds for f in report.findings)


def exit_code(report: Report, fail_on: str = "warning") -> int:
    """2 when something failed or nothing was analysed, 1 when a standing finding reaches `fail_on`, else 0.

    Where files without a model may be named (--skip-modelless), skipping all of them is no failure.
    """
    broken = report.errors or any(t.error or t.status == "failed" for t in report.targets)
    nothing = not any(t.status == "analysed" for t in report.targets)
    if broken or (nothing and not (report.targets and report.settings.get("skip_modelless"))):
        return FAILED
    return FOUND if any(stands(f) and reaches(f.severity, fail_on) for f in report.findings) else CLEAN


def fixable_by(findings: Sequence[Finding]) -> list[str]:
    """How many findings each option mends: a safe fix is enough where a finding has one."""
    ways = [{fix.applicable for fix in finding.fixes} for finding in findings]
    needed = ["safe" if "safe" in way else "unsafe" for way in ways if way & OPTIONS.keys()]
    return [f"{needed.count(way)} fixable with {option}" for way, option in OPTIONS.items() if way in needed]


def counts(report: Report) -> Mapping[str, object]:
    """The summary of the JSON report."""
    standing = [f for f in report.findings if stands(f)]
    return {
        "targets": {status: sum(t.status == status for t in report.targets) for status in STATUSES},
        "findings": {severity: report.count(severity) for severity in SEVERITIES},
        "verdicts": {verdict: sum(f.verdict == verdict for f in report.findings) for verdict in VERDICTS},
        "suppressed": {kind: suppressed(report, kind) for kind in SUPPRESSIONS},
        "fixable": sum(bool(f.fixes) for f in standing),
        "exit_code": exit_code(report, str(report.settings.get("fail_on", "warning"))),
        "seconds": report.seconds,
    }
