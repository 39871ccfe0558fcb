"""What a run found as the Language Server Protocol says it: diagnostics, hovers and quick fixes. Starts nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path

from lsprotocol import types
from pygls.workspace import PositionCodec

from gradlint import registry
from gradlint.error import GradlintError
from gradlint.finding import Finding, Severity
from gradlint.graph.ir import Span
from gradlint.integrations.lsp_job import Linted, Replacement, Rewrite
from gradlint.report.concise import one_line
from gradlint.report.source import Sources
from gradlint.report.wording import judged
from gradlint.result import Failure, TargetReport
from gradlint.rule import Rule
from gradlint.source.comments import HERE, MARK, comments
from gradlint.suppress import IDLE, meant

SEVERITIES: Mapping[Severity, types.DiagnosticSeverity] = {
    "error": types.DiagnosticSeverity.Error,
    "warning": types.DiagnosticSeverity.Warning,
    "info": types.DiagnosticSeverity.Information,
}


@dataclass(frozen=True)
class Mark:
    """A diagnostic in a file; `finding` is None where it says that a target could not be analysed."""

    path: str  # absolute
    line: str  # the text of the diagnostic's line when it was linted
    diagnostic: types.Diagnostic
    finding: Finding | None = None
    rewrites: tuple[Rewrite, ...] = ()

    @property
    def number(self) -> int:
        """The 0-based line."""
        return self.diagnostic.range.start.line


@dataclass(frozen=True)
class Reader:
    """The files as they were linted, and the units in which the client counts characters."""

    sources: Sources
    codec: PositionCodec

    def range(self, span: Span) -> types.Range:
        """What the span points at on its line, in the client's units."""
        lines = self.sources.lines(span.path)
        line = min(max(span.line, 1), max(len(lines), 1)) - 1
        found = self.sources.underline(Span(span.path, line + 1, span.column)) or (0, 0)
        start, end = (types.Position(line, character) for character in found)
        return self.codec.range_to_client_units(lines, types.Range(start, end))

    def location(self, span: Span) -> types.Location:
        """The place in a file, as the client names it."""
        return types.Location(Path(span.path).resolve().as_uri(), self.range(span))

    def text(self, span: Span, diagnostic: types.Diagnostic) -> tuple[str, str]:
        """The file of the diagnostic and the text of its line."""
        return str(Path(span.path).resolve()), self.sources.line(span.path, diagnostic.range.start.line + 1) or ""


def marks(linted: Linted, path: str, codec: PositionCodec) -> list[Mark]:
    """Every finding that stands and every failure; `path` is the file where a failure knows no place."""
    given = {name: "\n".join(lines) for name, lines in linted.lines.items()}
    reader = Reader(Sources(given), codec)
    pairs = enumerate((target, finding) for target in linted.report.targets for finding in target.findings)
    found = [
        _found(finding, target, tuple(each for each in linted.rewrites if each.finding == index), reader)
        for index, (target, finding) in pairs
        if finding.stands
    ]
    failed = [target.error for target in linted.report.targets if target.error]
    return [*(_failed(failure, path, reader) for failure in (*linted.report.errors, *failed)), *found]


def _found(finding: Finding, target: TargetReport, rewrites: tuple[Rewrite, ...], reader: Reader) -> Mark:
    span = finding.span or Span(target.path or target.target, target.line or 1)
    inside = f" (in {finding.module})" if finding.module and finding.module not in finding.message else ""
    fixes = "".join(f"\nfix: {fix.title}" for fix in finding.fixes)
    page = _address(finding.rule)
    diagnostic = types.Diagnostic(
        range=reader.range(span),
        message=f"{finding.message}{inside}\n{judged(finding)}{fixes}",
        severity=SEVERITIES[finding.severity],
        code=finding.rule,
        code_description=types.CodeDescription(page) if page else None,
        source="gradlint",
        related_information=list(_related(finding, span, reader)) or None,
    )
    return Mark(*reader.text(span, diagnostic), diagnostic, finding, rewrites)


def _failed(failure: Failure, path: str, reader: Reader) -> Mark:
    """A target that cannot be analysed is a warning: whether its gradients are ill is not known."""
    span = Span(failure.path or path, failure.line or 1)
    hint = f"\nhelp: {failure.hint}" if failure.hint else ""
    diagnostic = types.Diagnostic(
        range=reader.range(span),
        message=f"not analysed: {one_line(failure.message)}{hint}",
        severity=types.DiagnosticSeverity.Warning,
        code=failure.kind,
        source="gradlint",
    )
    return Mark(*reader.text(span, diagnostic), diagnostic)


def _related(finding: Finding, own: Span, reader: Reader) -> Iterator[types.DiagnosticRelatedInformation]:
    """Every further place once, with its label."""
    places: dict[Span, str] = {}
    for item in finding.related:
        if item.span is not None and item.span != own:
            places.setdefault(item.span, f"{item.label} ({item.module})" if item.module else item.label)
    for span, label in places.items():
        yield types.DiagnosticRelatedInformation(reader.location(span), label or "related")


