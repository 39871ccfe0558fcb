"""`html`: one self-contained page, without network or script: verdict, findings, ribbon, layers, coverage, command."""

from __future__ import annotations

from typing import TextIO

from gradlint.report.markup import render
from gradlint.report.reproduce import command
from gradlint.report.view import View
from gradlint.result import Report


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the page."""
    stream.write(render("page.html", report, view.sources, command=command(report)))
