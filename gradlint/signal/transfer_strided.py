"""as_strided: a tensor's memory read in other steps, which is how windows that overlap are cut without a copy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from gradlint.signal import layout
from gradlint.signal import table as tables
from gradlint.signal.field import Cotangent, Field
from gradlint.signal.site import Flow, Site, Unanswered
from gradlint.signal.stages import Stage, Step, chained, exact, flow
from gradlint.signal.transfer_unfold import Windows, sliding, windows


class Run(NamedTuple):
    """How a dimension of the result walks: along which dimension of the memory, by how many of its entries."""

    line: int
    step: int


class Reading(NamedTuple):
    """The memory as lines (dimensions in memory order, joined where no dimension of the result ends), and the runs."""

    order: tuple[int, ...]
    lines: tuple[int, ...]
    runs: tuple[Run, ...]


def strided(site: Site) -> Flow:
    """Windows along one dimension; all others stay as they are, or are permuted."""
    given = site.op.attrs.get("stride")
    if not isinstance(given, Sequence) or not all(isinstance(step, int) for step in given):
        raise Unanswered("as_strided by computed strides")
    source, shape = site.id("input"), site.shape()
    reading = None if site.number("storage_offset", 0.0) else read(site.known(source).shape, shape, list(given))
    if reading is None:
        raise Unanswered("as_strided that is not windows along one dimension")
    return flow(source, chained(site.known(source), _steps(reading, shape)))


def read(before: Sequence[int], after: Sequence[int], strides: Sequence[int]) -> Reading | None:
    """How strides walk over a tensor of shape `before` that fills its memory in some order of its dimensions.

    The first order, from the contiguous one on, by which every stride is a number of entries along one line, at most
    one line is walked by two dimensions, and none is left.
    """
    for order in itertools.permutations(range(len(before))):
        found = _walked([before[dim] for dim in order], after, strides)
        if found is not None:
            return Reading(order, *found)
    return None


def _walked(
    sizes: Sequence[int], after: Sequence[int], strides: Sequence[int]
) -> tuple[tuple[int, ...], tuple[Run, ...]] | None:
    units = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
    starts = []
    for count, stride in zip(after, strides, strict=True):
        fits = [place for place, unit in enumerate(units) if unit <= stride and stride % unit == 0 and sizes[place] > 1]
        starts.append(fits[0] if fits and count > 1 else None)
    used = sorted({place for place in starts if place is not None})
    if not used:
        return None
    bounds = [-1, *used]
    lines = [math.prod(sizes[low + 1 : high + 1]) for low, high in itertools.pairwise(bounds)]
    if math.prod(sizes[used[-1] + 1 :]) > 1:
        return None
    runs = []
    for place, stride in zip(starts, strides, strict=True):
        line = len(used) - 1 if place is None else used.index(place)
        runs.append(Run(line, 0 if place is None else stride // units[place]))
    return (tuple(lines), tuple(runs)) if _inside(lines, runs, after) else None


def _inside(lines: Sequence[int], runs: Sequence[Run], after: Sequence[int]) -> bool:
    """Whether every walk stays on its line, entry by entry, and one line at most has two."""
    twice = 0
    for line, size in enumerate(lines):
        walks = [(run.step, count) for run, count in zip(runs, after, strict=True) if run.line == line and run.step]
        reach = 1 + sum(step * (count - 1) for step, count in walks)
        steps = sorted(step for step, _ in walks)
        if reach > size or len(walks) not in (1, 2) or steps[0] != 1:
            return False
        twice += len(walks) == 2
    return twice <= 1


def _steps(reading: Reading, after: Sequence[int]) -> list[Step]:
    """Permute into memory order, join lines, open windows, permute into the result's order."""
    steps: list[Step] = [_permuted(reading.order), _viewed(reading.lines)]
    walks = [(place, run) for place, run in enumerate(reading.runs) if run.step]
    lines = {line: [place for place, run in walks if run.line == line] for line in range(len(reading.lines))}
    placed = [places[0] for places in lines.values()]
    for line, places in lines.items():
        if len(places) == 2:
            inner, outer = sorted(places, key=lambda place: reading.runs[place].step)
            found = windows(reading.lines[line], after[inner], after[outer], reading.runs[outer].step)
            steps.append(_slid(line, found))
            placed[line] = outer
            placed.append(inner)
        elif after[places[0]] < reading.lines[line]:
            steps.append(_cut(line, after[places[0]]))
    order = [placed.index(place) for place in sorted(placed)]
    return [*steps, _permuted(order), _viewed(after)]


def _slid(line: int, found: Windows) -> Step:
    return lambda x: sliding(x, line, found)


def _cut(line: int, length: int) -> Step:
    def step(x: Field) -> Stage:
        part = x.relabelled(lambda table: layout.restricted(table, line, 0, length), ("narrow", line, 0, length))
        return Stage(part, lambda cotangent: Cotangent(layout.embedded(cotangent.table, x.dims, line, 0)))

    return step


def _viewed(shape: Sequence[int]) -> Step:
    return lambda x: exact(Stage(x, lambda cotangent: cotangent), shape)


def _permuted(order: Sequence[int]) -> Step:
    order = tuple(order)
    inverse = [order.index(dim) for dim in range(len(order))]

    def step(x: Field) -> Stage:
        turned = x.relabelled(lambda table: tables.permute(table, order), ("permute", order))

        def back(cotangent: Cotangent) -> Cotangent:
            return cotangent.on(turned.dims).relabelled(lambda table: tables.permute(table, inverse)).on(x.dims)

        return Stage(turned, back)

    return step
