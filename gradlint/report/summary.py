"""The last line of `full`: what a run found, and how much it did. Where it is all, no rich is imported."""

from __future__ import annotations

import importlib
from typing import TextIO

from gradlint.finding import SEVERITIES, Finding
from gradlint.report.number import count, seconds
from gradlint.report.outcome import fixable_by, stands, suppressed
from gradlint.report.view import View
from gradlint.result import Report

FULL = "gradlint.report.full"  # imported where more than the summary is to be written


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write `full`: by itself the summary of a run that met no model, as of most commits, else with all the rest."""
    nothing = report.targets and all(target.status == "skipped" and not target.error for target in report.targets)
    if nothing and not (view.color or report.errors or report.notes):
        stream.write(" · ".join(parts(report)) + "\n")
    else:
        importlib.import_module(FULL).write(report, stream, view)


def parts(report: Report) -> list[str]:
    """What was found, what can be done about it, and how much was analysed in which time."""
    standing = [f for f in report.findings if stands(f)]
    fixable, refuted = sum(bool(f.fixes) for f in standing), sum(f.verdict == "refuted" for f in report.findings)
    failed = sum(t.error is not None for t in report.targets)
    hidden, known = suppressed(report, "comment", "configuration"), suppressed(report, "baseline")
    said = [
        _found(report, standing) if standing or any(t.status == "analysed" for t in report.targets) else "",
        f"{fixable} with a measured fix" if fixable else "",
        *fixable_by(standing),
        f"{refuted} refuted by the probe" if refuted else "",
        f"{hidden} suppressed" if hidden else "",
        f"{known} known to the baseline" if known else "",
        f"{count(failed, 'target')} could not be analysed" if failed else "",
        _amount(report),
    ]
    return list(filter(None, said))


def _amount(report: Report) -> str:
    """How much was done in which time."""
    if not report.targets:
        return "nothing analysed"
    empty = sum(target.status == "skipped" for target in report.targets)
    done = count(len(report.targets) - empty, "target") if empty < len(report.targets) else ""
    skipped = f"{count(empty, 'file')} without a model" if empty else ""
    cached = f" ({report.cached} from the cache)" if report.cached else ""
    return f"{' and '.join(filter(None, (done, skipped)))} in {seconds(report.seconds)}{cached}"


def _found(report: Report, standing: list[Finding]) -> str:
    counted = {s: report.count(s) for s in SEVERITIES if report.count(s)}
    kinds = ", ".join(f"{amount} info" if s == "info" else count(amount, s) for s, amount in counted.items())
    return f"{count(len(standing), 'finding')} ({kinds})" if standing else "no findings"
