"""The chart of the gradient on a log axis, drawn in characters."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.text import Text

from gradlint.report import chart
from gradlint.report.number import power
from gradlint.report.terminal import STYLES, WIDEST, hang, middle
from gradlint.report.view import View

COLUMNS = {"measured": "● measured", "predicted": "○ predicted"}
LOSSY = "▌"


def plot(rows: list[chart.Bar], view: View) -> Iterator[Text]:
    """A title, the axis, and a line for each row: name, place on the axis, sizes."""
    axis = chart.axis(rows)
    names = [row.label + (f" … +{row.layers - 1}" if row.layers > 1 else "") for row in rows]
    columns = [column for column in COLUMNS if any(_sizes(row)[column] is not None for row in rows)]
    label = min(34, max(map(len, names)))
    width = max(20, min(view.width or 100, WIDEST) - label - 5 - 13 * len(columns))
    yield from _title(rows, view)
    heads = "".join(f"{COLUMNS[column]:>13}" for column in columns)
    yield Text(f"{'':{label + 3}}{_ticks(axis, width)}{heads}", STYLES["faint"])
    for row, name in zip(rows, names, strict=True):
        bullet = (LOSSY if row.lossy else " ", "red")
        sizes = [(f"{_size(_sizes(row)[c]):>13}", "" if c == columns[0] else "dim") for c in columns]
        yield Text.assemble(bullet, f"{middle(name, label):{label}}  ", _line(row, axis, width), "  ", *sizes)


def _title(rows: list[chart.Bar], view: View) -> Iterator[Text]:
    marked = f"   {LOSSY} part of a finding" if any(row.lossy for row in rows) else ""
    head = Text("gradient at each layer, first to last   ", STYLES["strong"])
    yield from hang(head, Text(f"root mean square (RMS), log scale{marked}", STYLES["faint"]), view, indent=3)


def _sizes(row: chart.Bar) -> dict[str, float | None]:
    return {"measured": row.measured[1] if row.measured else None, "predicted": row.predicted}


def _ticks(axis: chart.Axis, width: int) -> str:
    cells = [" "] * (width + 2)
    for tick in axis.ticks:
        text = f"1e{tick}" if tick else "1"
        start = max(0, min(len(cells) - len(text), axis.place(tick, width) - len(text) // 2))
        cells[start : start + len(text)] = text
    return "".join(cells)


def _line(row: chart.Bar, axis: chart.Axis, width: int) -> Text:
    cells: list[tuple[str, str]] = [(" ", "")] * width
    for tick in axis.ticks:
        cells[axis.place(tick, width)] = ("┊", "dim")
    color = "red" if row.lossy else "green"
    if row.measured:
        low, center, high = (axis.place(value, width) for value in row.measured)
        cells[low : high + 1] = [("─", color)] * (high + 1 - low)
        cells[center] = ("◂" if row.measured[1] == -math.inf else "●", color)
    if row.predicted is not None:
        at = axis.place(row.predicted, width)
        cells[at] = ("◉", color) if cells[at][0] == "●" else ("○", "dim" if row.measured else color)
    return Text.assemble(*cells)


def _size(decades: float | None) -> str:
    """In scientific notation throughout, so that a column of sizes reads by its exponents."""
    if decades is None:
        return "–"
    return f"{10**decades:.1e}" if -300 < decades < 300 else power(decades)
