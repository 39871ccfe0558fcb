"""The pytest plugin: `assert_healthy(model, inputs)` as a fixture and as a function, which alone imports torch."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import pytest

from gradlint.report.outcome import reaches

if TYPE_CHECKING:
    from torch import nn

    from gradlint.api import Report


def assert_healthy(
    model: nn.Module,
    inputs: object = None,
    *,
    loss: str | None = None,
    fail_on: str = "warning",
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
) -> Report:
    """Lint a live model and return the report; the arguments are those of `gradlint.check`.

    Raises AssertionError, with the findings as its text, when one stands at or above the severity `fail_on`.
    """
    __tracebackhide__ = True
    from gradlint import check, report

    found = check(model, inputs, loss=loss, select=select, ignore=ignore, seed=seed)
    if any(finding.stands and reaches(finding.severity, fail_on) for finding in found.findings):
        text = io.StringIO()
        report.render(found, "full", text, color="never", threshold=fail_on)
        raise AssertionError(text.getvalue())
    return found


@pytest.fixture(name="assert_healthy", scope="session")
def _assert_healthy() -> Callable[..., Report]:
    """assert_healthy(model, inputs): fails the test when gradients will not reach every layer at a useful size."""
    return assert_healthy
