"""`gitlab`: a Code Quality report (docs.gitlab.com: code quality report format)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any, TextIO

from gradlint.finding import Severity
from gradlint.report.concise import one_line
from gradlint.report.fingerprint import fingerprints
from gradlint.report.outcome import stands
from gradlint.report.source import relative_to, shown
from gradlint.report.view import View
from gradlint.result import Failure, Report

LEVELS: dict[Severity, str] = {"error": "major", "warning": "minor", "info": "info"}


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the array; the interface shows the description alone, so it begins with the rule."""
    stream.write(json.dumps([*_failures(report), *_findings(report)], indent=2) + "\n")


def _findings(report: Report) -> Iterator[dict[str, Any]]:
    for target, finding, fingerprint in fingerprints(report):
        if stands(finding):
            span = finding.span
            path, line = (span.path, span.line) if span else (target.path or target.target, target.line)
            message = f"{finding.message} ({finding.module})" if finding.module else finding.message
            yield _entry(finding.rule, message, fingerprint, LEVELS[finding.severity], path, line)


def _failures(report: Report) -> Iterator[dict[str, Any]]:
    for target in report.targets:
        if target.error:
            yield _failure(target.error, target.path or target.target, target.line)
    for error in report.errors:
        yield _failure(error, "gradlint", None)


def _failure(error: Failure, path: str, line: int | None) -> dict[str, Any]:
    place = error.path or path
    fingerprint = f"not-analysed:{error.kind}:{shown(place)}"
    return _entry("not-analysed", one_line(error.message), fingerprint, "critical", place, error.line or line)


def _entry(check: str, message: str, fingerprint: str, level: str, path: str, line: int | None) -> dict[str, Any]:
    return {
        "description": f"{check}: {message}",
        "check_name": check,
        "fingerprint": fingerprint,
        "severity": level,
        "location": {
            "path": relative_to(os.environ.get("CI_PROJECT_DIR"), shown(path)),
            "lines": {"begin": line or 1},
        },
    }
