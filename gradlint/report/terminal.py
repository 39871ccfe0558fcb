"""What the parts of the terminal report share: styles, the gutter, and prose that hangs under its label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gradlint.report.view import View

STYLES = {
    "error": "bold red",
    "warning": "bold yellow",
    "info": "bold cyan",
    "good": "green",
    "faint": "dim",
    "gutter": "blue",
    "strong": "bold",
    "fix": "green",
}
WIDEST = 110  # columns of the chart
PIPED = 120  # columns of prose where there is no terminal to say
LEAST = 20  # columns that prose keeps beside its label


def gutter(margin: int, mark: str, number: int | str = "") -> Text:
    """The left edge of a finding: a line number or nothing, then a mark."""
    return Text.assemble((f"{number:>{margin}} {mark}", STYLES["gutter"]))


def note(label: str, body: Text, margin: int, view: View) -> Iterator[Text]:
    """`= label: body` under a finding; without a label, a further line of the one before."""
    style = STYLES["fix"] if label == "fix" else STYLES["strong"]
    head = gutter(margin, "= " if label else "  ") + Text((f"{label}:" if label else "").ljust(12), style)
    yield from hang(head, body, view)


def hang(head: Text, body: Text, view: View, indent: int | None = None) -> Iterator[Text]:
    """`head` then `body`, wrapped with the further lines indented below the body's start (or by `indent`)."""
    width = view.width or PIPED
    if head.cell_len + body.cell_len <= width:
        yield Text.assemble(head, body)
        return
    hanging = head.cell_len if indent is None else indent
    measure = Console(width=max(LEAST, width - max(hanging, head.cell_len)))
    for i, line in enumerate(body.wrap(measure, measure.width)):
        line.rstrip()
        yield Text.assemble(head if i == 0 else " " * hanging, line)


def packed(parts: Iterable[str], view: View) -> Iterator[Text]:
    """The parts behind each other, parted by dots, as many on a line as fit."""
    for line in pack(parts, view):
        yield from hang(Text(), Text(line, STYLES["faint"]), view, indent=2)


def pack(parts: Iterable[str], view: View) -> Iterator[str]:
    """The same as plain lines, of which one is too long where a part is."""
    line = ""
    for part in parts:
        longer = f"{line} · {part}" if line else part
        if line and len(longer) > (view.width or PIPED):
            yield line
            longer = part
        line = longer
    yield line


def middle(text: str, width: int) -> str:
    """The text, its middle left out where it is too long."""
    if len(text) <= width:
        return text
    keep = width - 1
    return f"{text[: keep // 2]}…{text[len(text) - (keep - keep // 2) :]}"


def linked(text: str, path: str, view: View) -> Text:
    """The text as a link to the file, on a terminal that shows links."""
    return Text(text, f"link {Path(path).absolute().as_uri()}" if view.links else "")
