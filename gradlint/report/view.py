"""How a report is to be shown: what the command line and the terminal ask of every format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gradlint.finding import Finding
from gradlint.report.outcome import reaches
from gradlint.report.source import Sources


@dataclass(frozen=True)
class View:
    """Options of a format. `width` is the terminal's, None when the output is not a terminal (nothing is wrapped then);
    `threshold` hides findings below that severity."""

    color: bool = False
    width: int | None = None
    links: bool = False
    unicode: bool = True
    threshold: str | None = None
    verbose: bool = False
    sources: Sources = field(default_factory=Sources)

    def visible(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings to show."""
        return [f for f in findings if self.threshold is None or (reaches(f.severity, self.threshold))]
