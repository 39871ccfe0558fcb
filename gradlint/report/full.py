"""`full`: what a person reads first. A block for each finding, a chart of the gradient, one summary line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from gradlint.finding import SEVERITIES, Finding, Fix
from gradlint.graph.ir import Span
from gradlint.report import chain as chains
from gradlint.report import chart
from gradlint.report.number import count, power, quantities, seconds
from gradlint.report.outcome import stands
from gradlint.report.snippet import Snippet, SourceLine, snippets
from gradlint.report.source import shown
from gradlint.report.view import View
from gradlint.report.wording import changes, facts, verdict
from gradlint.result import Failure, Report, TargetReport

STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "info": "bold cyan",
    "good": "green",
    "faint": "dim",
    "gutter": "blue",
    "strong": "bold",
    "fix": "green",
}
VERDICTS = {
    "confirmed": "[confirmed by probe]",
    "refuted": "[refuted by probe]",
    "measured": "[found by probe]",
    "not-probed": "[not probed]",
}
# for a stream that speaks no Unicode
ASCII = str.maketrans(
    dict(zip("●○◉◂┊─▌⋮×÷·≈σ∂′’−–", "*o@<:-!:x/-~sd''--", strict=True))
    | {"✓": "ok", "→": "->", "…": "...", "≤": "<=", "≥": ">=", "√": "sqrt", "φ": "phi"}
)
WIDEST = 110
CHART_ROWS, HEALTHY_ROWS = 36, 24
COLUMNS = {"measured": "● measured", "predicted": "○ predicted"}


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the report as text; styled when the view has colour, wrapped only when it has a width."""
    buffer = StringIO()
    console = Console(
        file=buffer,
        force_terminal=view.color,
        color_system="standard" if view.color else None,
        width=view.width or WIDEST,
        highlight=False,
        legacy_windows=False,
    )
    for line in _report(report, view):
        line.rstrip()
        console.print(line, soft_wrap=True)
    text = buffer.getvalue()
    stream.write(text if view.unicode else text.translate(ASCII))


def _report(report: Report, view: View) -> Iterator[Text]:
    for failure in report.errors:
        yield from _failure(failure, view)
        yield Text()
    for target in report.targets:
        yield from _target(target, view, alone=len(report.targets) == 1)
    yield from _hang(Text(), _summary(report), view)


def _target(target: TargetReport, view: View, *, alone: bool) -> Iterator[Text]:
    if target.status == "skipped" and not target.error:
        return
    shown_findings = view.visible(target.findings)
    blocks = [f for f in shown_findings if stands(f) and (view.verbose or f.severity != "info")]
    brief = [f for f in shown_findings if f not in blocks]
    if not alone and view.threshold is None:
        yield Text(target.target, STYLES["strong"])
    for finding in blocks:
        yield from _finding(finding, target, view)
        yield Text()
    for finding in brief:
        yield from _brief(finding, view)
    if brief:
        yield Text()
    if target.error:
        yield from _failure(target.error, view, target)
        yield Text()
    if target.status == "analysed" and view.threshold is None:
        yield from _overview(target, view, healthy=not blocks, alone=alone)
        yield Text()


# -- a finding ---------------------------------------------------------------------------------------------------------


def _finding(finding: Finding, target: TargetReport, view: View) -> Iterator[Text]:
    style = STYLES[finding.severity]
    head = Text.assemble((f"{finding.severity}[{finding.rule}]", style), (f" {finding.code}: ", STYLES["faint"]))
    yield from _hang(head, Text(finding.message, STYLES["strong"]), view, indent=6)
    drawn, left = snippets(finding.span, finding.related, view.sources)
    margin = max([len(str(line.number)) for s in drawn for line in s.lines], default=2)
    yield _place(finding.span, target, view, " " * margin + "--> ", finding.module)
    for i, snippet in enumerate(drawn):
        if i:
            yield _place(snippet.at, target, view, " " * margin + "::: ", "")
        yield from _snippet(snippet, margin, style, view)
    if left:
        yield _gutter(margin, "= ") + Text(f"and {count(left, 'more place')}", STYLES["faint"])
    yield from _evidence(finding, margin, view)


def _place(span: Span | None, target: TargetReport, view: View, arrow: str, module: str) -> Text:
    path, line = (span.path, span.line) if span else (target.path or target.target, target.line or 1)
    place = f"{shown(path)}:{line}:{view.sources.column(span)}" if span else f"{shown(path)}:{line}"
    return Text.assemble(
        (arrow, STYLES["gutter"]), _linked(place, path, view), (f"   {module}" if module else "", "dim")
    )


def _linked(text: str, path: str, view: View) -> Text:
    return Text(text, f"link {Path(path).absolute().as_uri()}" if view.links else "")


def _gutter(margin: int, mark: str, number: int | str = "") -> Text:
    return Text.assemble((f"{number:>{margin}} {mark}", STYLES["gutter"]))


