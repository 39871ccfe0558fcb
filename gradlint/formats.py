"""What a narrower number format loses, in the terms of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping

from gradlint.graph.ir import Graph
from gradlint.profile import Precision
from gradlint.result import FormatRun

HALVED = -math.log10(2.0)  # decades: a gradient that lost more than half of its size


def format_run(graph: Graph, found: Precision) -> FormatRun:
    """The losses by name and in counts."""
    return FormatRun(
        dtype=found.dtype,
        lost=found.lost,
        hit=_hit(found.changes),
        parameters=len(found.changes),
        worst=min(found.changes, key=lambda path: found.changes[path]) if _hit(found.changes) else "",
        overflow=_name(graph, found.overflow_op),
        gradient_overflow=_name(graph, found.overflow_gradient_op),
        loss_scale=found.loss_scale,
        scaled_lost=found.lost_scaled,
        scaled_hit=None if found.loss_scale is None else _hit(found.changes_scaled),
        scaled_overflow=_name(graph, found.scaled_overflow_op),
    )


def _hit(changes: Mapping[str, float]) -> int:
    return sum(change < HALVED for change in changes.values())


def _name(graph: Graph, index: int | None) -> str:
    """ "linear in blocks.3", or "" for no op."""
    if index is None:
        return ""
    op = graph.ops[index]
    return f"{op.function or op.kind} in {op.module_path}" if op.module_path else op.function or op.kind
