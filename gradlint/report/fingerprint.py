"""What makes a finding the same finding next week: everything but its line and its numbers."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from gradlint.finding import Finding
from gradlint.result import Report, TargetReport


def fingerprints(report: Report) -> Iterator[tuple[TargetReport, Finding, str]]:
    """Every finding with its fingerprint, unique within the report."""
    seen: Counter[str] = Counter()
    for target in report.targets:
        for finding in target.findings:
            content = identity(target, finding, report)
            seen[content] += 1
            yield target, finding, _digest(f"{content}\0{seen[content]}")


def identity(target: TargetReport, finding: Finding, report: Report) -> str:
    """The text that is hashed: rule, file, expression, module path without the indices of blocks, and cause."""
    expression = target.target.rpartition(":")[2] if ":" in target.target else ""
    file = (finding.span.path if finding.span else target.path) or target.target
    return "\0".join((finding.rule, rooted(file, report), expression, normal(finding.module), finding.cause))


def normal(module: str) -> str:
    """A module path in which the blocks of a repeated kind are one."""
    return re.sub(r"\d+", "*", module)


def rooted(path: str, report: Report) -> str:
    """The path from the folder of the configuration (or the working one), with slashes; absolute only outside of it."""
    root = report.settings.get("root") or os.curdir
    inside = os.path.relpath(path, str(root)) if _inside(path, str(root)) else path
    return inside.replace(os.sep, "/")


def _inside(path: str, root: str) -> bool:
    return Path(path).resolve().is_relative_to(Path(root).resolve())


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]
