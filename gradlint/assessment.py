"""From a graph and what was measured in it to the report of one target. Needs no torch."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gradlint import engine, registry
from gradlint.config import Settings
from gradlint.curves import trace_run
from gradlint.disagreement import disagreement
from gradlint.finding import Finding
from gradlint.formats import format_run
from gradlint.graph import Graph
from gradlint.layers import layers
from gradlint.profile import Measurement, Signal, Trace
from gradlint.result import InputUsed, ProbeRun, TargetReport
from gradlint.signal import predict

# families of rules that ask how large signals are, or how they spread
SIZES = frozenset({"vanishing", "exploding", "init", "normalization", "architecture", "units"})
# … and those that ask how layers are joined: of pretrained layers, which were trained as they are, and may stay so
JOINTS = frozenset({"wiring", "output"})
Prove = Callable[[Sequence[Finding], Measurement], Sequence[Finding]]


@dataclass(frozen=True)
class Case:
    """What the report says of the target beside what was found; `loss` is the one to assume where none was computed.

    `awaited` names parameters whose pretrained weights, or the net around them, are not there: neither what they hold
    nor what reaches them is what will be when they are trained.
    """

    target: str
    path: str | None
    line: int | None
    inputs: tuple[InputUsed, ...]
    loss: str = "unit"
    notes: tuple[str, ...] = ()
    awaited: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Probed:
    """What the probe measured, or why it measured nothing, and how long that took (seconds)."""

    measurement: Measurement | None
    reason: str = ""
    seconds: float = 0.0
    trace: Trace | None = None  # of the training steps that were asked for
    remark: tuple[str, ...] = ()  # why there are none


def assess(
    case: Case, graph: Graph, probed: Probed, settings: Settings, started: float, prove: Prove | None = None
) -> TargetReport:
    """Predict, apply the rules, compare with what was measured, and let `prove` add fixes; `started` is monotonic."""
    measurement = probed.measurement
    loss = measurement.loss if measurement else case.loss
    signal = replace(predict(graph, loss), optimizer=settings.optimizer)
    rules = registry.select(settings.select, settings.ignore)
    drafts = engine.draft(rules, graph, signal, measurement, loss, settings.options)
    findings: Sequence[Finding] = engine.regrade(
        engine.judge(drafts, graph, signal, measurement, probed.reason), settings.severities
    )
    findings = _tempered(findings, graph, case.awaited)
    if measurement is not None and prove is not None:
        findings = prove(findings, measurement)
    return TargetReport(
        target=case.target,
        path=case.path,
        line=case.line,
        status="analysed",
        inputs=case.inputs,
        method=graph.coverage.method,
        ops=len(graph.ops),
        parameters=sum(math.prod(p.shape) for p in graph.params.values()),
        unknown=graph.coverage.unknown,
        unpredicted=_unpredicted(graph, signal),
        probe=_probe_run(graph, probed),
        findings=tuple(findings),
        layers=layers(graph, signal.profile, measurement.profile if measurement else None),
        notes=(*case.notes, *graph.coverage.notes, *_measured_notes(graph, signal, measurement), *probed.remark),
        trace=trace_run(graph, probed.trace) if probed.trace else None,
        seconds=time.monotonic() - started,
    )


def _measured_notes(graph: Graph, signal: Signal, measurement: Measurement | None) -> tuple[str, ...]:
    """What the probe remarks, and where it disagrees with the prediction."""
    if measurement is None:
        return ()
    return (*measurement.notes, *disagreement(graph, signal.profile, measurement.profile))


def _unpredicted(graph: Graph, signal: Signal) -> tuple[tuple[str, int], ...]:
    """What the prediction has no answer for, by name, the most frequent first."""
    ops = (graph.ops[index] for index in signal.unknown)
    return tuple(Counter(op.function or op.kind for op in ops).most_common())


def _tempered(findings: Sequence[Finding], graph: Graph, awaited: frozenset[str]) -> Sequence[Finding]:
    """Nothing about the size of signals fails a run where what keeps it is not there.

    That is, norms that were taken out of the file, the pretrained weights of most layers that a finding is about, or a
    net that the model is given.
    """
    absent = "norm" in graph.coverage.absent
    return [
        replace(f, severity="info") if (absent and f.family in SIZES) or _waits(f, graph, awaited) else f
        for f in findings
    ]


def _waits(finding: Finding, graph: Graph, awaited: frozenset[str]) -> bool:
    if finding.family not in SIZES | JOINTS:
        return False
    ops = finding.ops or (() if finding.op is None else (finding.op,))
    params = {path for op in ops for path in graph.ops[op].params}
    if not params:
        return bool(awaited) and set(graph.params) <= awaited
    return 2 * len(params & awaited) > len(params)


def _probe_run(graph: Graph, probed: Probed) -> ProbeRun:
    measurement = probed.measurement
    if measurement is None:
        return ProbeRun(ran=False, reason=probed.reason)
    return ProbeRun(
        ran=True,
        seeds=measurement.seeds,
        device=measurement.device,
        loss=measurement.loss,
        loss_value=measurement.loss_value,
        seconds=probed.seconds,
        format=format_run(graph, measurement.precision) if measurement.precision else None,
    )
