"""The loss of two short training runs, the model as it is and with a fix, as a small inline SVG without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape

from gradlint.finding import Trained
from gradlint.report.number import number
from gradlint.report.wording import rates

WIDTH, HEIGHT = 460, 150
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 38, 22
CURVES = (("as it is", "before"), ("with the fix", "mended"))
STYLE = """
.gl-loss{width:100%;max-width:460px;height:auto;font:12px system-ui,sans-serif;color:inherit;display:inline-block}
.gl-loss text{fill:currentColor}.gl-loss .faint{opacity:.65}.gl-loss .grid{stroke:currentColor;stroke-opacity:.18}
.gl-loss path{fill:none;stroke-width:2;stroke-linejoin:round}
.gl-loss .before{stroke:#dc3545}.gl-loss .mended{stroke:#2f9e5f;stroke-dasharray:6 4}
"""


def svg(run: Trained) -> str:
    """The drawing, on a log axis where every loss is positive; "" when neither run made a step."""
    values = [value for value in (*run.before, *run.after) if math.isfinite(value)]
    if not values:
        return ""
    scale: Callable[[float], float] = math.log10 if min(values) > 0 else float
    steps, ends = max(len(run.before), len(run.after)), (scale(min(values)), scale(max(values)))
    title = f"loss over {steps} steps of {run.optimizer} at {rates(run)}"
    parts = [
        f'<text class="faint" x="{LEFT}" y="12">{escape(title)}{", log axis" if scale is math.log10 else ""}</text>',
        *_legend(),
        *_axis(min(values), max(values)),
    ]
    for losses, (_, style) in zip((run.before, run.after), CURVES, strict=True):
        path = _path([scale(v) if math.isfinite(v) else None for v in losses], ends, steps)
        parts += [f'<path class="{style}" d="{path}"/>'] if path else []
    head = f'<svg class="gl-loss" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
    return "\n".join([head, *parts, "</svg>"])


def _legend() -> Iterator[str]:
    for i, (name, style) in enumerate(CURVES):
        x = LEFT + 110 * i
        yield f'<path class="{style}" d="M{x} 26h20"/><text class="faint" x="{x + 26}" y="30">{name}</text>'


def _axis(low: float, high: float) -> Iterator[str]:
    for value, y in ((high, TOP), (low, HEIGHT - BOTTOM)):
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="faint" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{number(value)}</text>'


def _path(values: Sequence[float | None], ends: tuple[float, float], steps: int) -> str:
    """The line through the values that are finite; a run that ended early ends early here."""
    low, high = ends
    path, pen = [], "M"
    for i, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        x = LEFT + (WIDTH - LEFT - RIGHT) * i / max(1, steps - 1)
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * ((value - low) / (high - low) if high > low else 0.5)
        path.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(path)
