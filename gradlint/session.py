"""The whole run, in the parent process: targets → jobs in worker processes → one report. Never imports torch."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.load import candidates
from gradlint.load.sandbox import Outcome, Sandbox
from gradlint.result import Report, TargetReport, failed
from gradlint.serialise import from_data, to_data
from gradlint.source.target import Target, expand
from gradlint.version import __version__

WORK = "gradlint.analysis:work"
PRELOAD = ("torch", "gradlint.analysis")


def run(texts: Sequence[str], settings: Settings) -> Report:
    """The report on everything that the texts name. What fails costs its own target only.

    A file met in a folder that defines no model is "skipped"; one named by the user is "failed".
    """
    started = time.monotonic()
    plan = [entry for text in texts for entry in _planned(text, settings)]
    jobs = [entry for entry in plan if isinstance(entry, Target)]
    done = _done(jobs, settings)
    reports = tuple(r for entry in plan for r in (done[entry] if isinstance(entry, Target) else (entry,)))
    return Report(reports, __version__, time.monotonic() - started, settings=to_data(settings))


def _planned(text: str, settings: Settings) -> Iterable[Target | TargetReport]:
    """The targets that a worker must analyse, and the reports of those that need none."""
    try:
        targets = expand([text])
    except GradlintError as error:
        yield failed(text, text.partition(":")[0], error)
        return
    for target in targets:
        try:
            candidates(target, all_classes=settings.all_classes)
        except GradlintError as error:
            yield (
                TargetReport(target.text, target.shown, None, "skipped")
                if _modelless(target, error)
                else failed(target.text, target.shown, error)
            )
        else:
            yield target


def _modelless(target: Target, error: GradlintError) -> bool:
    return target.found and error.message.startswith("no model found")


def _done(targets: Sequence[Target], settings: Settings) -> Mapping[Target, tuple[TargetReport, ...]]:
    if not targets:
        return {}
    payloads = [{"target": _job(target), "settings": to_data(settings)} for target in targets]
    jobs = min(settings.jobs, len(targets))
    with Sandbox(jobs=jobs, verbose=settings.verbose, preload=PRELOAD) as sandbox:
        outcomes = sandbox.run(WORK, payloads, timeout=settings.timeout, memory=settings.memory)
        return {targets[index]: _reports(targets[index], outcome, settings) for index, outcome in outcomes}


def _job(target: Target) -> dict[str, Any]:
    return {**to_data(target), "path": str(target.path)}


def _reports(target: Target, outcome: Outcome, settings: Settings) -> tuple[TargetReport, ...]:
    if settings.debug and outcome.trace:
        print(outcome.trace, file=sys.stderr)
    reports = [from_data(TargetReport, data) for data in outcome.results]
    if outcome.error is not None:
        reports.append(replace(failed(target.text, target.shown, outcome.error), seconds=outcome.seconds))
    return tuple(reports)
