"""What the HTML templates share: the environment, its filters, and the pieces that need more than a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from gradlint.finding import Finding, Number
from gradlint.report import chain, losses_svg, ribbon, steps, steps_svg
from gradlint.report.chart import key, remedy, stretch
from gradlint.report.number import amount, count, label, number, power, seconds
from gradlint.report.outcome import reaches, stands
from gradlint.report.snippet import SourceLine, snippets
from gradlint.report.source import Sources, shown
from gradlint.report.wording import facts, headline, remarks, suppressed_by, tone, training, verdict
from gradlint.result import Layer, Report, TargetReport

VERDICTS = {
    "confirmed": "confirmed by probe",
    "refuted": "refuted by probe",
    "measured": "found by probe",
    "not-probed": "not probed",
}


@dataclass(frozen=True)
class Row:
    """A row of the layer table; `findings` are (1-based position, code) of those that are about it."""

    layer: Layer
    after: float | None  # the gradient with the fix that is drawn
    lossy: bool
    findings: tuple[tuple[int, str], ...]


def render(template: str, report: Report, sources: Sources, **more: object) -> str:
    """The template filled with the report."""
    page = _environment().get_template(template)
    style = Markup(_text("style.css") + ribbon.STYLE + steps_svg.STYLE + losses_svg.STYLE)
    return page.render(
        report=report, sources=sources, headline=headline(report), tone=tone(report), style=style, **more
    )


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("gradlint.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(FILTERS)
    made.globals.update(
        snippets=lambda finding, sources: snippets(finding.span, finding.related, sources)[0],
        marked=marked,
        chains=chain.chain,
        ribbon=lambda target: Markup(ribbon.svg(target)),
        losses=lambda run: Markup(losses_svg.svg(run)),
        steps=lambda run: Markup(steps_svg.svg(run)),
        steps_title=steps.title,
        steps_summary=steps.summary,
        verdicts=VERDICTS,
    )
    return made


def _text(name: str) -> str:
    loader = PackageLoader("gradlint.report")
    return loader.get_source(Environment(autoescape=True), name)[0]


def marked(line: SourceLine) -> Markup:
    """A source line with its underlines as <mark> and their labels behind."""
    parts: list[Markup] = []
    at = 0
    for mark in sorted(line.marks, key=lambda mark: mark.start):
        if mark.start >= at:
            parts += [
                escape(line.text[at : mark.start]),
                Markup("<mark>{}</mark>").format(line.text[mark.start : mark.end]),
            ]
            at = mark.end
    labels = "; ".join(mark.label for mark in line.marks if mark.label)
    kind = "primary" if any(mark.primary for mark in line.marks) else "further"
    text = Markup("").join([*parts, escape(line.text[at:])])
    return Markup('<span class="{}">{}</span>{}').format(
        kind, text, Markup('  <span class="label">← {}</span>').format(labels) if labels else ""
    )


def tree(target: TargetReport) -> list[tuple[str, list[Row]]]:
    """The layers in runs of one part of the model, each with the findings that are about it."""
    lossy = stretch(target)
    about = [(i, f, frozenset(_places(f))) for i, f in enumerate(target.findings, 1) if stands(f)]
    drawn = remedy(target)
    after: dict[int | None, float | None] = {size.op: size.gradient_rms for size in drawn[1].layers} if drawn else {}
    rows = [
        Row(
            layer,
            after.get(layer.index),
            key(layer) in lossy,
            tuple((i, f.code) for i, f, places in about if key(layer) in places),
        )
        for layer in target.layers
    ]
    return [(name, rows[start:end]) for name, start, end in ribbon.groups(target.layers)]


def _places(finding: Finding) -> Sequence[int | str]:
    return (*finding.ops, *(f.op for f in finding.factors), *(f.module for f in finding.factors), finding.module)


def measured(finding: Finding) -> dict[str, Number]:
    """What was measured of the finding, by the probe or before a fix was tried."""
    before = {key: value for fix in finding.fixes for key, value in fix.measured_before.items()}
    return {**before, **finding.measured}


def keys(finding: Finding) -> list[str]:
    """Every quantity that the finding or one of its fixes has a number of, the finding's own first."""
    after = (key for fix in finding.fixes for key in fix.measured_after)
    return list(dict.fromkeys((*finding.predicted, *finding.measured, *after)))


def _value(values: Mapping[str, Number], name: str) -> str:
    return amount(name, values[name]) if name in values else ""


def _factors(row: chain.Row) -> str:
    return " × ".join(f"{name} {power(decades)}" for name, decades in row.factors)


def _size(rms: float | None) -> str:
    return "–" if rms is None else number(rms)


FILTERS: Mapping[str, Any] = {
    "shown": shown,
    "keys": keys,
    "measured": measured,
    "power": power,
    "label": label,
    "count": count,
    "seconds": seconds,
    "value": _value,
    "factors": _factors,
    "size": _size,
    "facts": lambda target: list(facts(target)),
    "remarks": remarks,
    "suppressed_by": suppressed_by,
    "verdict": verdict,
    "tree": tree,
    "remedy": remedy,
    "training": training,
    "lossy": lambda target: bool(stretch(target)),
    "problems": lambda target: [f for f in target.findings if stands(f) and reaches(f.severity, "warning")],
}
