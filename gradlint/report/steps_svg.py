"""The gradient of every weight over training steps, as inline SVG without a script."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from gradlint.report.chart import decades
from gradlint.report.number import number
from gradlint.report.ribbon import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Plot
from gradlint.report.steps import lines, span, title
from gradlint.result import Curve, TraceRun

MOST_TICKS = 10
STYLE = """
.gl-steps .curve path{stroke-width:1.6;stroke-opacity:.85}
.gl-steps .curve .hit{stroke:transparent;stroke-width:9;pointer-events:stroke}
.gl-steps .curve:focus{outline:none}
.gl-steps .curve:hover path,.gl-steps .curve:focus path{stroke-width:3.2;stroke-opacity:1}
.gl-steps .curve:hover .tip,.gl-steps .curve:focus .tip{visibility:visible}
"""


def svg(run: TraceRun) -> str:
    """The drawing, "" when there is no curve. First weights are blue, last ones orange; each can be hovered."""
    if not run.curves or not run.losses:
        return ""
    plot = Plot(span(run), len(run.losses))
    parts = [*_grid(plot, len(run.losses)), *(_curve(i, c, run, plot) for i, c in enumerate(run.curves)), *_legend(run)]
    label = escape(f"{title(run)}: RMS of the gradient of {len(run.curves)} weights, log scale")
    head = f'<svg class="gl-ribbon gl-steps" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return "\n".join([head, *parts, "</svg>"])


def _grid(plot: Plot, steps: int) -> Iterator[str]:
    for tick in plot.axis.ticks:
        y = plot.y(tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        label = f"1e{tick}" if tick else "1"
        yield f'<text class="faint" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>'
    for step in range(0, steps, max(1, math.ceil(steps / MOST_TICKS))):
        x = plot.x(step)
        yield f'<text class="faint" x="{x}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{step}</text>'


def _curve(index: int, curve: Curve, run: TraceRun, plot: Plot) -> str:
    path, pen = [], "M"
    for step, rms in enumerate(curve.gradient_rms):
        value = decades(rms)
        path.append("" if value is None else f"{pen}{plot.x(step)} {plot.y(value)}")
        pen = "M" if value is None else "L"
    drawn = "".join(path)
    ends = " → ".join(
        "not finite" if rms is None else number(rms) for rms in (curve.gradient_rms[0], curve.gradient_rms[-1])
    )
    text = escape(f"{curve.parameter}: {ends}")
    tip = f'<text class="tip" x="{LEFT}" y="{TOP - 8}">{text}</text>'
    line = f'<path d="{drawn}" stroke="{_color(index, len(run.curves))}"/><path class="hit" d="{drawn}"/>'
    return f'<g class="curve" tabindex="0" aria-label="{text}">{line}{tip}</g>'


def _legend(run: TraceRun) -> Iterator[str]:
    shown = lines(run, 2) if len(run.curves) > 1 else lines(run, 1)
    x = LEFT
    for place, line in enumerate(shown):
        color = _color(place * (len(run.curves) - 1), len(run.curves))
        name = f"{line.label} ({'first' if place == 0 else 'last'})"
        yield f'<path d="M{x} 12h22" stroke="{color}"/><text class="faint" x="{x + 28}" y="16">{escape(name)}</text>'
        x += 50 + 7 * len(name)


def _color(index: int, count: int) -> str:
    """From blue at the first weight to orange at the last."""
    share = index / max(1, count - 1)
    red, green, blue = (round(a + (b - a) * share) for a, b in ((47, 222), (126, 138), (216, 27)))
    return f"#{red:02x}{green:02x}{blue:02x}"