def _snippet(snippet: Snippet, margin: int, style: str, view: View) -> Iterator[Text]:
    if not snippet.lines:
        return
    indent = min(len(line.text) - len(line.text.lstrip()) for line in snippet.lines)
    indent = max(0, indent - 4)
    yield _gutter(margin, "|")
    for line in snippet.lines:
        if line.skipped:
            yield Text("...".ljust(margin), STYLES["gutter"])
        yield _gutter(margin, "| ", line.number) + Text(line.text[indent:])
        yield from _marks(line, indent, margin, style)
    yield _gutter(margin, "|")


def _marks(line: SourceLine, indent: int, margin: int, style: str) -> Iterator[Text]:
    for mark in line.marks:
        glyph, color = ("^", style) if mark.primary else ("-", STYLES["gutter"])
        under = " " * (mark.start - indent) + glyph * (mark.end - mark.start)
        yield _gutter(margin, "| ") + Text(f"{under} {mark.label}", color)


def _evidence(finding: Finding, margin: int, view: View) -> Iterator[Text]:
    verdict = Text(f"   {VERDICTS[finding.verdict]}", "bold" if finding.verdict in ("confirmed", "measured") else "dim")
    if finding.predicted:
        tail = Text() if finding.measured else verdict
        yield from _note("predicted", Text(quantities(finding.predicted)) + tail, margin, view)
    if finding.measured:
        yield from _note("measured", Text(quantities(finding.measured)) + verdict, margin, view)
    if not (finding.predicted or finding.measured):
        yield from _note("verdict", verdict[3:], margin, view)
    if finding.reason:
        yield from _note("because", Text(finding.reason), margin, view)
    yield from _chain(finding, margin, view)
    for message in finding.folded:
        yield from _note("also", Text(message), margin, view)
    for fix in finding.fixes:
        yield from _fix(fix, margin, view)
    yield from _note("more", Text(f"gradlint rule {finding.rule}", STYLES["faint"]), margin, view)


def _note(label: str, body: Text, margin: int, view: View) -> Iterator[Text]:
    style = STYLES["fix"] if label == "fix" else STYLES["strong"]
    head = _gutter(margin, "= " if label else "  ") + Text((f"{label}:" if label else "").ljust(12), style)
    yield from _hang(head, body, view)


def _fix(fix: Fix, margin: int, view: View) -> Iterator[Text]:
    """The title, the numbers before → after, and the price, each on lines of its own."""
    title = Text(fix.title, STYLES["fix"])
    if fix.symptomatic:
        title.append("  (treats the symptom)", STYLES["faint"])
    yield from _note("fix", title, margin, view)
    if fix.measured_after:
        yield from _note("", Text(changes(fix)), margin, view)
    if fix.price:
        yield from _note("", Text(f"price: {fix.price}", STYLES["faint"]), margin, view)


def _chain(finding: Finding, margin: int, view: View) -> Iterator[Text]:
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
        label = "chain rule:" if i == 0 else ""
        yield _gutter(margin, "= " if i == 0 else "  ") + Text(label.ljust(12), STYLES["strong"]) + line


def _row(name: str, row: chains.Row, width: int, style: str = "") -> Text:
    product = " × ".join(f"{label} {power(decades):<7}" for label, decades in row.factors)
    return Text(f"{_middle(name, width):{width}}  {product} = {power(row.decades)}", style)


def _brief(finding: Finding, view: View) -> Iterator[Text]:
    """A finding that needs no action: one dim line."""
    word = "refuted" if finding.verdict == "refuted" else finding.severity
    place = f"  {shown(finding.span.path)}:{finding.span.line}" if finding.span else ""
    why = f" ({finding.reason})" if finding.reason else ""
    head = Text.assemble((f"{word}[{finding.rule}]", STYLES["info"] if word == "info" else "dim"), " ")
    yield from _hang(head, Text(f"{finding.message}{why}{place}", STYLES["faint"]), view, indent=6)


def _failure(failure: Failure, view: View, target: TargetReport | None = None) -> Iterator[Text]:
    path = failure.path or (target.path or target.target if target else None)
    message, *more = failure.message.splitlines() or [""]
    yield from _hang(Text(f"error[{failure.kind}]: ", STYLES["error"]), Text(message, STYLES["strong"]), view, indent=6)
    yield from (Text(f"      {line}") for line in more)
    line = failure.line or (target.line if target and not failure.path else None)
    margin = len(str(line)) if line else 1
    if path:
        yield Text.assemble(
            (" " * margin + "--> ", STYLES["gutter"]),
            _linked(f"{shown(path)}:{line}" if line else shown(path), path, view),
        )
    if path and line and (drawn := snippets(Span(path, line), (), view.sources)[0]):
        yield from _snippet(drawn[0], margin, STYLES["error"], view)
    if failure.hint:
        yield from _note("help", Text(failure.hint), margin, view)


# -- the target as a whole ---------------------------------------------------------------------------------------------


def _overview(target: TargetReport, view: View, *, healthy: bool, alone: bool) -> Iterator[Text]:
    rows = chart.bars(target, HEALTHY_ROWS if healthy and not view.verbose else CHART_ROWS)
    if rows and (alone or not healthy or view.verbose):
        yield from _chart(rows, view)
        yield Text()
    if healthy:
        yield Text.assemble(("✓ ", STYLES["good"]), (verdict(target), STYLES["good"]))
    yield from _hang(Text(), Text(" · ".join(facts(target)), STYLES["faint"]), view)
    for note in target.notes:
        yield from _hang(Text("note: ", STYLES["faint"]), Text(note, STYLES["faint"]), view)


