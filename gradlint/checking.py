"""What `gradlint check` does: run, keep the baseline, write the reports, judge; and how it refuses."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from gradlint import report as reports
from gradlint.config import Settings
from gradlint.config_file import Configuration
from gradlint.error import GradlintError, UsageError
from gradlint.report.outcome import CLEAN, FAILED, FOUND, exit_code
from gradlint.report.source import shown
from gradlint.result import Failure, Report
from gradlint.version import __version__

Run = Callable[[Sequence[str], Settings], Report]
INTERRUPTED = Failure("interrupted", "interrupted")
# formats whose stdout is a valid document whatever happens
MACHINE = ("json", "json-lines", "sarif", "gitlab", "junit")
PATIENCE = 1.0  # seconds before a terminal is told what takes so long


@dataclass(frozen=True)
class Repair:
    """What is to be done with fixes: write them, show them as a diff instead of the report, and which of them."""

    write: bool = False
    diff: bool = False
    unsafe: bool = False


@dataclass(frozen=True)
class Upkeep:
    """What is to be done to a baseline: the file to write it to, and whether to drop what is no longer found."""

    written: str | None = None
    pruned: bool = False


def check(
    targets: Sequence[str],
    settings: Settings,
    configuration: Configuration,
    upkeep: Upkeep,
    repair: Repair = Repair(),
    *,
    statistics: bool = False,
) -> int:
    """Run, write and judge. Raises GradlintError for what concerns no single target."""
    files = [reports.output(text) for text in settings.output]
    writable([Path(path) for _, path in files])
    if upkeep.pruned and not settings.baseline:
        raise UsageError(
            "there is no baseline to prune", "name it: --baseline FILE, or `baseline` in the configuration"
        )
    if (repair.write or repair.diff) and not (settings.probe and settings.fix):
        raise UsageError("only fixes that were measured are written", "leave out --no-probe and --no-try-fixes")
    if settings.prove and not (settings.probe and settings.fix):
        raise UsageError("--prove trains fixes that were measured", "leave out --no-probe and --no-try-fixes")
    if repair.unsafe and not (repair.write or repair.diff):
        raise UsageError("--unsafe-fixes says which fixes --fix and --diff take", "add --fix or --diff")
    if repair.write and repair.diff:
        raise UsageError("--diff writes nothing", "give --diff or --fix")
    _validate(settings, configuration)
    run = partial(runner(), targets, replace(settings, baseline=None) if upkeep.written else settings)
    with progress(targets or [model.target for model in settings.models]):
        report = _repaired(run, unsafe=repair.unsafe) if repair.write else run()
    if repair.diff:
        return _differences(report, settings, unsafe=repair.unsafe)
    report = _kept(report, settings, upkeep)
    _write(report, files, settings, statistics=statistics)
    return exit_code(report, settings.fail_on)


def _repaired(run: Callable[[], Report], *, unsafe: bool) -> Report:
    """The report after fixes were written; what was done is said on stderr."""
    from gradlint.fix import rounds

    started = time.time()
    outcome = rounds.apply(run(), run, started, unsafe=unsafe)
    for word, lines in (("fixed", outcome.written), ("not fixed", outcome.refused)):
        for line in lines:
            click.echo(f"{word}: {line}", err=True)
    return outcome.report


def _differences(report: Report, settings: Settings, *, unsafe: bool) -> int:
    """Print what --fix would change; 1 when that is anything, 2 when a target could not be analysed."""
    from gradlint.fix import rounds

    text = rounds.diff(report, unsafe=unsafe)
    click.echo(text, nl=False)
    for target in report.targets:
        if target.error:
            click.echo(f"error: {target.target}: {target.error.message}", err=True)
    left = sum(fix.applicable == "unsafe" for finding in report.findings for fix in finding.fixes[:1])
    if left and not unsafe and not text:
        click.echo("nothing to change safely; --unsafe-fixes shows fixes that change the function computed", err=True)
    return FAILED if exit_code(report, settings.fail_on) == FAILED else FOUND if text else CLEAN


def _kept(report: Report, settings: Settings, upkeep: Upkeep) -> Report:
    """The report after the baseline was written or pruned, as it then is."""
    if not (upkeep.written or upkeep.pruned):
        return report
    from gradlint import baseline

    if upkeep.written:
        number = baseline.write(upkeep.written, report)
        click.echo(f"{upkeep.written}: {number} written", err=True)
        return baseline.apply(report, baseline.read(upkeep.written), upkeep.written)
    path = str(settings.baseline)
    number = baseline.prune(path, report, baseline.read(path))
    click.echo(f"{path}: {number} removed", err=True)
    return replace(report, notes=())


def failure(error: GradlintError) -> Failure:
    """The error as a report holds it."""
    span = error.span
    return Failure(error.kind, error.message, error.hint, span.path if span else None, span.line if span else None)


def runner() -> Run:
    """The session's `run`, imported when it is needed."""
    run: Run = importlib.import_module("gradlint.session").run
    return run


