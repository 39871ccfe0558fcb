"""`full`: what a person reads first. A block for each finding, a chart of the gradient, one summary line."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import TextIO

from rich.console import Console
from rich.text import Text

from gradlint.finding import SEVERITIES, Finding
from gradlint.graph.ir import Span
from gradlint.report import chart
from gradlint.report.block import block, source
from gradlint.report.outcome import stands
from gradlint.report.plot import plot
from gradlint.report.snippet import snippets
from gradlint.report.source import shown
from gradlint.report.steps import BLOCKS, table
from gradlint.report.summary import parts
from gradlint.report.terminal import STYLES, WIDEST, hang, linked, note, pack, packed
from gradlint.report.view import View
from gradlint.report.wording import facts, remarks, suppressed_by, verdict
from gradlint.result import Failure, Report, TargetReport

# for a stream that speaks no Unicode
ASCII = str.maketrans(
    dict(zip("●○◉◂┊─▌⋮×÷·≈σ∂′’−–", "*o@<:-!:x/-~sd''--", strict=True))
    | dict(zip(map(ord, BLOCKS), "_.,-=+*#", strict=True))
    | {"✓": "ok", "→": "->", "…": "...", "≤": "<=", "≥": ">=", "√": "sqrt", "φ": "phi"}
)
CHART_ROWS, HEALTHY_ROWS = 30, 24
LEGEND = {"decade": "a decade is a factor of 10"}


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the report as text, styled when the view has colour; prose fits the terminal, or 120 columns."""
    buffer = StringIO()
    console = Console(
        file=buffer,
        force_terminal=view.color,
        color_system="standard" if view.color else None,
        width=view.width or WIDEST,
        highlight=False,
        legacy_windows=False,
    )
    for line in _explained(_report(report, view), report, view):
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


def _explained(lines: Iterator[Text], report: Report, view: View) -> Iterator[Text]:
    """The lines, what the units among them mean, and the summary."""
    used = set()
    for line in lines:
        used |= {word for word in LEGEND if word in line.plain}
        yield line
    if used and view.threshold is None:
        meaning = "; ".join(text for word, text in LEGEND.items() if word in used)
        yield from hang(Text("units: ", STYLES["faint"]), Text(meaning, STYLES["faint"]), view)
    for remark in report.notes:
        yield from hang(Text("note: ", STYLES["faint"]), Text(remark, STYLES["faint"]), view)
    yield from _summary(report, view)


def _target(target: TargetReport, view: View, *, alone: bool) -> Iterator[Text]:
    if target.status == "skipped" and not target.error:
        return
    shown_findings = view.visible(target.findings)
    blocks = [f for f in shown_findings if stands(f) and (view.verbose or f.severity != "info")]
    brief = [f for f in shown_findings if f not in blocks and (view.verbose or not f.suppression)]
    if not alone and view.threshold is None:
        yield Text(target.target, STYLES["strong"])
    for finding in blocks:
        yield from block(finding, target, view)
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


def _brief(finding: Finding, view: View) -> Iterator[Text]:
    """A finding that needs no action: one dim line."""
    word = "suppressed" if finding.suppression else "refuted" if finding.verdict == "refuted" else finding.severity
    place = f"  {shown(finding.span.path)}:{finding.span.line}" if finding.span else ""
    reason = suppressed_by(finding.suppression) if finding.suppression else finding.reason
    why = f" ({reason})" if reason else ""
    head = Text.assemble((f"{word}[{finding.rule}]", STYLES["info"] if word == "info" else "dim"), " ")
    yield from hang(head, Text(f"{finding.message}{why}{place}", STYLES["faint"]), view, indent=6)


def _failure(failure: Failure, view: View, target: TargetReport | None = None) -> Iterator[Text]:
    path = failure.path or (target.path or target.target if target else None)
    message, *more = failure.message.splitlines() or [""]
    yield from hang(Text(f"error[{failure.kind}]: ", STYLES["error"]), Text(message, STYLES["strong"]), view, indent=6)
    yield from (Text(f"      {line}") for line in more)
    line = failure.line or (target.line if target and not failure.path else None)
    margin = len(str(line)) if line else 1
    if path:
        yield Text.assemble(
            (" " * margin + "--> ", STYLES["gutter"]),
            linked(f"{shown(path)}:{line}" if line else shown(path), path, view),
        )
    if path and line and (drawn := snippets(Span(path, line), (), view.sources)[0]):
        yield from source(drawn[0], margin, STYLES["error"], view)
    if failure.hint:
        yield from note("help", Text(failure.hint), margin, view)


# -- the target as a whole ---------------------------------------------------------------------------------------------


def _overview(target: TargetReport, view: View, *, healthy: bool, alone: bool) -> Iterator[Text]:
    rows = chart.bars(target, HEALTHY_ROWS if healthy and not view.verbose else CHART_ROWS)
    if rows and (alone or not healthy or view.verbose):
        yield from plot(rows, view)
        yield Text()
    if target.trace:
        yield from table(target.trace, view)
        yield Text()
    if healthy:
        yield Text.assemble(("✓ ", STYLES["good"]), (verdict(target), STYLES["good"]))
    yield from packed(facts(target), view)
    for remark in remarks(target):
        yield from hang(Text("note: ", STYLES["faint"]), Text(remark, STYLES["faint"]), view)


# -- the run as a whole ------------------------------------------------------------------------------------------------


def _summary(report: Report, view: View) -> Iterator[Text]:
    said = parts(report)
    worst = next((s for s in SEVERITIES if s != "info" and report.count(s)), None)
    clean = report.targets and not any(target.error for target in report.targets)
    style = STYLES[worst] if worst else STYLES["good"] if clean else STYLES["error"]
    for i, line in enumerate(pack(said, view)):
        found = len(said[0]) if i == 0 else 0
        yield from hang(Text(), Text.assemble((line[:found], style), line[found:]), view)
