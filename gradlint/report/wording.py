"""Sentences that several formats say alike: the verdict on a report and on a target, and how it was reached."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Fix
from gradlint.report import chart
from gradlint.report.number import amount, count, number, quantity, seconds, shape
from gradlint.report.outcome import reaches, stands
from gradlint.result import Layer, Report, TargetReport

UNPROBED = "not probed"


def headline(report: Report) -> str:
    """The whole report in a few words."""
    words = [count(report.count(s), s) for s in ("error", "warning") if report.count(s)]
    failed = sum(t.error is not None for t in report.targets) + len(report.errors)
    words += [f"{count(failed, 'target')} not analysed"] if failed else []
    if words:
        return ", ".join(words)
    return "gradients reach every layer" if report.targets else "nothing analysed"


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
    layers = chart.weighted(target)
    measured = [rms for layer in layers if (rms := layer.gradient_rms)]
    predicted = [rms for layer in layers if (rms := layer.predicted_gradient_rms)]
    if not (measured or predicted):
        return "nothing to report"
    low, high = (number(f(measured or predicted)) for f in (min, max))
    said = "gradients reach" if measured else "gradients should reach"
    return (
        f"{said} {_reached(layers, len(measured or predicted))}: RMS {low} … {high}{'' if measured else ' predicted'}"
    )


def facts(target: TargetReport) -> Iterator[str]:
    """How the verdict was reached: probe, coverage, inputs."""
    probe = target.probe
    if probe.ran:
        loss = f"loss {probe.loss}" + (f" {number(probe.loss_value)}" if probe.loss_value is not None else "")
        yield f"probe: {loss}, {count(len(probe.seeds), 'seed')} on {probe.device} in {seconds(probe.seconds)}"
    else:
        yield f"{UNPROBED}{': ' + probe.reason if probe.reason else ''}"
    unknown = sum(amount for _, amount in target.unknown)
    names = ", ".join(f"{name} × {amount}" if amount > 1 else name for name, amount in target.unknown)
    yield f"{target.ops - unknown} of {count(target.ops, 'op')} analysed" + (f" (unknown: {names})" if unknown else "")
    for used in target.inputs:
        values = f" {used.values}" if used.values else ""
        yield f"input {used.name} {used.dtype}{shape(used.shape)}{values} ({used.source})"


def changes(fix: Fix) -> str:
    """The numbers of a fix that was tried: before → after, for each quantity."""
    pairs = [(key, fix.measured_before.get(key), after) for key, after in fix.measured_after.items()]
    return ", ".join(
        quantity(key, after) if before is None else f"{quantity(key, before)} → {amount(key, after)}"
        for key, before, after in pairs
    )


def _reached(layers: list[Layer], known: int) -> str:
    return f"all {count(known, 'layer')}" if known == len(layers) else f"{known} of {count(len(layers), 'layer')}"
