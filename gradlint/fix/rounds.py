"""Fixes written into files, one a round: what was written is linted again, and taken back when it does not stand."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gradlint.error import UsageError
from gradlint.finding import Change, Finding, Fix
from gradlint.fix.edits import edits
from gradlint.fix.edits.text import NoEditError, SourceFile, merged, read, write
from gradlint.result import Report, TargetReport

ROUNDS = 10
LIBRARIES = ("/site-packages/", "/dist-packages/")
# The function that a model computes from its parameters stays: a trained checkpoint gives the same outputs.
SAFE = frozenset({"init", "draw", "untouched", "fuse"})
Lint = Callable[[], Report]
Key = tuple[str, str, str]  # target, rule and module: what stays of a finding when lines move


@dataclass
class Outcome:
    """The last report, and what was written and taken back: lines for the user."""

    report: Report
    written: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Proposal:
    """A fix of a finding, and the file before and after it."""

    key: Key
    fix: Fix
    before: SourceFile
    after: SourceFile


def annotate(report: Report) -> Report:
    """The report with `applicable` set in every fix that has an edit."""
    return replace(report, targets=tuple(map(marked, report.targets)))


def marked(target: TargetReport) -> TargetReport:
    """One target's report with `applicable` set in every fix that has an edit."""
    return _each_fix(target, lambda _, finding, fix: _annotated(finding, fix))


def diff(report: Report, *, unsafe: bool) -> str:
    """A unified diff of the first applicable fix of each finding that stands; of fixes that collide, the first."""
    chosen: dict[Path, tuple[SourceFile, list[tuple[Change, ...]]]] = {}
    for finding in report.findings:
        for fix in _allowed(finding, unsafe=unsafe):
            path = Path(str(finding.span.path if finding.span else "")).resolve()
            source, known = chosen.setdefault(path, (read(path), []))
            found = merged([edit for each in (*known, fix.changes) for edit in edits(source, each)])
            if found is not None:
                known.append(fix.changes)
            break
    return "".join(_diff(source, known) for source, known in chosen.values())


def apply(report: Report, lint: Lint, started: float, *, unsafe: bool) -> Outcome:
    """Write one fix after the other, at most `ROUNDS`, and lint after each; what does not stand is taken back.

    `started` is when the first report was begun, in seconds of `time.time`. Raises UsageError for a file that cannot
    be written, or was changed since; it is then as it was.
    """
    outcome, failed = Outcome(report), dict[tuple[Key, str], str]()
    for _ in range(ROUNDS):
        proposal = next(_proposals(outcome.report, failed, unsafe=unsafe), None)
        if proposal is None:
            break
        if proposal.before.path.stat().st_mtime > started:
            raise UsageError(f"{proposal.before.path} was changed while it was linted", "run gradlint again")
        reason, after, started = _tried(proposal, outcome.report, lint, started)
        what = f"{proposal.before.path}: {proposal.key[1]}: {proposal.fix.title}"
        if reason:
            failed[proposal.key, proposal.fix.title] = reason
            outcome.refused.append(f"{what}: taken back, {reason}")
        else:
            outcome.written.append(what)
            outcome.report = after
    outcome.report = _advised(outcome.report, failed)
    return outcome


def _tried(proposal: Proposal, report: Report, lint: Lint, started: float) -> tuple[str, Report, float]:
    """Why the fix does not stand ("" when it does), the report with it, and since when that holds."""
    write(proposal.before, proposal.after)
    begun = time.time()
    try:
        after = annotate(lint())
        reason = _reason(proposal, report, after)
    except BaseException:
        write(proposal.after, proposal.before)
        raise
    if reason:
        write(proposal.after, proposal.before)
        return reason, report, time.time()
    return "", after, begun


def _reason(proposal: Proposal, before: Report, after: Report) -> str:
    """Why the file with the fix is no better: a target fails, the finding is still there, or another one is new."""
    broken = [t for t in after.targets if t.error is not None]
    if len(broken) > sum(t.error is not None for t in before.targets):
        return f"the model cannot be analysed with it: {broken[0].error.message if broken[0].error else ''}"
    known, now = _standing(before), _standing(after)
    still = [f.message for t in after.targets for f in t.findings if f.stands and _key(t, f) == proposal.key]
    if still:
        return f"the finding is still there: {still[0]}"
    new = [key for key in now if key not in known]
    return f"it brings {new[0][1]}: {now[new[0]]}" if new else ""


def _standing(report: Report) -> dict[Key, str]:
    """The messages of findings at warning or above that count."""
    return {
        _key(target, finding): finding.message
        for target in report.targets
        for finding in target.findings
        if finding.stands and finding.severity != "info"
    }


def _key(target: TargetReport, finding: Finding) -> Key:
    return target.target, finding.rule, finding.module


def _proposals(report: Report, failed: dict[tuple[Key, str], str], *, unsafe: bool) -> Iterator[Proposal]:
    for target in report.targets:
        for finding in target.findings:
            for fix in _allowed(finding, unsafe=unsafe):
                key = _key(target, finding)
                if (key, fix.title) not in failed and finding.span is not None:
                    before = read(Path(finding.span.path))
                    yield Proposal(key, fix, before, before.edited(edits(before, fix.changes)))


def _allowed(finding: Finding, *, unsafe: bool) -> list[Fix]:
    """The fixes that may be written, best first."""
    wanted = ("safe", "unsafe") if unsafe else ("safe",)
    return [fix for fix in finding.fixes if finding.stands and fix.applicable in wanted]


def _annotated(finding: Finding, fix: Fix) -> Fix:
    if finding.span is None or not fix.changes or any(part in finding.span.path for part in LIBRARIES):
        return fix
    if any(change.span and change.span.path != finding.span.path for change in fix.changes):
        return fix
    try:
        before = read(Path(finding.span.path))
        after = before.edited(edits(before, fix.changes))
    except (UsageError, NoEditError, UnicodeEncodeError):  # it stays advice
        return fix
    if after.raw == before.raw:
        return fix
    safe = all(change.kind in SAFE for change in fix.changes)
    return replace(fix, applicable="safe" if safe else "unsafe")


def _advised(report: Report, failed: dict[tuple[Key, str], str]) -> Report:
    """The report in which what was taken back is advice, with the reason."""

    def advised(target: TargetReport, finding: Finding, fix: Fix) -> Fix:
        reason = failed.get((_key(target, finding), fix.title))
        return replace(fix, applicable=None, advice=reason) if reason else fix

    return replace(report, targets=tuple(_each_fix(target, advised) for target in report.targets))


def _each_fix(target: TargetReport, change: Callable[[TargetReport, Finding, Fix], Fix]) -> TargetReport:
    findings = tuple(
        replace(finding, fixes=tuple(change(target, finding, fix) for fix in finding.fixes))
        for finding in target.findings
    )
    return replace(target, findings=findings)


def _diff(source: SourceFile, changes: Sequence[Sequence[Change]]) -> str:
    found = merged([edit for each in changes for edit in edits(source, each)]) or []
    before, after = (text.decode().splitlines(keepends=True) for text in (source.text, source.edited(found).text))
    name = _shown(source.path)
    lines = difflib.unified_diff(before, after, name, name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
