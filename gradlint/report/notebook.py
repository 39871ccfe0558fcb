"""How a report shows itself in a notebook: a fragment of HTML, styled for itself alone."""

from __future__ import annotations

from gradlint.report.markup import render
from gradlint.report.source import Sources
from gradlint.result import Report


def fragment(report: Report, sources: Sources | None = None) -> str:
    """The fragment: headline, ribbon and findings of each target; no script, no network."""
    return render("notebook.html", report, sources or Sources())
