"""The whole run, in the parent process: targets → jobs in worker processes → one report. Never imports torch.

What a commit that touches no model does not need is imported where it is used: starting costs more than its work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from gradlint.config import Settings, inside
from gradlint.plan import Job, plan
from gradlint.result import Report, TargetReport, failed
from gradlint.serialise import from_data, to_data
from gradlint.version import __version__

if TYPE_CHECKING:
    from gradlint.baseline import Known
    from gradlint.load.sandbox import Outcome
    from gradlint.suppress import Entry

# what a worker runs, and what it imports before it is asked to
FULL = ("gradlint.footprint:work", ("torch", "gradlint.analysis"))
STATIC = ("gradlint.footprint:static_work", ("gradlint.static",))
Reports = tuple[TargetReport, ...]


def run(texts: Sequence[str], settings: Settings) -> Report:
    """The report on everything that the texts name (without any: on the configured models), known results reused.

    What fails costs its own target only. A file met in a folder that defines no model is "skipped"; one named by the
    user is "failed". Raises UsageError when there is nothing to lint, or the baseline cannot be read.
    """
    started = time.monotonic()
    known = _known(settings)
    entries = plan(texts, settings)
    jobs = [entry for entry in entries if isinstance(entry, Job)]
    done = _cached(jobs, settings) if jobs else {}
    hits = len(done)
    done |= _done([job for job in jobs if id(job) not in done], settings)
    targets = _judged(entries, done, settings) if jobs else [e for e in entries if isinstance(e, TargetReport)]
    seconds = time.monotonic() - started
    report = Report(tuple(targets), __version__, seconds, settings=to_data(settings), cached=hits)
    return _compared(report, known, settings)


def _judged(entries: Sequence[Job | TargetReport], done: Mapping[int, Reports], settings: Settings) -> Reports:
    """Every entry's reports, with what is suppressed marked."""
    from gradlint.report.source import Sources
    from gradlint.suppress import suppress

    return tuple(suppress([each for entry in entries for each in _entries(entry, done, settings)], Sources()))


def _entries(entry: Job | TargetReport, done: Mapping[int, Reports], settings: Settings) -> list[Entry]:
    from gradlint.suppress import Entry

    if isinstance(entry, TargetReport):
        return [Entry(entry, settings, entry.path or entry.target, whole=False)]
    target = entry.target
    file = target.shown or str(target.path)
    reports = (_attributed(report, entry.settings) for report in done[id(entry)])
    return [Entry(report, entry.settings, file, whole=not target.expression) for report in reports]


def _known(settings: Settings) -> Known:
    """The entries of the baseline, read before anything runs."""
    if not settings.baseline:
        return {}
    from gradlint import baseline

    return baseline.read(settings.baseline)


def _marked(report: TargetReport) -> TargetReport:
    """The report with each fix that can be written marked so, which holds as long as its files stay as they are."""
    if not report.findings:
        return report
    from gradlint.fix import rounds

    return rounds.marked(report)


def _compared(report: Report, known: Known, settings: Settings) -> Report:
    """The report with what the baseline knows suppressed."""
    if not settings.baseline:
        return report
    from gradlint import baseline

    return baseline.apply(report, known, settings.baseline)


def _attributed(report: TargetReport, settings: Settings) -> TargetReport:
    """The report with inputs that the user gave attributed to where they were given."""
    used = (replace(each, source=settings.inputs_from) if each.source == "cli" else each for each in report.inputs)
    return replace(report, inputs=tuple(used))


def _cached(jobs: Sequence[Job], settings: Settings) -> dict[int, Reports]:
    """The results of earlier runs that still hold, by the id of their job."""
    from gradlint import cache

    store = cache.at(settings)
    known = [job for job in jobs if job.settings.data is None]  # what data hold cannot be told from files
    found = {id(job): store.get(job.target, job.settings) for job in known} if store else {}
    return {job: reports for job, reports in found.items() if reports is not None}


def _done(jobs: Sequence[Job], settings: Settings) -> dict[int, Reports]:
    """What workers find; jobs that need no torch get workers that never import it."""
    static = [job for job in jobs if _is_static(job)]
    others = [job for job in jobs if not _is_static(job)]
    return {**_worked(static, settings, *STATIC), **_worked(others, settings, *FULL)}


def _is_static(job: Job) -> bool:
    return job.target.form == "onnx" and not job.settings.probe


def _worked(jobs: Sequence[Job], settings: Settings, work: str, preload: Sequence[str]) -> dict[int, Reports]:
    if not jobs:
        return {}
    from gradlint.load.sandbox import Sandbox

    payloads = [{"target": _target(job), "settings": to_data(inside(job.settings))} for job in jobs]
    with Sandbox(jobs=min(settings.jobs, len(jobs)), verbose=settings.verbose, preload=preload) as sandbox:
        outcomes = sandbox.run(work, payloads, timeout=settings.timeout, memory=settings.memory)
        return {id(jobs[index]): _reports(jobs[index], outcome, settings) for index, outcome in outcomes}


def _target(job: Job) -> dict[str, Any]:
    return {**to_data(job.target), "path": str(job.target.path)}


def _reports(job: Job, outcome: Outcome, settings: Settings) -> Reports:
    reports = [_marked(from_data(TargetReport, data["report"])) for data in outcome.results if "report" in data]
    if outcome.error is not None:
        reports.append(replace(failed(job.target.text, job.target.shown, outcome.error), seconds=outcome.seconds))
    traces = [outcome.trace, *(report.error.trace for report in reports if report.error)]
    if settings.debug:
        print(*filter(None, traces), sep="\n", end="", file=sys.stderr)
    files = next((data["files"] for data in outcome.results if "files" in data), None)
    if files is not None and all(report.status == "analysed" for report in reports):
        _keep(job, tuple(reports), files, settings)
    return tuple(reports)


def _keep(job: Job, reports: Reports, files: Mapping[str, str], settings: Settings) -> None:
    """Store a result; a cache that cannot be written costs a warning."""
    from gradlint import cache

    store = cache.at(settings)
    if store is None or job.settings.data is not None:
        return
    try:
        store.put(job.target, job.settings, reports, files)
    except OSError as error:
        place = os.path.relpath(store.folder)
        print(
            f"warning: the cache {place} cannot be written ({error.strerror}); --no-cache goes without", file=sys.stderr
        )
