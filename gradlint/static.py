"""An ONNX file that is not to be measured, through the stations that need no torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradlint.assessment import Case, Probed, assess
from gradlint.capture.written import to_graph
from gradlint.config import Settings
from gradlint.load.onnx_model import prepare
from gradlint.result import TargetReport
from gradlint.serialise import from_data, to_data
from gradlint.source.target import Target

NOT_ASKED = "--no-probe was given"


def work(job: dict[str, Any]) -> Iterator[Any]:
    """The worker's entry: a job {"target", "settings"} as data → its report as data."""
    target = Target(**{**job["target"], "path": Path(job["target"]["path"])})
    yield to_data(analyse(target, from_data(Settings, job["settings"])))


def analyse(target: Target, settings: Settings, reason: str = NOT_ASKED) -> TargetReport:
    """The report of one ONNX file; `reason` is why nothing is measured. Raises GradlintError when it is unreadable."""
    started = time.monotonic()
    shown = target.shown or str(target.path)
    prepared = prepare(target.path, shown, settings)
    case = Case(shown, shown, None, prepared.inputs, settings.loss or "unit")
    return assess(case, to_graph(prepared.program), Probed(None, reason), settings, started)
