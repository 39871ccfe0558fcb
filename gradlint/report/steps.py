"""The gradient through a short training run: rows, and how they are drawn in characters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.text import Text

from gradlint.report.chart import Axis, Bar, axis, decades
from gradlint.report.number import count, number, power, seconds
from gradlint.report.terminal import STYLES, hang, middle
from gradlint.report.view import View
from gradlint.result import TraceRun

BLOCKS = "▁▂▃▄▅▆▇█"
MOST_ROWS, MOST_STEPS = 12, 40


@dataclass(frozen=True)
class Line:
    """One weight: log10 RMS of its gradient at each step; -inf is zero, None not finite."""

    label: str
    values: tuple[float | None, ...]


def lines(run: TraceRun, most: int) -> list[Line]:
    """At most `most` weights, first to last, evenly apart."""
    curves = run.curves
    picked = curves if len(curves) <= most else [curves[round(i * (len(curves) - 1) / (most - 1))] for i in range(most)]
    return [Line(curve.parameter, tuple(map(decades, curve.gradient_rms))) for curve in picked]


def span(run: TraceRun) -> Axis:
    """The axis that holds every curve."""
    values = [v for curve in run.curves for rms in curve.gradient_rms if (v := decades(rms)) is not None]
    return axis([Bar("", 1, (value, value, value), None, False) for value in values])


def ends(run: TraceRun) -> tuple[float, float]:
    """log10 of the least and the greatest size, at least a decade apart."""
    values = [v for c in run.curves for rms in c.gradient_rms if (v := decades(rms)) is not None and math.isfinite(v)]
    low, high = min(values, default=-1.0), max(values, default=0.0)
    spare = max(0.0, 1.0 - (high - low)) / 2
    return low - spare, high + spare


def summary(run: TraceRun) -> str:
    """How the run was made, what the loss did, and why it ended early."""
    known = [loss for loss in run.losses if loss is not None]
    fell = f"loss {run.loss} {number(known[0])} → {number(known[-1])}" if known else f"loss {run.loss} not finite"
    data = "your batches" if run.data == "given" else "one made-up batch"
    parts = [f"{run.optimizer}, rate {run.rate:g}, {data}", fell]
    parts += [f"samples agree {run.agreement:.2f}"] if run.agreement is not None else []
    parts += [run.stopped] if run.stopped else []
    return "; ".join([*parts, f"in {seconds(run.seconds)}"])


def title(run: TraceRun) -> str:
    """ "gradient through 20 training steps"."""
    return f"gradient through {count(len(run.losses), 'training step')}"


def table(run: TraceRun, view: View) -> Iterator[Text]:
    """A title and a line for each weight: name, first and last size, and a bar a step on one log axis."""
    rows = lines(run, len(run.curves) if view.verbose else MOST_ROWS)
    yield from hang(Text(f"{title(run)}   ", STYLES["strong"]), Text(summary(run), STYLES["faint"]), view, indent=3)
    width = min(34, max((len(row.label) for row in rows), default=0))
    low, high = ends(run)
    legend = f"{power(low)} {BLOCKS} {power(high)}"
    yield Text(f" {'':{width}}  {'first':>9} {'last':>9}  RMS at each step, {legend}", STYLES["faint"])
    for row in rows:
        first, last = _size(row.values[0]), _size(row.values[-1])
        yield Text(f" {middle(row.label, width):{width}}  {first:>9} {last:>9}  {_bars(row.values, low, high)}")


def _bars(values: Sequence[float | None], low: float, high: float) -> str:
    step = max(1, math.ceil(len(values) / MOST_STEPS))
    return "".join("×" if value is None else _block(value, low, high) for value in values[::step])


def _block(value: float, low: float, high: float) -> str:
    share = (max(low, min(high, value)) - low) / (high - low)
    return BLOCKS[round(share * (len(BLOCKS) - 1))]


def _size(value: float | None) -> str:
    if value is None:
        return "inf/nan"
    return "0" if value == -math.inf else f"{10**value:.1e}"
