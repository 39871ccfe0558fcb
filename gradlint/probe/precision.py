"""What is lost in a narrower number format: the pass under autocast, or with 8-bit operands, beside the full one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from gradlint.capture.sharded import whole
from gradlint.error import UsageError
from gradlint.graph.ir import Graph
from gradlint.probe import operands
from gradlint.probe.assembly import assemble, by_value
from gradlint.probe.ledger import log10
from gradlint.probe.run import Loaded, Pass, Plan, passed, seen
from gradlint.profile import Measurement, Precision

FORMATS: Mapping[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
EIGHT = "fp8"
MARGIN = 2.0  # how far below the largest number the largest scaled gradient stays
LARGEST_SCALE = 2.0**24  # torch.amp.GradScaler starts at 2¹⁶ and seldom grows beyond this
NEGLIGIBLE = 1e-3  # a smaller share of lost entries needs no loss scale …
SHRUNK = -0.05  # … where no parameter's gradient is smaller by more decades than this (11 %)
TRIES = 4  # loss scales tried, each a quarter of the one before, until no gradient overflows


def compare(loaded: Loaded, plan: Plan, name: str) -> Precision:
    """What the pass of the plan, over a known graph, loses in the format "bf16", "fp16" or "fp8".

    bf16 and fp16 are runs under `torch.autocast`: parameters stay as they are, and each operation takes the format that
    autocast gives it; float16 products on the CPU are computed as a GPU does. fp8 has no autocast: there the operands
    of products are rounded. Where entries of a float16 gradient are lost or one overflows, the pass is taken once more
    with the loss scaled by the largest power of two that fits. Raises UsageError for another name, and what the pass
    itself raises.
    """
    graph = plan.graph
    assert graph is not None
    if name not in (*FORMATS, EIGHT):
        raise UsageError(f"unknown number format {name!r}", f"one of {', '.join((*FORMATS, EIGHT))}")
    plan = replace(plan, ranges=True)
    full = _ranged(loaded, plan, graph)
    if name == EIGHT:
        return _eight(loaded, plan, graph, full)
    lower = _lowered(plan, graph, FORMATS[name])
    narrow = _ranged(loaded, lower, graph)
    found = _difference(graph, FORMATS[name], full, narrow)
    return _scaled(loaded, lower, graph, full, narrow, found) if name == "fp16" and _suffers(found) else found


@dataclass(frozen=True)
class _Ranged:
    """One pass in terms of the graph; peaks are log10 of the largest magnitude."""

    measured: Measurement
    zeros: Mapping[int, float]  # shares
    peaks: Mapping[int, float]
    half: frozenset[int]  # values whose gradient is held in 16 bits
    params: Mapping[str, tuple[int, int, float]]  # entries, zeros among them, peak


def _lowered(plan: Plan, graph: Graph, dtype: torch.dtype) -> Plan:
    slow = plan.device.type == "cpu" and dtype is torch.float16
    changed = {change.index for change in plan.interventions if change.replace is not None}
    added = [change for change in operands.sixteen(graph, dtype) if change.index not in changed] if slow else []
    return replace(plan, autocast=dtype, interventions=(*plan.interventions, *added))


def _ranged(loaded: Loaded, plan: Plan, graph: Graph) -> _Ranged:
    done = passed(loaded, plan)
    tables = done.tables
    bits = by_value(graph, tables.get("bits", {}))
    return _Ranged(
        measured=assemble(graph, seen(done, plan)),
        zeros=by_value(graph, tables.get("zeros at", {})),
        peaks={value: log10(peak) for value, peak in by_value(graph, tables.get("peak", {})).items()},
        half=frozenset(value for value, width in bits.items() if width == 16),
        params=dict(_params(done)),
    )


def _params(done: Pass) -> Iterator[tuple[str, tuple[int, int, float]]]:
    for path, found in done.gradients.items():
        if found.numel():
            gradient = whole(found).to_dense()
            zeros = gradient.numel() - int(torch.count_nonzero(gradient))
            yield path, (gradient.numel(), zeros, log10(float(gradient.abs().amax())))


def _difference(graph: Graph, dtype: torch.dtype, full: _Ranged, narrow: _Ranged) -> Precision:
    largest = math.log10(torch.finfo(dtype).max)
    held = [value for value in full.measured.extremes if value in narrow.half]
    found = _compared(graph, str(dtype).removeprefix("torch."), full, narrow)
    return replace(
        found,
        headroom={value: largest - _magnitude(full.measured, value) for value in held},
        gradient_headroom={value: largest - full.peaks[value] for value in narrow.half if value in full.peaks},
        underflow={value: _lost(full.zeros.get(value, 0.0), narrow.zeros[value]) for value in narrow.half},
    )


def _compared(graph: Graph, dtype: str, full: _Ranged, narrow: _Ranged) -> Precision:
    """What can be said of any format: parameters, and where numbers are not finite."""
    return Precision(
        dtype=dtype,
        params={path: _lost(_share(full, path), _share(narrow, path)) for path in narrow.params},
        changes=dict(_changes(full.measured, narrow.measured)),
        lost=_all_lost(full, narrow),
        overflow_op=_first_overflow(graph, full.measured, narrow.measured),
        overflow_gradient_op=_overflow(full, narrow),
    )


def _changes(full: Measurement, narrow: Measurement) -> Iterator[tuple[str, float]]:
    for path, param in narrow.params.items():
        before = full.params[path].grad
        if math.isfinite(before) and not math.isnan(param.grad):
            yield path, param.grad - before


def _eight(loaded: Loaded, plan: Plan, graph: Graph, full: _Ranged) -> Precision:
    """With 8-bit operands; no loss scale changes anything there, as every tensor has a scale of its own."""
    lost: dict[int, float] = {}
    rounding = (*plan.interventions, *operands.eight(graph, lost))
    narrow = _ranged(loaded, replace(plan, interventions=rounding), graph)
    return replace(_compared(graph, "float8", full, narrow), underflow=lost)


def _suffers(found: Precision) -> bool:
    """Whether a loss scale could help: not where the forward pass itself overflows."""
    if found.overflow_op is not None:
        return False
    shrunk = min(found.changes.values(), default=0.0) < SHRUNK
    return found.lost >= NEGLIGIBLE or shrunk or found.overflow_gradient_op is not None


def _scaled(loaded: Loaded, plan: Plan, graph: Graph, full: _Ranged, narrow: _Ranged, found: Precision) -> Precision:
    """The loss scale that just fits the largest gradient, and what is still lost with it."""
    held = [full.peaks[value] for value in narrow.half if value in full.peaks]
    scale = fitting([*held, *(peak for _, _, peak in full.params.values())], torch.float16)
    for _ in range(TRIES):
        again = _ranged(loaded, replace(plan, loss_scale=scale), graph)
        overflow = _overflow(full, again)
        if overflow is None:
            break
        scale /= 4
    changes = {path: change - math.log10(scale) for path, change in _changes(full.measured, again.measured)}
    return replace(
        found,
        loss_scale=scale,
        lost_scaled=_all_lost(full, again),
        changes_scaled=changes,
        scaled_overflow_op=overflow,
    )


def fitting(peaks: list[float], dtype: torch.dtype) -> float:
    """The largest power of two, at most LARGEST_SCALE, that keeps every peak (log10) below the largest number."""
    known = [peak for peak in peaks if math.isfinite(peak)]
    room = math.log10(torch.finfo(dtype).max / MARGIN) - max(known, default=0.0)
    return min(LARGEST_SCALE, 2.0 ** math.floor(room / math.log10(2.0)))


def _first_overflow(graph: Graph, full: Measurement, narrow: Measurement) -> int | None:
    """The first op with an output that is not finite here only, where that reaches an output of the model."""
    if full.nonfinite_op is not None or narrow.nonfinite_op is None:
        return None
    known, here = full.profile.activation, narrow.profile.activation
    beyond = {v for v, size in here.items() if not size < math.inf and known.get(v, math.inf) < math.inf}
    return next((op.index for op in graph.ops if beyond & set(op.outputs)), narrow.nonfinite_op)


def _overflow(full: _Ranged, narrow: _Ranged) -> int | None:
    return None if full.measured.nonfinite_gradient_op is not None else narrow.measured.nonfinite_gradient_op


def _magnitude(measured: Measurement, value: int) -> float:
    return log10(max(map(abs, measured.extremes[value])))


def _lost(before: float, after: float) -> float:
    """Of the entries that are not zero in full precision, the share that is zero here."""
    return 0.0 if before >= 1.0 else max(0.0, (after - before) / (1.0 - before))


def _share(ranged: _Ranged, path: str) -> float:
    entries, zeros, _ = ranged.params.get(path, (1, 0, 0.0))
    return zeros / entries


def _all_lost(full: _Ranged, narrow: _Ranged) -> float:
    shared = [path for path in narrow.params if path in full.params]
    alive = sum(full.params[path][0] - full.params[path][1] for path in shared)
    kept = sum(narrow.params[path][0] - narrow.params[path][1] for path in shared)
    return 0.0 if alive <= 0 else max(0.0, 1.0 - kept / alive)
