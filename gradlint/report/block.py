"""A finding as a block of the terminal report: place and source, evidence, verdict, chain rule, fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.text import Text

from gradlint.finding import Finding, Fix
from gradlint.graph.ir import Span
from gradlint.report import chain as chains
from gradlint.report.number import amount, count, label, power
from gradlint.report.outcome import OPTIONS
from gradlint.report.snippet import Snippet, SourceLine, clipped, snippets
from gradlint.report.source import shown
from gradlint.report.terminal import PIPED, STYLES, gutter, hang, linked, middle, note
from gradlint.report.view import View
from gradlint.report.wording import Effect, changes, effects, judged, prices, training
from gradlint.result import TargetReport

LONGEST = 96  # column of a line where an underline ends at the latest
INDENT = 4  # columns that source keeps of its own indentation


def block(finding: Finding, target: TargetReport, view: View) -> Iterator[Text]:
    """The lines of one finding."""
    style = STYLES[finding.severity]
    head = Text.assemble((f"{finding.severity}[{finding.rule}]", style), (f" {finding.code}: ", STYLES["faint"]))
    yield from hang(head, Text(finding.message, STYLES["strong"]), view, indent=6)
    drawn, left = snippets(finding.span, finding.related, view.sources)
    margin = max([len(str(line.number)) for s in drawn for line in s.lines], default=2)
    yield _place(finding.span, target, view, " " * margin + "--> ", finding.module)
    for i, snippet in enumerate(drawn):
        if i:
            yield _place(snippet.at, target, view, " " * margin + "::: ", "")
        yield from source(snippet, margin, style, view)
    if left:
        yield gutter(margin, "= ") + Text(f"and {count(left, 'more place')}", STYLES["faint"])
    yield from _evidence(finding, margin, view)
    yield from _chain(finding, margin)
    for message in finding.folded:
        yield from note("also", Text(message), margin, view)
    yield from _fixes(finding, margin, view)
    yield from note("more", Text(f"gradlint rule {finding.rule}", STYLES["faint"]), margin, view)


def source(snippet: Snippet, margin: int, style: str, view: View) -> Iterator[Text]:
    """The lines of a snippet between two empty ones, each with its underlines, as wide as the report may be."""
    if not snippet.lines:
        return
    indent = max(0, min(len(line.text) - len(line.text.lstrip()) for line in snippet.lines) - INDENT)
    yield gutter(margin, "|")
    for line in snippet.lines:
        if line.skipped:
            yield Text("...".ljust(margin), STYLES["gutter"])
        line = clipped(line, indent, (view.width or PIPED) - margin - 3)
        yield gutter(margin, "| ", line.number) + Text(line.text)
        yield from _marks(line, margin, style)
    yield gutter(margin, "|")


def _marks(line: SourceLine, margin: int, style: str) -> Iterator[Text]:
    for mark in line.marks:
        glyph, color = ("^", style) if mark.primary else ("-", STYLES["gutter"])
        under = " " * mark.start + glyph * (min(mark.end, max(mark.start + 1, LONGEST)) - mark.start)
        yield gutter(margin, "| ") + Text(f"{under} {mark.label}", color)


def _place(span: Span | None, target: TargetReport, view: View, arrow: str, module: str) -> Text:
    path = span.path if span else target.path or target.target
    line = f":{span.line}:{view.sources.column(span)}" if span else f":{target.line}" if target.line else ""
    place = f"{shown(path)}{line}"
    return Text.assemble(
        (arrow, STYLES["gutter"]), linked(place, path, view), (f"   {module}" if module else "", "dim")
    )


# -- what was predicted and measured -----------------------------------------------------------------------------------


def _evidence(finding: Finding, margin: int, view: View) -> Iterator[Text]:
    """A table with a row a number, predicted beside measured, then the verdict."""
    columns = {name: values for name in ("predicted", "measured") if (values := getattr(finding, name))}
    keys = dict.fromkeys(key for values in columns.values() for key in values)
    rows = [[label(key), *(amount(key, v[key]) if key in v else "–" for v in columns.values())] for key in keys]
    table = [["", *columns], *rows] if rows else []
    for i, row in enumerate(_aligned(table)):
        yield from note("" if i else "evidence", Text(row, "" if i else STYLES["faint"]), margin, view)
    style = STYLES["strong"] if finding.verdict in ("confirmed", "measured") else ""
    yield from note("verdict", Text(judged(finding), style), margin, view)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows as text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        yield "   ".join([f"{first:{widths[0]}}", *cells])


# -- fixes -------------------------------------------------------------------------------------------------------------


def _fixes(finding: Finding, margin: int, view: View) -> Iterator[Text]:
    own, shared = prices(finding.fixes)
    changed = [effects(finding, fix) for fix in finding.fixes]
    width = max((len(effect.label) for found in changed for effect in found), default=0)
    for fix, found, price in zip(finding.fixes, changed, own, strict=True):
        yield from note("fix", _title(fix), margin, view)
        for effect in found:
            yield from note("", _effect(effect, width), margin, view)
        for line in training(fix):
            yield from note("", Text(line), margin, view)
        if price:
            yield from note("", Text(f"price: {price}", STYLES["faint"]), margin, view)
        if fix.applicable:
            yield from note("", Text(f"written by {OPTIONS[fix.applicable]}", STYLES["faint"]), margin, view)
        if fix.advice:
            yield from note("", Text(f"advice only: {fix.advice}", STYLES["faint"]), margin, view)
    if shared:
        yield from note("price", Text(f"of each fix: {shared}", STYLES["faint"]), margin, view)
    if view.verbose:
        for fix in finding.rejected:
            text = f"{fix.title}: {changes(finding, fix) or 'nothing changes'}"
            yield from note("in vain", Text(text, STYLES["faint"]), margin, view)


def _title(fix: Fix) -> Text:
    symptom = ("  (treats the symptom)", STYLES["faint"]) if fix.symptomatic and "symptom" not in fix.price else ""
    return Text.assemble((fix.title, STYLES["fix"]), symptom)


def _effect(effect: Effect, width: int) -> Text:
    before = f"{effect.before} → " if effect.before else ""
    return Text.assemble((f"{effect.label:{width}}  ", STYLES["faint"]), before, (effect.after, STYLES["good"]))


# -- the chain rule ----------------------------------------------------------------------------------------------------


def _chain(finding: Finding, margin: int) -> Iterator[Text]:
    laid_open = chains.chain(finding.factors)
    if laid_open is None:
        return
    rows = [*laid_open.head, *laid_open.tail]
    total = f"all {laid_open.total.layers} layers" if len(rows) > 1 else ""
    width = min(32, max(len(name) for name in (total, *(row.module for row in rows))))
    lines = [_row(row.module, row, width) for row in laid_open.head]
    if laid_open.folded:
        low, high = map(power, laid_open.span)
        lines.append(
            Text(f"{'⋮':{width}}  {count(laid_open.folded, 'more layer')}, {low} to {high} each", STYLES["faint"])
        )
    lines += [_row(row.module, row, width) for row in laid_open.tail]
    lines += [_row(total, laid_open.total, width, style=STYLES["strong"])] if total else []
    for i, line in enumerate(lines):
        head = "chain rule:" if i == 0 else ""
        yield gutter(margin, "= " if i == 0 else "  ") + Text(head.ljust(12), STYLES["strong"]) + line


def _row(name: str, row: chains.Row, width: int, style: str = "") -> Text:
    product = " × ".join(f"{label} {power(decades):<7}" for label, decades in row.factors)
    return Text(f"{middle(name, width):{width}}  {product} = {power(row.decades)}", style)
