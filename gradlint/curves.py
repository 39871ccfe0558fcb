"""A short training run in the terms of a report."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.graph.ir import Graph
from gradlint.graph.place import place
from gradlint.profile import Trace
from gradlint.result import Curve, TraceRun


def trace_run(graph: Graph, trace: Trace) -> TraceRun:
    """The run with one curve a weight, in the order in which the model reads them; weights that it never reads last."""
    return TraceRun(
        optimizer=trace.optimizer,
        rate=trace.rate,
        data=trace.data,
        loss=trace.loss,
        losses=tuple(map(_finite, trace.losses)),
        curves=tuple(_curves(graph, trace)),
        stopped=trace.stopped,
        agreement=trace.agreement,
        seconds=trace.seconds,
    )


def _curves(graph: Graph, trace: Trace) -> Iterator[Curve]:
    readers = {path: op for op in reversed(graph.ops) for path in op.params}
    order = sorted(trace.gradients, key=lambda path: readers[path].index if path in readers else len(graph.ops))
    for path in order:
        span = place(graph, readers[path]) if path in readers else None
        sizes = tuple(10**size if -300 < size < 300 else _limit(size) for size in trace.gradients[path])
        yield Curve(path, sizes, span.path if span else None, span.line if span else None)


def _limit(size: float) -> float | None:
    """0 for what is too small for a number, None for what is too large or none."""
    return 0.0 if size < 0 else None


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