# -- the chart ---------------------------------------------------------------------------------------------------------


def _chart(rows: list[chart.Bar], view: View) -> Iterator[Text]:
    axis = chart.axis(rows)
    names = [row.label + (f" … +{row.layers - 1}" if row.layers > 1 else "") for row in rows]
    columns = [column for column in COLUMNS if any(_sizes(row)[column] is not None for row in rows)]
    label = min(34, max(map(len, names)))
    width = max(20, min(view.width or 100, WIDEST) - label - 5 - 13 * len(columns))
    title = ("gradient at each layer, first to last", STYLES["strong"])
    yield Text.assemble(title, ("   RMS, log scale", STYLES["faint"]))
    heads = "".join(f"{COLUMNS[column]:>13}" for column in columns)
    yield Text(f"{'':{label + 3}}{_ticks(axis, width)}{heads}", STYLES["faint"])
    for row, name in zip(rows, names, strict=True):
        bullet = ("▌" if row.lossy else " ", "red")
        sizes = [(f"{_size(_sizes(row)[c]):>13}", "" if c == columns[0] else "dim") for c in columns]
        yield Text.assemble(bullet, f"{_middle(name, label):{label}}  ", _plot(row, axis, width), "  ", *sizes)


def _sizes(row: chart.Bar) -> dict[str, float | None]:
    return {"measured": row.measured[1] if row.measured else None, "predicted": row.predicted}


def _ticks(axis: chart.Axis, width: int) -> str:
    cells = [" "] * (width + 2)
    for tick in axis.ticks:
        text = f"1e{tick}" if tick else "1"
        start = max(0, min(len(cells) - len(text), axis.place(tick, width) - len(text) // 2))
        cells[start : start + len(text)] = text
    return "".join(cells)


def _plot(row: chart.Bar, axis: chart.Axis, width: int) -> Text:
    cells: list[tuple[str, str]] = [(" ", "")] * width
    for tick in axis.ticks:
        cells[axis.place(tick, width)] = ("┊", "dim")
    color = "red" if row.lossy else "green"
    if row.measured:
        low, middle, high = (axis.place(value, width) for value in row.measured)
        cells[low : high + 1] = [("─", color)] * (high + 1 - low)
        cells[middle] = ("◂" if row.measured[1] == -math.inf else "●", color)
    if row.predicted is not None:
        at = axis.place(row.predicted, width)
        cells[at] = ("◉", color) if cells[at][0] == "●" else ("○", "dim" if row.measured else color)
    return Text.assemble(*cells)


def _size(decades: float | None) -> str:
    """In scientific notation throughout, so that a column of sizes reads by its exponents."""
    if decades is None:
        return "–"
    return f"{10**decades:.1e}" if -300 < decades < 300 else power(decades)


# -- text --------------------------------------------------------------------------------------------------------------


def _summary(report: Report) -> Text:
    standing = [f for f in report.findings if stands(f)]
    fixable, refuted = sum(bool(f.fixes) for f in standing), len(report.findings) - len(standing)
    failed = sum(t.error is not None for t in report.targets)
    parts = [
        _found(report, standing) if standing or any(t.status == "analysed" for t in report.targets) else "",
        f"{fixable} with a measured fix" if fixable else "",
        f"{refuted} refuted by the probe" if refuted else "",
        f"{count(failed, 'target')} could not be analysed" if failed else "",
        f"{count(len(report.targets), 'target')} in {seconds(report.seconds)}"
        if report.targets
        else "nothing analysed",
    ]
    first, *rest = filter(None, parts)
    worst = next((s for s in SEVERITIES if s != "info" and report.count(s)), None)
    style = STYLES[worst] if worst else STYLES["error"] if failed or not report.targets else STYLES["good"]
    return Text.assemble((first, style), " · ".join(["", *rest]))


def _found(report: Report, standing: list[Finding]) -> str:
    counted = {s: report.count(s) for s in SEVERITIES if report.count(s)}
    kinds = ", ".join(f"{amount} info" if s == "info" else count(amount, s) for s, amount in counted.items())
    return f"{count(len(standing), 'finding')} ({kinds})" if standing else "no findings"


def _hang(head: Text, body: Text, view: View, indent: int | None = None) -> Iterator[Text]:
    """`head` then `body`, wrapped to the terminal with the further lines indented below the body's start."""
    if view.width is None or head.cell_len + body.cell_len <= view.width:
        yield Text.assemble(head, body)
        return
    hanging = head.cell_len if indent is None else indent
    measure = Console(width=max(20, view.width - max(hanging, head.cell_len)))
    for i, line in enumerate(body.wrap(measure, measure.width)):
        line.rstrip()
        yield Text.assemble(head if i == 0 else " " * hanging, line)


def _middle(text: str, width: int) -> str:
    """The text, its middle left out where it is too long."""
    if len(text) <= width:
        return text
    keep = width - 1
    return f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"
