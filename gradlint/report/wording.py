"""Sentences that several formats say alike: the verdict on a report and on a target, and how it was reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gradlint.finding import Finding, Fix, Suppression, Trained, Verdict, settled
from gradlint.report import chart
from gradlint.report.number import HEALTH, amount, count, label, number, seconds, shape
from gradlint.report.outcome import reaches, stands
from gradlint.result import FormatRun, Layer, Report, TargetReport

UNPROBED = "not probed"
NAMED = 6  # kinds of op that a line of coverage names
JUDGED: dict[Verdict, str] = {
    "confirmed": "confirmed by probe",
    "refuted": "refuted: the measurement disagrees",
    "measured": "measured: found by the probe",
    "not-probed": "not probed",
}
# What a fix is told by when it has it: whether numbers are finite, then what the fault was provoked to show.
TELLING = ("finite", "distinct-share", "units unlike each other", "output range")

LOST = 1e-10  # of the largest gradient: no optimizer sees both that one and a smaller one


@dataclass(frozen=True)
class Effect:
    """One number without and with a fix, as text; `before` is "" where it is unknown."""

    label: str
    before: str
    after: str


def headline(report: Report) -> str:
    """The whole report in a few words."""
    words = [count(report.count(s), s) for s in ("error", "warning") if report.count(s)]
    failed = sum(t.error is not None for t in report.targets) + len(report.errors)
    words += [f"{count(failed, 'target')} not analysed"] if failed else []
    if words:
        return ", ".join(words)
    analysed = [target for target in report.targets if target.status == "analysed"]
    if not analysed:
        return "no model found" if report.targets else "nothing analysed"
    hidden = sum(_hidden(target) for target in analysed)
    if hidden:
        return f"nothing left to report: {count(hidden, 'finding')} suppressed"
    measured = all(target.probe.ran for target in analysed)
    if not measured:
        return "nothing found; not every model was measured"
    everywhere = all(len(_arriving(target)) == len(chart.weighted(target)) for target in analysed)
    return "gradients reach every layer" if everywhere else "nothing found"


def tone(report: Report) -> str:
    """ "error", "warning" or "ok": how the headline is coloured."""
    if report.errors or any(t.error for t in report.targets) or report.count("error"):
        return "error"
    return "warning" if report.count("warning") or not report.targets else "ok"


def verdict(target: TargetReport) -> str:
    """What a target amounts to: its findings, or the range of what was measured or, failing that, predicted."""
    if target.status != "analysed":
        return "not analysed" if target.error else target.status
    worst = [f.severity for f in target.findings if stands(f) and reaches(f.severity, "warning")]
    if worst:
        return ", ".join(count(worst.count(s), s) for s in ("error", "warning") if s in worst)
    if hidden := _hidden(target):
        return f"nothing left to report: {count(hidden, 'finding')} suppressed"
    layers = chart.weighted(target)
    measured = [rms for layer in layers if (rms := layer.gradient_rms)]
    predicted = [rms for layer in layers if (rms := layer.predicted_gradient_rms)]
    if not (measured or predicted):
        return "nothing to report"
    reached = _arriving(target) if measured else predicted
    low, high = (number(f(reached)) for f in (min, max))
    said = "gradients reach" if measured else "gradients should reach"
    return f"{said} {_reached(layers, len(reached))}: RMS {low} … {high}{'' if measured else ' predicted'}"


def _arriving(target: TargetReport) -> list[float]:
    """The measured gradient RMS of the layers that one arrives at: not zero, nor lost beside the largest."""
    measured = [rms for layer in chart.weighted(target) if (rms := layer.gradient_rms)]
    return [rms for rms in measured if rms >= LOST * max(measured)]


def facts(target: TargetReport) -> Iterator[str]:
    """How the verdict was reached: probe, coverage, inputs."""
    probe = target.probe
    if probe.ran:
        value = f" {number(probe.loss_value)}" if probe.loss_value is not None else ""
        why = "".join(f" ({reason})" for reason in _reasons(target))
        seeds = count(len(probe.seeds), "seed")
        yield f"probe: loss {probe.loss}{value}{why}, {seeds} on {probe.device} in {seconds(probe.seconds)}"
    else:
        yield f"{UNPROBED}{': ' + probe.reason if probe.reason else ''}"
    if probe.format:
        yield narrowed(probe.format)
    unknown = sum(amount for _, amount in target.unknown)
    names = _names(target.unknown)
    yield f"{target.ops - unknown} of {count(target.ops, 'op')} analysed" + (f" (unknown: {names})" if unknown else "")
    if target.unpredicted:
        yield f"nothing predicted through {_names(target.unpredicted)}"
    for used in target.inputs:
        values = f" {used.values}" if used.values else ""
        yield f"input {used.name} {used.dtype}{shape(used.shape)}{values} ({used.source})"


def narrowed(run: FormatRun) -> str:
    """What a narrower number format loses, and what a loss scale leaves of that."""
    if run.overflow:
        return f"{run.dtype}: {run.overflow} overflows, which no loss scale mends"
    parts = [
        f"the gradient overflows at {run.gradient_overflow}" if run.gradient_overflow else "",
        f"{_percent(run.lost)} of the gradient's entries underflow to zero" if run.lost else "",
        f"{run.hit} of {count(run.parameters, 'parameter')} lose more than half of it, {run.worst} most"
        if run.hit
        else "",
        _rescued(run),
    ]
    return f"{run.dtype}: {'; '.join(filter(None, parts)) or 'nothing overflows or underflows'}"


def _rescued(run: FormatRun) -> str:
    if run.loss_scale is None:
        return ""
    scale = f"loss scale {run.loss_scale:g}"
    if run.scaled_overflow:
        return f"with {scale}, too, the gradient overflows at {run.scaled_overflow}"
    left = f", and {count(run.scaled_hit, 'parameter')} still lose over half" if run.scaled_hit else ""
    return f"with {scale} {_percent(run.scaled_lost or 0.0)} do{left}"


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _names(found: Sequence[tuple[str, int]]) -> str:
    """ "setitem × 3, einsum and 2 more"."""
    shown = [f"{name} × {amount}" if amount > 1 else name for name, amount in found[:NAMED]]
    return ", ".join(shown) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def remarks(target: TargetReport) -> list[str]:
    """The notes of a target that no other line says."""
    return [note for note in target.notes if not (target.probe.ran and note.startswith(_prefix(target)))]


def judged(finding: Finding) -> str:
    """The verdict on a finding and the reason for it, in a few words."""
    return f"{JUDGED[finding.verdict]}{': ' + finding.reason if finding.reason else ''}"


def suppressed_by(suppression: Suppression) -> str:
    """What suppresses a finding, and why."""
    place = f" in line {suppression.span.line}" if suppression.span else ""
    why = f": {suppression.reason}" if suppression.reason else ""
    return f"by {'a comment' if suppression.kind == 'comment' else f'the {suppression.kind}'}{place}{why}"


def effects(finding: Finding, fix: Fix) -> list[Effect]:
    """What a fix changes, in at most two numbers: the one that the finding is about, and the health of the model."""
    found = {key: _effect(fix, key) for key in fix.measured_after}
    moved = {key: effect for key, effect in found.items() if effect.before != effect.after}
    own = [finding.claim.quantity] if finding.claim else []
    ranked = [key for key in (*TELLING, *own, *finding.measured, *moved) if key in moved and key != HEALTH]
    return [moved[key] for key in (*ranked[:1], HEALTH) if key in moved]


def prices(fixes: Sequence[Fix]) -> tuple[list[str], str]:
    """What each fix costs by itself, and what all of several have in common."""
    parts = [[part for part in fix.price.split("; ") if part] for fix in fixes]
    shared = [part for part in parts[0] if all(part in other for other in parts)] if len(parts) > 1 else []
    return ["; ".join(part for part in own if part not in shared) for own in parts], "; ".join(shared)


def changes(finding: Finding, fix: Fix) -> str:
    """The effects of a fix on one line."""
    return ", ".join(
        f"{effect.label} {effect.before + ' → ' if effect.before else ''}{effect.after}"
        for effect in effects(finding, fix)
    )


def training(fix: Fix) -> list[str]:
    """What `--prove` showed of a fix: a line an optimizer, then how long a step takes."""
    lines = [
        f"{run.optimizer} at {rates(run)}: loss {_course(run.before)} as it is, {_course(run.after)} with the fix"
        f" in {count(len(run.after), 'step')}{', your data' if run.data == 'given' else ''}"
        + "".join(f" ({why})" for why in dict.fromkeys(run.stopped) if why)
        for run in fix.trained
    ]
    times = [run.step_time for run in fix.trained if run.step_time is not None]
    return [*lines, f"step time: {sum(times) / len(times):.2f} × that of the model as it is"] if times else lines


def rates(run: Trained) -> str:
    """The learning rate of both runs, or the two where each has its own."""
    return f"{run.rate:g}" if run.rate_before is None else f"{run.rate_before:g} and {run.rate:g}"


def _course(losses: Sequence[float]) -> str:
    """The first loss and the mean of the last tenth of them."""
    return f"{losses[0]:.3g} → {settled(losses):.3g}" if losses else "none"


def _effect(fix: Fix, key: str) -> Effect:
    before = fix.measured_before.get(key)
    return Effect(label(key), "" if before is None else amount(key, before), amount(key, fix.measured_after[key]))


def _hidden(target: TargetReport) -> int:
    """How many findings would count if nothing suppressed them."""
    return sum(f.suppression is not None and reaches(f.severity, "warning") for f in target.findings)


def _prefix(target: TargetReport) -> str:
    return f"loss {target.probe.loss}: "


def _reasons(target: TargetReport) -> list[str]:
    """Why the loss was chosen, which the probe says in a note."""
    prefix = _prefix(target)
    return [note.removeprefix(prefix) for note in target.notes if note.startswith(prefix)]


def _reached(layers: list[Layer], known: int) -> str:
    return f"all {count(known, 'layer')}" if known == len(layers) else f"{known} of {count(len(layers), 'layer')}"
