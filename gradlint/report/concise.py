"""`concise`: one line a finding, stable and greppable, for editors and problem matchers."""

from __future__ import annotations

from typing import TextIO

from gradlint.finding import Finding
from gradlint.report.source import Sources, shown
from gradlint.report.view import View
from gradlint.result import Failure, Report, TargetReport


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write `path:line:column: severity[code] rule: message [verdict]` for each finding and failure."""
    for failure in report.errors:
        stream.write(f"{_failed(failure, failure.path or 'gradlint', failure.line)}\n")
    for target in report.targets:
        for finding in view.visible(target.findings):
            if finding.suppression:
                continue
            stream.write(f"{line(finding, target, view.sources)}\n")
        if target.error:
            stream.write(f"{_failed(target.error, target.path or target.target, target.line)}\n")


def line(finding: Finding, target: TargetReport, sources: Sources) -> str:
    """One finding on one line; columns are 1-based, as editors count."""
    span = finding.span
    place = f"{shown(span.path)}:{span.line}:{sources.column(span)}" if span else f"{_where(target)}:1"
    module = f" ({finding.module})" if finding.module and finding.module not in finding.message else ""
    return f"{place}: {finding.severity}[{finding.code}] {finding.rule}: {finding.message}{module} [{finding.verdict}]"


def _failed(failure: Failure, path: str, line: int | None) -> str:
    place = f"{shown(failure.path or path)}:{failure.line or line or 1}:1"
    return f"{place}: error[{failure.kind}] not-analysed: {one_line(failure.message)} [failed]"


def one_line(text: str) -> str:
    """The text with its line breaks folded into spaces."""
    return " ".join(text.split())


def _where(target: TargetReport) -> str:
    return f"{shown(target.path or target.target)}:{target.line or 1}"
