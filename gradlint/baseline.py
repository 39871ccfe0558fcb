"""A file of findings that are known: they do not fail a run, new ones do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradlint.error import UsageError
from gradlint.finding import Suppression
from gradlint.graph.ir import Span
from gradlint.report.fingerprint import fingerprints, rooted
from gradlint.result import Report, TargetReport

SCHEMA = "gradlint-baseline/1"
Known = Mapping[str, Mapping[str, Any]]  # fingerprint → entry


def read(path: str) -> Known:
    """The entries by fingerprint. Raises UsageError for a file that cannot be read or is no baseline."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        hint = f"--write-baseline {path} writes it"
        raise UsageError(f"cannot read the baseline {path}: {error.strerror}", hint) from error
    except ValueError as error:
        raise UsageError(f"the baseline {path} is not JSON: {error}", span=Span(path, 1)) from error
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise UsageError(f"{path} is no baseline of gradlint ({SCHEMA})", "--write-baseline writes one")
    return {entry["fingerprint"]: entry for entry in data["findings"]}


def write(path: str, report: Report) -> int:
    """Write every standing finding of the report and give their number. Raises UsageError when that fails."""
    entries = [_entry(mark, t, f.rule, f.module, f.message, report) for t, f, mark in fingerprints(report) if f.stands]
    _save(path, entries)
    return len(entries)


def apply(report: Report, known: Known, path: str) -> Report:
    """The report with known findings suppressed, and a note on entries that match nothing any more."""
    marks = (mark for _, _, mark in fingerprints(report))  # in the order of targets and findings
    targets = tuple(
        replace(
            target,
            findings=tuple(
                replace(f, suppression=Suppression("baseline")) if mark in known and f.stands else f
                for f, mark in zip(target.findings, marks, strict=False)
            ),
        )
        for target in report.targets
    )
    old = stale(report, known)
    notes = (f"{_entries(len(old))} of {path} no longer found: --prune-baseline removes them",) if old else ()
    return replace(report, targets=targets, notes=(*report.notes, *notes))


def prune(path: str, report: Report, known: Known) -> int:
    """Remove the entries that match nothing any more from the file and give their number."""
    old = set(stale(report, known))
    if old:
        _save(path, [entry for mark, entry in known.items() if mark not in old])
    return len(old)


def stale(report: Report, known: Known) -> list[str]:
    """The fingerprints of entries that this run would have found: their file was linted, or is gone."""
    found = {mark for _, _, mark in fingerprints(report)}
    linted = set(_linted(report))
    root = Path(str(report.settings.get("root") or ""))
    gone = {path for path in {entry["path"] for entry in known.values()} if not (root / path).exists()}
    return [mark for mark, entry in known.items() if mark not in found and entry["path"] in linted | gone]


def _linted(report: Report) -> Iterator[str]:
    """The files of which every target was analysed, or that hold no model any more."""
    by_file: dict[str, list[TargetReport]] = {}
    for target in report.targets:
        by_file.setdefault(rooted(target.path or target.target, report), []).append(target)
    return (path for path, targets in by_file.items() if all(not t.error for t in targets))


def _entry(mark: str, target: TargetReport, rule: str, module: str, message: str, report: Report) -> dict[str, str]:
    path = rooted(target.path or target.target, report)
    return {"fingerprint": mark, "path": path, "rule": rule, "module": module, "message": message}


def _save(path: str, entries: Sequence[Mapping[str, Any]]) -> None:
    ordered = sorted(entries, key=lambda e: (e["path"], e["rule"], e["module"], e["fingerprint"]))
    text = json.dumps({"schema": SCHEMA, "findings": ordered}, indent=2, ensure_ascii=False) + "\n"
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"
