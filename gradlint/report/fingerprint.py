"""What makes a finding the same finding next week: everything but its line and its numbers."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator

from gradlint.finding import Finding
from gradlint.report.source import shown
from gradlint.result import Report, TargetReport


def fingerprints(report: Report) -> Iterator[tuple[TargetReport, Finding, str]]:
    """Every finding with its fingerprint, unique within the report."""
    seen: Counter[str] = Counter()
    for target in report.targets:
        for finding in target.findings:
            content = identity(target, finding)
            seen[content] += 1
            yield target, finding, _digest(f"{content}\0{seen[content]}")


def identity(target: TargetReport, finding: Finding) -> str:
    """The text that is hashed: rule, target, module path without the indices of repeated blocks, and cause."""
    module = re.sub(r"\d+", "*", finding.module)
    expression = target.target.rpartition(":")[2] if ":" in target.target else ""
    file = (finding.span.path if finding.span else target.path) or target.target
    return "\0".join((finding.rule, shown(file).replace("\\", "/"), expression, module, finding.cause))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
