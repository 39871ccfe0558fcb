"""The gradient of every layer on a log axis: rows and axis, before any format draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradlint.finding import SEVERITIES, Finding, Fix
from gradlint.report.outcome import reaches, stands
from gradlint.result import Layer, TargetReport

WEIGHTED = ("linear", "conv", "recurrent", "embedding")
STEPS = (1, 2, 3, 5, 10, 20, 25, 50, 100)
LEAST_DECADES = 4  # a healthy net spans less; a wider axis keeps it looking as flat as it is


@dataclass(frozen=True)
class Bar:
    """One row: log10 gradient RMS measured (least, median, greatest) and predicted; -inf is zero, None unknown."""

    label: str
    layers: int
    measured: tuple[float, float, float] | None
    predicted: float | None
    lossy: bool


@dataclass(frozen=True)
class Axis:
    """A log10 axis from `low` to `high`, with a tick every `step` decades."""

    low: int
    high: int
    step: int

    @property
    def ticks(self) -> range:
        """The decades that carry a tick, at most six."""
        return range(math.ceil(self.low / self.step) * self.step, self.high + 1, self.step)

    def place(self, decades: float, width: int) -> int:
        """The column of a value among `width` columns; what lies outside (zero) is at the edge."""
        share = (max(self.low, min(self.high, decades)) - self.low) / (self.high - self.low)
        return round(share * (width - 1))


def weighted(target: TargetReport) -> list[Layer]:
    """The layers with weights, earliest first; every layer when none has weights."""
    return [layer for layer in target.layers if layer.kind in WEIGHTED] or list(target.layers)


def bars(target: TargetReport, most: int) -> list[Bar]:
    """At most `most` rows, earliest to latest; neighbours share a row in a deeper net."""
    layers = weighted(target)
    lossy = stretch(target)
    per = max(1, math.ceil(len(layers) / most))
    return [_bar(layers[i : i + per], lossy) for i in range(0, len(layers), per)]


def axis(rows: Iterable[Bar]) -> Axis:
    """The axis that holds every finite value, with whole decades at its ends."""
    values = [v for row in rows for v in (*(row.measured or ()), row.predicted) if v is not None and math.isfinite(v)]
    low, high = (math.floor(min(values)), math.ceil(max(values))) if values else (-LEAST_DECADES, 0)
    missing = max(0, LEAST_DECADES - (high - low))
    low, high = low - missing // 2, high + missing - missing // 2
    step = next((s for s in STEPS if (high - low) / s <= 5), STEPS[-1])
    return Axis(low, high, step)


def stretch(target: TargetReport) -> frozenset[int | str]:
    """Op indices (and, for layers that carry none, module paths) on a stretch that a standing finding is about."""
    marked = [f for f in target.findings if stands(f) and reaches(f.severity, "warning")]
    return frozenset(place for finding in marked for place in _places(finding))


def remedy(target: TargetReport) -> tuple[Finding, Fix] | None:
    """The fix that is drawn beside the model as it is: the first one of the worst standing finding that has any."""
    mended = [f for f in target.findings if stands(f) and f.fixes and f.fixes[0].layers]
    worst = min(mended, key=lambda finding: SEVERITIES.index(finding.severity), default=None)
    return (worst, worst.fixes[0]) if worst else None


def decades(rms: float | None) -> float | None:
    """log10 of an RMS; -inf for zero, None for unknown."""
    if rms is None or math.isnan(rms):
        return None
    return math.log10(rms) if rms > 0 else -math.inf


def _places(finding: Finding) -> list[int | str]:
    modules = {factor.module for factor in finding.factors} or {finding.module}
    return [*finding.ops, *(factor.op for factor in finding.factors), *(m for m in modules if m)]


def _bar(layers: Sequence[Layer], lossy: frozenset[int | str]) -> Bar:
    measured = sorted(d for layer in layers if (d := decades(layer.gradient_rms)) is not None)
    predicted = sorted(d for layer in layers if (d := decades(layer.predicted_gradient_rms)) is not None)
    return Bar(
        label=layers[0].module or layers[0].op,
        layers=len(layers),
        measured=(measured[0], measured[len(measured) // 2], measured[-1]) if measured else None,
        predicted=predicted[len(predicted) // 2] if predicted else None,
        lossy=any(key(layer) in lossy for layer in layers),
    )


def key(layer: Layer) -> int | str:
    """What `stretch` knows the layer by."""
    return layer.module if layer.index is None else layer.index
