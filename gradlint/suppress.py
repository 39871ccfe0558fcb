"""What does not count: findings that a comment or the configuration suppresses, and comments that suppress nothing."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gradlint import registry
from gradlint.config import Ignore, Settings
from gradlint.error import UsageError
from gradlint.finding import Finding, Severity, Suppression
from gradlint.graph.ir import Span
from gradlint.report.source import Sources
from gradlint.result import TargetReport
from gradlint.rule import Rule
from gradlint.source.comments import FORM, Comment, Idle, comments

Used = tuple[str, int]  # absolute path of a file, index among its comments
IDLE = "idle"  # the fact by which the rule that reports unused comments is known


@dataclass(frozen=True)
class Entry:
    """A report and the settings it was made under; `file` is the target's own, `whole` that all of it was linted."""

    report: TargetReport
    settings: Settings
    file: str
    whole: bool = True


@dataclass
class Files:
    """The comments of every file that a finding points at, and which of them were used."""

    sources: Sources
    used: set[tuple[Used, str]] = field(default_factory=set)
    _found: dict[str, list[Comment]] = field(default_factory=dict)

    def comments(self, path: str) -> list[Comment]:
        """The comments of a file, read once."""
        name = str(Path(path).resolve())
        if name not in self._found:
            self._found[name] = comments("\n".join(self.sources.lines(path)))
        return self._found[name]

    def on(self, span: Span) -> Iterator[tuple[Used, Comment]]:
        """The comments that cover a place."""
        for i, comment in enumerate(self.comments(span.path)):
            if comment.covers(span.line):
                yield (str(Path(span.path).resolve()), i), comment


def suppress(entries: Sequence[Entry], sources: Sources) -> list[TargetReport]:
    """The reports with what is suppressed marked; the first report of a file also tells its unused comments."""
    files = Files(sources)
    judged = [replace(e, report=replace(e.report, findings=tuple(_findings(e, files)))) for e in entries]
    by_file: dict[str, list[Entry]] = {}
    for entry in judged:
        by_file.setdefault(str(Path(entry.file).resolve()), []).append(entry)
    extra = {id(group[0]): _unused(group, files) for group in by_file.values()}
    return [replace(e.report, findings=(*e.report.findings, *extra.get(id(e), ()))) for e in judged]


def meant(selector: str, rule: str, code: str, family: str) -> bool:
    """Whether a selector – a name, a code, a code prefix or a family – means a rule."""
    prefix = selector.upper()
    return selector in (rule, family) or (len(prefix) > 1 and code.startswith(prefix))


# -- one finding -------------------------------------------------------------------------------------------------------


def _findings(entry: Entry, files: Files) -> Iterator[Finding]:
    for finding in entry.report.findings:
        found = _commented(finding, entry.report, files) or _configured(finding, entry)
        yield replace(finding, suppression=found) if found and finding.stands else finding


def _commented(finding: Finding, report: TargetReport, files: Files) -> Suppression | None:
    """The first comment on one of the finding's lines that names its rule; all of them count as used."""
    found = None
    folded = [message.partition(":")[0] for message in finding.folded]
    for span in _places(finding, report):
        for used, comment in files.on(span):
            files.used |= {(used, rule) for rule in comment.rules if rule in folded}
            for rule in comment.rules:
                if meant(rule, finding.rule, finding.code, finding.family):
                    files.used.add((used, rule))
                    found = found or Suppression("comment", comment.reason, Span(span.path, comment.line))
    return found


def _places(finding: Finding, report: TargetReport) -> Iterator[Span]:
    """The line that the finding points at, and the one that makes the call (or, without either, the model's own)."""
    if finding.span:
        yield finding.span
    elif report.path:
        yield Span(report.path, report.line or 1)
    for layer in report.layers:
        if layer.index is not None and layer.index == finding.op and layer.path:
            yield Span(layer.path, layer.line or 1)


def _configured(finding: Finding, entry: Entry) -> Suppression | None:
    for ignore in entry.settings.ignores:
        if meant(ignore.rule, finding.rule, finding.code, finding.family) and _holds(ignore, finding, entry):
            return Suppression("configuration", ignore.reason)
    return None


def _holds(ignore: Ignore, finding: Finding, entry: Entry) -> bool:
    if ignore.path:
        path = finding.span.path if finding.span else entry.report.path or entry.file
        return _matches(ignore.path, Path(path), Path(entry.settings.root or "."))
    return not ignore.module or any(fnmatch.fnmatchcase(name, ignore.module) for name in _around(finding.module))


def _matches(pattern: str, path: Path, root: Path) -> bool:
    from gradlint.source.walk import patterns

    return bool(patterns(root, [pattern]).ignores(path.resolve(), folder=False))


def _around(module: str) -> list[str]:
    """A module path and those of the modules around it."""
    parts = module.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


# -- comments that suppress nothing ------------------------------------------------------------------------------------


def _unused(group: Sequence[Entry], files: Files) -> list[Finding]:
    """Findings on the unused comments of one file, when they can be told."""
    first = group[0]
    if not all(entry.whole and entry.report.status == "analysed" for entry in group):
        return []
    run = registry.select(first.settings.select, first.settings.ignore) if files.comments(first.file) else ()
    reporters = [rule for rule in run if IDLE in rule.facts]
    if not reporters:
        return []
    probed = all(entry.report.probe.ran for entry in group)
    judgeable = [rule for rule in run if IDLE not in rule.facts and (probed or "probe" not in rule.facts)]
    folded = {message.partition(":")[0] for e in group for f in e.report.findings for message in f.folded}
    idle = list(_idle(first.file, files, judgeable, folded))
    found = [
        _finding(rule, first, draft.message, draft.related[0].span) for rule in reporters for draft in rule.check(idle)
    ]
    return [replace(f, suppression=_configured(f, first)) for f in found]


def _idle(file: str, files: Files, judgeable: Sequence[Rule], folded: set[str]) -> Iterator[Idle]:
    name = str(Path(file).resolve())
    for i, comment in enumerate(files.comments(file)):
        span = Span(file, comment.line, comment.column)
        if comment.wrong:
            yield Idle(span, f"{comment.wrong}, it is written {FORM}")
            continue
        unused = [rule for rule in comment.rules if ((name, i), rule) not in files.used and rule not in folded]
        yield from (Idle(span, problem) for rule in unused if (problem := _problem(rule, judgeable)))


def _problem(selector: str, judgeable: Sequence[Rule]) -> str:
    """What is wrong with a selector that suppresses nothing; "" when that cannot be told in this run."""
    try:
        wanted = registry.select((selector,))
    except UsageError as error:
        return f"{error.message}{', ' + error.hint if error.hint else ''}"
    known = {rule.name for rule in judgeable}
    return f"no finding of {selector} here" if wanted and all(rule.name in known for rule in wanted) else ""


def _finding(rule: Rule, entry: Entry, message: str, span: Span | None) -> Finding:
    return Finding(
        code=rule.code,
        rule=rule.name,
        family=rule.family,
        severity=_severity(rule, entry.settings.severities),
        verdict="not-probed",
        message=message,
        span=span,
        reason="decided by the source alone",
        cause=rule.name,
    )


def _severity(rule: Rule, given: Mapping[str, str]) -> Severity:
    told = next((s for name, s in given.items() if name in (rule.name, rule.code)), rule.severity)
    return told if told in ("error", "warning", "info") else rule.severity  # type: ignore[return-value]