# -- hovers ------------------------------------------------------------------------------------------------------------


def hover(found: Sequence[Mark]) -> types.Hover | None:
    """What was found on a line, and the page of each rule that found it; None for nothing."""
    findings = [mark.finding for mark in found if mark.finding]
    said = [f"**{f.severity}: {f.rule}**: {f.message}  \n{judged(f)}" for f in findings]
    pages = [text for name in dict.fromkeys(f.rule for f in findings) if (text := _page(name))]
    if not findings:
        return None
    return types.Hover(types.MarkupContent(types.MarkupKind.Markdown, "\n\n---\n\n".join([*said, *pages])))


def _rule(name: str) -> Rule | None:
    """The rule, or None for one that this environment does not have."""
    try:
        return registry.find(name)
    except GradlintError:
        return None


def _page(name: str) -> str:
    rule = _rule(name)
    return registry.page(rule).strip() if rule else ""


def _address(name: str) -> str:
    """Where the rule's page lies, as a URI; "" where it is no file."""
    rule = _rule(name)
    if rule is None:
        return ""
    package, _, stem = rule.module.rpartition(".")
    page = resources.files(package) / f"{stem}.md"
    return page.resolve().as_uri() if isinstance(page, Path) and page.is_file() else ""


# -- quick fixes -------------------------------------------------------------------------------------------------------


def actions(found: Sequence[Mark], text: str, uri: str, codec: PositionCodec) -> list[types.CodeAction]:
    """The quick fixes of findings in a document with this text: their edits, then a comment that suppresses each."""
    lines = text.splitlines()
    quick = partial(_action, uri=uri, lines=lines, codec=codec)
    fixes = [
        quick(mark, rewrite.title, [_edit(each) for each in rewrite.replacements], preferred=rewrite.safe)
        for mark in found
        for rewrite in mark.rewrites
        if rewrite.lines == tuple(lines)
    ]
    edits = [(mark, _suppressed(mark, lines)) for mark in found]
    ignores = [quick(mark, f"suppress with {_comment(mark.diagnostic.code)}", [edit]) for mark, edit in edits if edit]
    return [*fixes, *ignores]


def _action(
    mark: Mark,
    title: str,
    edits: Sequence[types.TextEdit],
    *,
    uri: str,
    lines: Sequence[str],
    codec: PositionCodec,
    preferred: bool = False,
) -> types.CodeAction:
    told = [types.TextEdit(codec.range_to_client_units(lines, edit.range), edit.new_text) for edit in edits]
    return types.CodeAction(
        title=title,
        kind=types.CodeActionKind.QuickFix,
        diagnostics=[mark.diagnostic],
        is_preferred=preferred or None,
        edit=types.WorkspaceEdit(changes={uri: told}),
    )


def _edit(replacement: Replacement) -> types.TextEdit:
    start, end = (types.Position(*place) for place in (replacement.start, replacement.end))
    return types.TextEdit(types.Range(start, end), replacement.text)


def _comment(rule: object) -> str:
    return f"# {MARK} {HERE}[{rule}]"


def _suppressed(mark: Mark, lines: Sequence[str]) -> types.TextEdit | None:
    """The comment, behind the line or above it: the first that covers the line once it is there."""
    finding, rule = mark.finding, _rule(mark.finding.rule) if mark.finding else None
    if finding is None or rule is None or IDLE in rule.facts:
        return None
    for edit in _comments(mark.number, finding.rule, lines):
        after = comments("\n".join(_edited(lines, edit)))
        line = mark.number + 1 + edit.new_text.count("\n")
        if any(comment.covers(line) and _named(comment.rules, finding) for comment in after):
            return edit
    return None


def _named(rules: Sequence[str], finding: Finding) -> bool:
    return any(meant(rule, finding.rule, finding.code, finding.family) for rule in rules)


def _comments(number: int, rule: str, lines: Sequence[str]) -> Iterator[types.TextEdit]:
    """The ways to write the comment: one more rule in a comment of the line, a comment behind it, one above it."""
    line = lines[number]
    bracket = line.rfind("]", line.rfind(MARK)) if MARK in line else -1
    if bracket >= 0:
        yield _insertion(number, bracket, f", {rule}")
    comment = _comment(rule)
    yield _insertion(number, len(line.rstrip()), f"  {comment}")
    indent = len(line) - len(line.lstrip())
    yield _insertion(number, 0, f"{line[:indent]}{comment}\n")


def _insertion(line: int, character: int, text: str) -> types.TextEdit:
    place = types.Position(line, character)
    return types.TextEdit(types.Range(place, place), text)


def _edited(lines: Sequence[str], edit: types.TextEdit) -> list[str]:
    """The lines with an insertion, in code points."""
    line, at = edit.range.start.line, edit.range.start.character
    return [*lines[:line], lines[line][:at] + edit.new_text + lines[line][at:], *lines[line + 1 :]]
