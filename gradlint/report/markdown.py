"""`markdown`: a table and a section a finding, for step summaries and comments."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from typing import TextIO

from gradlint.finding import Finding, Number
from gradlint.report import chain as chains
from gradlint.report.number import amount, count, label, power
from gradlint.report.outcome import stands
from gradlint.report.source import shown
from gradlint.report.view import View
from gradlint.report.wording import changes, headline, training
from gradlint.result import Failure, Report, TargetReport

MOST_BYTES = 900_000  # GitHub refuses a step summary of more than 1 MiB
MARKS = {"error": "🔴", "warning": "🟠", "info": "🔵"}
CONTEXT = 1  # lines of source around the one that a finding is about


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the report, section by section, as long as it fits GitHub's limit; a last line says what was left out."""
    written, left = 0, 0
    for section in _sections(report, view):
        size = len(section.encode("utf-8", "replace"))
        if written + size > MOST_BYTES:
            left += 1
            continue
        stream.write(section)
        written += size
    if left:
        stream.write(f"\n{count(left, 'section')} left out: GitHub's limit is 1 MiB\n")


def _sections(report: Report, view: View) -> Iterator[str]:
    yield f"## gradlint: {headline(report)}\n\n"
    yield from (f"> {_escape(note)}\n\n" for note in report.notes)
    for failure in report.errors:
        yield _failure("gradlint", failure, None)
    for target in report.targets:
        findings = view.visible(target.findings)
        if target.error:
            yield _failure(target.target, target.error, target.path)
        if target.status == "analysed":
            yield _target(target, findings)
            yield from (_details(finding, target, view) for finding in findings if stands(finding))


def _target(target: TargetReport, visible: list[Finding]) -> str:
    findings = [finding for finding in visible if not finding.suppression]
    hidden = len(visible) - len(findings)
    probe = target.probe
    how = (
        f"{count(len(probe.seeds), 'seed')}, loss {probe.loss}, {probe.device}"
        if probe.ran
        else f"not probed {probe.reason}"
    )
    unknown = sum(amount for _, amount in target.unknown)
    lines = [
        f"### {_code(target.target)}",
        "",
        f"{target.ops - unknown} of {count(target.ops, 'op')} analysed · {how}"
        + (f" · {hidden} suppressed" if hidden else ""),
        "",
    ]
    if not findings:
        return "\n".join([*lines, "✅ nothing to report", "", ""])
    rows = ["| | rule | where | what | verdict |", "|---|---|---|---|---|", *(_row(f, target) for f in findings)]
    return "\n".join([*lines, *rows, "", ""])


def _row(finding: Finding, target: TargetReport) -> str:
    cells = (
        MARKS[finding.severity] if stands(finding) else "⚪",
        f"`{finding.rule}` {finding.code}",
        _code(_where(finding, target)),
        _escape(finding.message),
        finding.verdict,
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _details(finding: Finding, target: TargetReport, view: View) -> str:
    head = f"<summary>{MARKS[finding.severity]} <b>{finding.rule}</b>: {_html(finding.message)}</summary>"
    body = [line for part in (_source(finding, view), _numbers(finding), _fixes(finding)) for line in (*part, "")]
    folded = [f"- also: {_escape(message)}" for message in finding.folded]
    return "\n".join(["<details>", head, "", *body, *folded, "", "</details>", "", ""])


def _source(finding: Finding, view: View) -> list[str]:
    if finding.span is None:
        return [_code(finding.module)] if finding.module else []
    span = finding.span
    numbers = range(span.line - CONTEXT, span.line + CONTEXT + 1)
    lines = [(n, text) for n in numbers if (text := view.sources.line(span.path, n)) is not None]
    place = f"{_code(f'{shown(span.path)}:{span.line}')} {_code(finding.module) if finding.module else ''}".rstrip()
    fence = "````"
    code = [f"{n:>4}{' > ' if n == span.line else '   '}{text}" for n, text in lines]
    return [place, "", f"{fence}python", *code, fence] if code else [place]


def _numbers(finding: Finding) -> list[str]:
    keys = dict.fromkeys((*finding.predicted, *finding.measured))
    if not keys:
        return []
    rows = [f"| {label(key)} | {_cell(finding.predicted, key)} | {_cell(finding.measured, key)} |" for key in keys]
    product = chains.chain(finding.factors)
    total = " × ".join(f"{label} {power(d)}" for label, d in product.total.factors) if product else ""
    chain = (
        [f"\nchain rule over {count(product.total.layers, 'layer')}: {total} = {power(product.total.decades)}"]
        if product
        else []
    )
    return ["| | predicted | measured |", "|---|---|---|", *rows, *chain]


def _cell(values: Mapping[str, Number], key: str) -> str:
    return amount(key, values[key]) if key in values else ""


def _fixes(finding: Finding) -> list[str]:
    price = [f" ({_escape(fix.price)})" if fix.price else "" for fix in finding.fixes]
    return [
        f"- **fix**: {_escape(fix.title)}: {'; '.join([changes(finding, fix), *training(fix)])}{cost}"
        for fix, cost in zip(finding.fixes, price, strict=True)
    ]


def _failure(name: str, failure: Failure, path: str | None) -> str:
    place = f" {_code(shown(failure.path or path or ''))}" if failure.path or path else ""
    hint = f"\n> {_escape(failure.hint)}" if failure.hint else ""
    return f"### {_code(name)}\n\n❌ not analysed ({failure.kind}){place}: {_escape(failure.message)}\n{hint}\n\n"


def _where(finding: Finding, target: TargetReport) -> str:
    span = finding.span
    return f"{shown(span.path)}:{span.line}" if span else shown(target.path or target.target)


def _code(text: str) -> str:
    """The text as inline code, whatever backticks it holds."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def _escape(text: str) -> str:
    """The text on one line, with nothing that GitHub would read as markup, mention or issue number."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*_[]#~" else c for c in flat).replace("@", "@<!-- -->")


def _html(text: str) -> str:
    """The text where GitHub reads HTML and no Markdown."""
    return html.escape(" ".join(text.split())).replace("@", "&#64;")
