"""The gradient ribbon: activation and gradient size of every layer, first to last, as inline SVG without a script."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from gradlint.finding import Size
from gradlint.report.chart import Axis, Bar, axis, decades, key, remedy, stretch
from gradlint.report.number import number
from gradlint.result import Layer, TargetReport

WIDTH, HEIGHT = 960, 340
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 78, 34
LEGEND_AT, TIP_AT, LINE = 12, 50, 16  # baselines of the first lines of legend and tip, and the distance of the next
MOST_GROUPS, FEW_GROUPS = 14, 4
MOST_DOTS = 80  # layers that still get a dot each
After = Size | None  # the layer with the fix applied


@dataclass(frozen=True)
class Series:
    """One line of the drawing: what it is called behind its quantity, its classes, and how it is read of a layer."""

    quantity: str
    name: str
    style: str
    read: Callable[[Layer, After], float | None]


SERIES = (
    Series("activation", "predicted", "act guess", lambda layer, _: layer.predicted_activation_rms),
    Series("gradient", "predicted", "grad guess", lambda layer, _: layer.predicted_gradient_rms),
    Series("activation", "measured", "act", lambda layer, _: layer.activation_rms),
    Series("gradient", "measured", "grad", lambda layer, _: layer.gradient_rms),
    Series("activation", "after the fix", "act after", lambda _, after: after.activation_rms if after else None),
    Series("gradient", "after the fix", "grad after", lambda _, after: after.gradient_rms if after else None),
)
QUANTITIES = ("gradient", "activation")
TOLD = ("measured", "predicted", "after the fix")  # in this order, where they are listed
STYLE = """
.gl-ribbon{width:100%;height:auto;max-width:1100px;font:12px system-ui,sans-serif;color:inherit}
.gl-ribbon text{fill:currentColor}.gl-ribbon .faint{opacity:.65}
.gl-ribbon .grid{stroke:currentColor;stroke-opacity:.14}.gl-ribbon .cut{stroke:currentColor;stroke-opacity:.28}
.gl-ribbon path{fill:none;stroke-width:2;stroke-linejoin:round}
.gl-ribbon .grad{stroke:#2f7ed8}.gl-ribbon .act{stroke:#c98a1b}
.gl-ribbon .guess{stroke-width:7;stroke-opacity:.3;stroke-linecap:round}
.gl-ribbon .after{stroke-dasharray:6 4}
.gl-ribbon circle.grad{fill:#2f7ed8}.gl-ribbon circle.act{fill:#c98a1b}
.gl-ribbon .lossy{fill:#dc3545;fill-opacity:.13}.gl-ribbon .zero{fill:#dc3545}
.gl-ribbon .hit{fill:currentColor;fill-opacity:0}.gl-ribbon .tip{visibility:hidden}
.gl-ribbon .layer:focus{outline:none}
.gl-ribbon .layer:hover .hit,.gl-ribbon .layer:focus .hit{fill-opacity:.16}
.gl-ribbon .layer:hover .tip,.gl-ribbon .layer:focus .tip{visibility:visible}
"""


@dataclass(frozen=True)
class Plot:
    """Where values and layers are drawn."""

    axis: Axis
    layers: int

    def x(self, index: float) -> float:
        """The middle of a layer's column."""
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (index + 0.5) / self.layers, 1)

    def y(self, value: float) -> float:
        """The height of a value; zero is at the foot."""
        share = (max(self.axis.low, min(self.axis.high, value)) - self.axis.low) / (self.axis.high - self.axis.low)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share, 1)


def svg(target: TargetReport) -> str:
    """The drawing, "" when the target has no layers. Every layer can be hovered and focused and names its numbers."""
    layers = target.layers
    if not layers:
        return ""
    mended = remedy(target)
    sizes = {size.op: size for size in mended[1].layers} if mended else {}
    columns = [(layer, None if layer.index is None else sizes.get(layer.index)) for layer in layers]
    plot = Plot(_axis(columns), len(layers))
    lossy = stretch(target)
    parts = [
        *_stretches([key(layer) in lossy for layer in layers], plot),
        *_grid(plot),
        *_groups(layers, plot),
        *(part for each in SERIES for part in _line([decades(each.read(*c)) for c in columns], each.style, plot)),
        *_legend(columns),
        *(_layer(i, each, plot, lossy=key(each[0]) in lossy) for i, each in enumerate(columns)),
    ]
    label = f"gradient and activation RMS of {len(layers)} layers, first to last"
    head = f'<svg class="gl-ribbon" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
    return "\n".join([head, *parts, "</svg>"])


def groups(layers: Sequence[Layer]) -> list[tuple[str, int, int]]:
    """(module prefix, first, past the last) of runs of neighbours, as deep as still leaves room to label them."""
    cuts = _cuts(layers)
    return next((runs for runs in reversed(cuts) if len(runs) <= MOST_GROUPS), cuts[0])


def marks(layers: Sequence[Layer]) -> list[tuple[str, int, int]]:
    """What the axis names: the groups, or where they are few for so many layers every so-manieth of their parts."""
    found = groups(layers)
    deeper = next((runs for runs in _cuts(layers) if len(runs) > MOST_GROUPS), found)
    if len(found) >= FEW_GROUPS or len(layers) <= MOST_DOTS:
        return found
    step = math.ceil(len(deeper) / MOST_GROUPS)
    return deeper[::step]


def _cuts(layers: Sequence[Layer]) -> list[list[tuple[str, int, int]]]:
    """The runs at each depth, the whole model's children first."""
    deepest = max(len(layer.module.split(".")) for layer in layers)
    return [_runs(layers, depth) for depth in range(1, deepest + 1)]


def _runs(layers: Sequence[Layer], depth: int) -> list[tuple[str, int, int]]:
    """Runs at one depth; an operation of an enclosing module (`F.relu` between layers) belongs to the run before."""
    runs: list[tuple[str, int, int]] = []
    for i, layer in enumerate(layers):
        name = ".".join(layer.module.split(".")[:depth])
        if runs and (runs[-1][0] == name or _encloses(layer.module, runs[-1][0])):
            runs[-1] = (runs[-1][0], runs[-1][1], i + 1)
        else:
            runs.append((name, i, i + 1))
    return runs


def _encloses(module: str, other: str) -> bool:
    return not module or other.startswith(f"{module}.")


def _axis(columns: Sequence[tuple[Layer, After]]) -> Axis:
    values = [value for column in columns for each in SERIES if (value := decades(each.read(*column))) is not None]
    return axis([Bar("", 1, (value, value, value), None, False) for value in values])


def _stretches(lossy: Sequence[bool], plot: Plot) -> Iterator[str]:
    start = None
    for i, bad in enumerate([*lossy, False]):
        if bad and start is None:
            start = i
        if not bad and start is not None:
            left, right = plot.x(start - 0.5), plot.x(i - 0.5)
            size = f'x="{left}" y="{TOP}" width="{right - left:.1f}" height="{HEIGHT - TOP - BOTTOM}"'
            yield f'<rect class="lossy" {size}/>'
            start = None


def _grid(plot: Plot) -> Iterator[str]:
    for tick in plot.axis.ticks:
        y = plot.y(tick)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>'
        label = f"1e{tick}" if tick else "1"
        yield f'<text class="faint" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{label}</text>'


def _groups(layers: Sequence[Layer], plot: Plot) -> Iterator[str]:
    room = 0.0
    for name, start, end in marks(layers):
        left, middle = plot.x(start - 0.5), plot.x((start + end - 1) / 2)
        if start:
            yield f'<line class="cut" x1="{left}" x2="{left}" y1="{HEIGHT - BOTTOM}" y2="{HEIGHT - BOTTOM + 6}"/>'
        width = 6.6 * len(name)  # of 12 px text, roughly; what would overlap its neighbour is left out
        begin = max(LEFT, min(middle - width / 2, WIDTH - RIGHT - width))
        if name and begin >= room:
            yield f'<text class="faint" x="{begin:.1f}" y="{HEIGHT - BOTTOM + 20}">{escape(name)}</text>'
            room = begin + width + 8


def _line(values: Sequence[float | None], style: str, plot: Plot) -> Iterator[str]:
    path, pen = [], "M"
    for i, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{plot.x(i)} {plot.y(value)}")
        pen = "L"
    if path:
        yield f'<path class="{style}" d="{"".join(path)}"/>'
    if "guess" not in style and "after" not in style:
        for i, value in enumerate(values):
            if value == -math.inf:
                yield f'<circle class="zero" cx="{plot.x(i)}" cy="{plot.y(value)}" r="3.5"/>'
            elif value is not None and len(values) <= MOST_DOTS:
                yield f'<circle class="{style}" cx="{plot.x(i)}" cy="{plot.y(value)}" r="2.5"/>'


def _legend(columns: Sequence[tuple[Layer, After]]) -> Iterator[str]:
    """A line for each quantity."""
    for y, quantity in enumerate(QUANTITIES):
        x, y = LEFT, LEGEND_AT + LINE * y
        for each in _listed(quantity):
            if any(each.read(*column) is not None for column in columns):
                name = f"{quantity} {each.name}"
                mark = f'<path class="{each.style}" d="M{x} {y}h22"/>'
                yield f'{mark}<text class="faint" x="{x + 28}" y="{y + 4}">{name}</text>'
                x += 200


def _listed(quantity: str) -> list[Series]:
    return sorted((each for each in SERIES if each.quantity == quantity), key=lambda each: TOLD.index(each.name))


def _layer(index: int, column: tuple[Layer, After], plot: Plot, *, lossy: bool) -> str:
    """A column that answers to the pointer and to the keyboard with the layer's numbers."""
    layer = column[0]
    left, width = plot.x(index - 0.5), plot.x(index + 0.5) - plot.x(index - 0.5)
    name = f"{layer.module or 'model'} {layer.op}{' — on the lossy stretch' if lossy else ''}"
    told = [name, "; ".join(filter(None, (_told(quantity, column) for quantity in QUANTITIES)))]
    hit = f'<rect class="hit" x="{left}" y="{TOP}" width="{width:.1f}" height="{HEIGHT - TOP - BOTTOM}"/>'
    tip = "".join(
        f'<text class="tip" x="{LEFT}" y="{TIP_AT + LINE * i}">{escape(text)}</text>' for i, text in enumerate(told)
    )
    return f'<g class="layer" tabindex="0" aria-label="{escape(": ".join(told))}">{hit}{tip}</g>'


def _told(quantity: str, column: tuple[Layer, After]) -> str:
    """ "gradient measured 3e-19, predicted 4e-19, after the fix 0.2"; "" where nothing is known."""
    found = [(each.name, each.read(*column)) for each in _listed(quantity)]
    said = ", ".join(f"{name} {number(value)}" for name, value in found if value is not None)
    return f"{quantity} {said}" if said else ""
