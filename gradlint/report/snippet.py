"""The user's source lines under a finding: what to show of them, before any format draws it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from gradlint.finding import Related
from gradlint.graph.ir import Span
from gradlint.report.source import Sources

MOST_PLACES = 5  # related places that are drawn; the rest is counted


@dataclass(frozen=True)
class Mark:
    """An underline below a line: characters `start` to `end`, and a label."""

    start: int
    end: int
    label: str
    primary: bool


@dataclass(frozen=True)
class SourceLine:
    """One line of a file with its marks; `skipped` says that lines are left out before it."""

    number: int
    text: str
    marks: tuple[Mark, ...]
    skipped: bool = False


@dataclass(frozen=True)
class Snippet:
    """The lines to show of one file, in order; `at` is the first mark's place."""

    at: Span
    lines: tuple[SourceLine, ...]


def snippets(span: Span | None, related: Iterable[Related], sources: Sources) -> tuple[list[Snippet], int]:
    """A snippet for each file, the primary span's first, and how many related places are left out.

    Places whose line cannot be read give a snippet without lines when they are primary, and nothing otherwise.
    """
    places = _grouped(span, related)
    kept, left = dict(list(places.items())[:MOST_PLACES]), places
    if span is not None:
        kept.setdefault(span, "")
    files: dict[str, list[Span]] = {}
    for place in kept if span is None else [span, *kept]:
        files.setdefault(place.path, []).append(place)
    drawn = [_snippet(spans, kept, span, sources) for spans in files.values()]
    readable = [s for s in drawn if s.lines or s.at == span]
    return readable, len(left) - len([place for place in left if place in kept])


def clipped(line: SourceLine, indent: int, width: int) -> SourceLine:
    """The line without `indent` columns, cut to `width` around its first mark; `…` stands for what is left out."""
    text = line.text[indent:]
    first = min((mark.start for mark in line.marks), default=indent) - indent
    skip = max(0, min(first - width // 4, len(text) - width)) if len(text) > width else 0
    kept = text[skip : skip + width]
    kept = f"…{kept[1:]}" if skip else kept
    kept = f"{kept[:-1]}…" if skip + width < len(text) else kept
    return replace(line, text=kept, marks=tuple(_shifted(mark, indent + skip, len(kept)) for mark in line.marks))


def _shifted(mark: Mark, by: int, width: int) -> Mark:
    start = min(max(mark.start - by, 0), width)
    return replace(mark, start=start, end=min(max(mark.end - by, start + 1), max(width, start + 1)))


def _grouped(span: Span | None, related: Iterable[Related]) -> dict[Span, str]:
    """Place → label; a place that many modules share is labelled once, with their number."""
    labels: dict[Span, Counter[str]] = {}
    for item in related:
        if item.span is not None:
            labels.setdefault(item.span, Counter())[item.label] += 1
    return {
        place: "; ".join(f"{text} ({n} times)" if n > 1 else text for text, n in found.items())
        for place, found in labels.items()
    }


def _snippet(spans: list[Span], labels: dict[Span, str], primary: Span | None, sources: Sources) -> Snippet:
    lines: list[SourceLine] = []
    for number in sorted({span.line for span in spans}):
        text = sources.line(spans[0].path, number)
        if text is None:
            continue
        here = sorted({span for span in spans if span.line == number}, key=lambda span: (span != primary, span.column))
        marks = tuple(mark for span in here if (mark := _mark(span, labels, primary, sources)))
        skipped = bool(lines) and number > lines[-1].number + 1
        lines.append(SourceLine(number, text.expandtabs(1).rstrip(), marks, skipped))
    return Snippet(spans[0], tuple(lines))


def _mark(span: Span, labels: dict[Span, str], primary: Span | None, sources: Sources) -> Mark | None:
    found = sources.underline(span)
    return None if found is None else Mark(*found, labels.get(span, ""), span == primary)