def writable(paths: Sequence[Path]) -> None:
    """Raise UsageError for a file that cannot be written, before the work for it is done."""
    for path in paths:
        if not path.parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no folder {path.parent}", f"mkdir -p {path.parent}")
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder")


def _validate(settings: Settings, configuration: Configuration) -> None:
    """Raise UsageError for a rule or an option that does not exist, before any model is built."""
    models = any(model.given.get("ignores") for model in settings.models)
    if settings.select or settings.ignore or settings.ignores or settings.severities or settings.options or models:
        from gradlint import config_rules

        config_rules.check(settings, configuration)


def show(
    targets: Sequence[str],
    settings: Settings,
    configuration: Configuration,
    told: Mapping[str, Any],
    *,
    both: tuple[bool, bool],
) -> None:
    """Print the settings, the files, or both; `told` are the fields that the command line gave."""
    from gradlint import listing

    lists = [listing.settings(settings, configuration, told)] * both[0] + [listing.files(targets, settings)] * both[1]
    for lines in lists:
        for line in lines:
            click.echo(line)


def _write(report: Report, files: Sequence[tuple[str, str]], settings: Settings, *, statistics: bool) -> None:
    options: Mapping[str, Any] = {
        "threshold": settings.fail_on if settings.quiet and settings.fail_on != "never" else None,
        "verbose": settings.verbose,
    }
    for format, path in files:
        try:
            with Path(path).open("w", encoding="utf-8") as file:
                reports.render(report, format, file, color="never", **options)
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from error
    if statistics:
        _count(report, settings)
    else:
        reports.render(report, settings.output_format, sys.stdout, color=_color(settings.color), **options)


def _count(report: Report, settings: Settings) -> None:
    from gradlint import listing

    rows = listing.statistics(report)
    for line in [json.dumps(rows, indent=2)] if settings.output_format == "json" else listing.table(rows):
        click.echo(line)
    for target in report.targets:
        if target.error:
            click.echo(f"error: {target.target}: {target.error.message}", err=True)


def refuse(problem: Failure, output_format: str, *, debug: bool = False) -> int:
    """Say on stderr what went wrong; where JSON was asked for, print a document with it, too."""
    if debug:
        traceback.print_exc()
    if output_format in MACHINE:
        reports.render(Report((), __version__, errors=(problem,)), output_format, sys.stdout)
    where = f"{shown(problem.path)}:{problem.line or 1}: " if problem.path else ""
    click.echo(problem.message if problem is INTERRUPTED else f"error: {where}{problem.message}", err=True)
    if problem.hint:
        click.echo(f"  help: {problem.hint}", err=True)
    return FAILED


@contextlib.contextmanager
def progress(targets: Sequence[str], stream: TextIO | None = None) -> Iterator[None]:
    """A spinner on stderr while a terminal waits for more than a second, nothing otherwise."""
    err = stream or sys.stderr
    if not err.isatty() or os.environ.get("CI"):
        yield
        return
    from rich.console import Console

    what = targets[0] if len(targets) == 1 else f"{len(targets)} targets"
    spinner = Console(file=err).status(f"analysing {what}", spinner="dots")
    timer = threading.Timer(PATIENCE, spinner.start)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        spinner.stop()


def _color(text: str) -> reports.Color:
    return "always" if text == "always" else "never" if text == "never" else "auto"
