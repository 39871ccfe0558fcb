"""One target through every station, inside the worker: load → capture + probe → signal → rules → fixes → report."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gradlint import fix, static
from gradlint.assessment import Case, Probed, assess
from gradlint.capture import capture, construction_spans, written
from gradlint.capture.meta import is_on_meta
from gradlint.config import LOSSES, Settings
from gradlint.error import GradlintError, ProbeError
from gradlint.finding import Finding
from gradlint.graph import Graph
from gradlint.load import LoadedModel, artefact, load_each
from gradlint.load.onnx_model import TooLargeError
from gradlint.load.program_module import ProgramModule
from gradlint.probe import Training, measure, train
from gradlint.probe.dependence import dependence
from gradlint.probe.question import questions
from gradlint.probe.run import forward_error
from gradlint.profile import Measurement, Trace
from gradlint.result import TargetReport, failed
from gradlint.serialise import from_data, to_data
from gradlint.source.target import FORMS, Target
from gradlint.static import NOT_ASKED

TRAINING_SHARE = 0.3  # of the target's time limit
TOO_LARGE = "the model is too large to hold: it was built and run on meta, without numbers"


def work(job: dict[str, Any]) -> Iterator[Any]:
    """The worker's entry: a job {"target", "settings"} as data → the report of each of the target's models as data."""
    settings = from_data(Settings, job["settings"])
    target = Target(**{**job["target"], "path": Path(job["target"]["path"])})
    yield from map(to_data, analyse(target, settings))


def analyse(target: Target, settings: Settings) -> Iterator[TargetReport]:
    """The report of every model that the target names, one by one; a model that cannot be loaded is a failed report.

    Raises GradlintError when the file itself cannot be read or holds no model.
    """
    if target.form:
        yield _of_file(target, settings)
        return
    for loaded in load_each(target, settings, construction_spans()):
        yield _guarded(target, loaded, settings)


def _of_file(target: Target, settings: Settings) -> TargetReport:
    """The report of a finished model; one that is too large to be measured is only read."""
    try:
        return _guarded(target, artefact.load(target, settings), settings)
    except TooLargeError as error:
        return static.analyse(target, settings, error.message)


def analyse_model(target: str, path: str | None, loaded: LoadedModel, settings: Settings) -> TargetReport:
    """The report of one model that is already built. Raises GradlintError when the model cannot be run."""
    started = time.monotonic()
    graph, measurement, reason = observe(loaded, settings)
    seconds = time.monotonic() - started
    trace, remark = follow(loaded, graph, measurement, settings)
    probed = Probed(measurement, reason, seconds, trace, remark)
    case = Case(
        target,
        loaded.span.path if loaded.span else path,
        loaded.span.line if loaded.span else None,
        loaded.inputs,
        settings.loss or loaded.loss or loaded.loss_hint or "unit",
        loaded.notes,
        loaded.awaited,
    )

    def prove(findings: Sequence[Finding], measured: Measurement) -> Sequence[Finding]:
        found = fix.prove(loaded, graph, findings, measured, settings)
        return _unwritten(found) if path and Path(path).suffix.lower() in FORMS else found

    return assess(case, graph, probed, settings, started, prove if settings.fix else None)


def _unwritten(findings: Sequence[Finding]) -> list[Finding]:
    """The findings with fixes that are only shown: the lines that an exporter noted are not the target's own."""
    return [replace(f, fixes=tuple(replace(each, changes=()) for each in f.fixes)) for f in findings]


def observe(loaded: LoadedModel, settings: Settings) -> tuple[Graph, Measurement | None, str]:
    """The graph of one run, what the probe measured in it, and why it measured nothing when it did not.

    Raises GradlintError when the model's forward cannot be run.
    """
    if not settings.probe:
        return structure(loaded), None, NOT_ASKED
    if loaded.doubt is not None:
        return _observe_file(loaded, loaded.doubt, settings)
    if is_on_meta(loaded.model, loaded.args, loaded.kwargs):
        return structure(loaded), None, TOO_LARGE
    try:
        return *depend(loaded, *measure(loaded, settings=settings, seed=settings.seed), settings), ""
    except ProbeError as error:
        return structure(loaded), None, error.message


def _observe_file(
    loaded: LoadedModel, doubt: Callable[[], str], settings: Settings
) -> tuple[Graph, Measurement | None, str]:
    """A converted file is measured once it is known to compute what the file says."""
    reason = doubt()
    if not reason:
        try:
            return *depend(loaded, *measure(loaded, settings=settings, seed=settings.seed), settings), ""
        except GradlintError as error:
            reason = error.message
    return structure(loaded), None, reason


def follow(
    loaded: LoadedModel, graph: Graph, measured: Measurement | None, settings: Settings
) -> tuple[Trace | None, tuple[str, ...]]:
    """The short training run that was asked for, and a remark where there is none."""
    if not settings.steps:
        return None, ()
    if measured is None:
        return None, ("no training steps: nothing was measured",)
    training = Training(
        settings.steps,
        "adam" if settings.optimizer == "any" else settings.optimizer,
        settings.rate,
        settings.seed,
        settings.device,
        measured.loss if measured.loss in LOSSES or ":" in measured.loss else None,
        TRAINING_SHARE * settings.timeout,
        settings.memory,
    )
    try:
        return train(loaded, graph, training), ()
    except GradlintError as error:
        return None, (f"no training steps: {error.message}",)


def depend(
    loaded: LoadedModel, graph: Graph, measurement: Measurement, settings: Settings
) -> tuple[Graph, Measurement]:
    """The graph and the measurement with the answers to what the graph makes one ask; most graphs ask nothing."""
    suspects = questions(graph)
    if not suspects:
        return graph, measurement
    try:
        answers = dependence(loaded, graph, suspects, device=settings.device, seed=settings.seed)
    except ProbeError as error:
        return graph, replace(measurement, notes=(*measurement.notes, error.message))
    return graph, replace(measurement, dependence=answers)


def structure(loaded: LoadedModel) -> Graph:
    """The graph of one run without a backward pass. Raises ForwardError when the model raises."""
    if isinstance(loaded.model, ProgramModule):
        return written.to_graph(loaded.model.program)
    try:
        return capture(loaded.model, loaded.args, loaded.kwargs, entry=loaded.entry)[0]
    except GradlintError:
        raise
    except Exception as error:
        raise forward_error(error) from error


def _guarded(target: Target, loaded: LoadedModel | GradlintError, settings: Settings) -> TargetReport:
    if isinstance(loaded, GradlintError):
        return _traced(failed(target.text, target.shown or None, loaded), loaded, settings)
    name = ":".join(part for part in (target.shown, loaded.name) if part)
    try:
        return analyse_model(name, target.shown or None, loaded, settings)
    except GradlintError as error:
        return _traced(failed(name, target.shown or None, error), error, settings)


def _traced(report: TargetReport, error: GradlintError, settings: Settings) -> TargetReport:
    """The report with the traceback of what failed, where it is asked for."""
    if report.error is None or not settings.debug:
        return report
    return replace(report, error=replace(report.error, trace="".join(traceback.format_exception(error))))
