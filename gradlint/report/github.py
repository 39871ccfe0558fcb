"""`github`: annotations by workflow commands (docs.github.com: workflow commands for GitHub Actions)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TextIO

from gradlint.finding import SEVERITIES, Finding, Severity
from gradlint.report.concise import one_line
from gradlint.report.outcome import stands
from gradlint.report.source import Sources, relative_to, shown
from gradlint.report.view import View
from gradlint.result import Failure, Report, TargetReport

COMMANDS = {"error": "error", "warning": "warning", "info": "notice"}
MOST = 10  # of each kind in one step; GitHub drops the rest in silence
Annotation = tuple[Severity, str]
Place = tuple[str | None, int | None, int | None]  # path, line and column


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the annotations, most severe first, as many as GitHub shows; a last line counts the rest."""
    stream.writelines(f"{line}\n" for line in limited(_annotations(report, view)))


def limited(found: Iterable[Annotation]) -> Iterator[str]:
    """The lines of annotations, most severe first, as many as GitHub shows, and one that counts the rest."""
    ranked = sorted(found, key=lambda item: SEVERITIES.index(item[0]))
    left = 0
    for _, items in groupby(ranked, key=lambda item: item[0]):
        lines = [line for _, line in items]
        yield from lines[:MOST]
        left += max(0, len(lines) - MOST)
    if left:
        yield f"{left} more are not annotated: GitHub shows {MOST} of a kind"


def saved(finding: Mapping[str, Any]) -> Annotation:
    """The annotation of a finding as the JSON of a report or a comparison holds it."""
    severity: Severity = finding["severity"]
    place = (finding["path"], finding["line"], finding["column"])
    message = f"{finding['message']} ({finding['module']})" if finding["module"] else finding["message"]
    titles = [fix["title"] for fix in finding["fixes"]]
    return severity, _told(severity, place, (finding["rule"], finding["code"]), message, titles)


def _annotations(report: Report, view: View) -> Iterator[Annotation]:
    for failure in report.errors:
        yield "error", _failed(failure, None, None)
    for target in report.targets:
        if target.error:
            yield "error", _failed(target.error, target.path, target.line)
        for finding in view.visible(target.findings):
            if stands(finding):
                yield finding.severity, _finding(finding, target, view.sources)


def _finding(finding: Finding, target: TargetReport, sources: Sources) -> str:
    span = finding.span
    path, line, column = (span.path, span.line, sources.column(span)) if span else (target.path, target.line, None)
    message = f"{finding.message} ({finding.module})" if finding.module else finding.message
    titles = [fix.title for fix in finding.fixes]
    return _told(finding.severity, (path, line, column), (finding.rule, finding.code), message, titles)


def _told(severity: Severity, place: Place, rule: tuple[str, str], message: str, fixes: Sequence[str]) -> str:
    said = "\n".join([message, *(f"fix: {title}" for title in fixes)])
    return _command(severity, *place, "{} ({})".format(*rule), said)


def _failed(failure: Failure, path: str | None, line: int | None) -> str:
    message = f"{one_line(failure.message)}\n{failure.hint}" if failure.hint else one_line(failure.message)
    return _command(
        "error", failure.path or path, failure.line or line, None, f"not analysed ({failure.kind})", message
    )


def _command(
    severity: Severity, path: str | None, line: int | None, column: int | None, title: str, message: str
) -> str:
    given = {"file": path and _uri(path), "line": line, "col": column, "title": f"gradlint: {title}"}
    properties = ",".join(f"{name}={_property(str(value))}" for name, value in given.items() if value)
    return f"::{COMMANDS[severity]} {properties}::{_data(message)}"


def _uri(path: str) -> str:
    """The path as GitHub counts it: from the root of the repository, with slashes."""
    return relative_to(os.environ.get("GITHUB_WORKSPACE"), shown(path))


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
