"""A Lightning callback that lints the model before its first step."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from gradlint.error import GradlintError
from gradlint.report.outcome import reaches

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    from pytorch_lightning import Callback, LightningModule, Trainer


class UnhealthyError(GradlintError):
    """A finding stands at or above the severity that is to stop training."""

    kind = "unhealthy"


class GradlintCallback(Callback):  # type: ignore[misc]  # without Lightning in the type checker's environment, it is Any
    """Lint the module once and print the report on stderr.

    The inputs are the module's `example_input_array`, or else the first batch, of a tuple or a list its first entry.
    Training stops with UnhealthyError from the severity `fail_on` on: "error", "warning", "info" or "never". Weights,
    buffers, gradients and random state stay as they are.
    """

    def __init__(self, fail_on: str = "error", *, loss: str | None = None, ignore: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.fail_on, self.loss, self.ignore = fail_on, loss, ignore
        self.linted = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lint now when the module names example inputs."""
        if pl_module.example_input_array is not None:
            self._lint(trainer, pl_module, pl_module.example_input_array)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Lint on the first batch otherwise."""
        if not self.linted:
            self._lint(trainer, pl_module, first(batch))

    def _lint(self, trainer: Trainer, module: LightningModule, inputs: Any) -> None:
        from gradlint import check

        self.linted = True
        if not trainer.is_global_zero:
            return
        report = check(module, inputs, loss=self.loss, ignore=self.ignore)
        print(report, file=sys.stderr)
        found = [f for f in report.findings if f.stands and reaches(f.severity, self.fail_on)]
        if found:
            raise UnhealthyError(
                f"{found[0].rule}: {found[0].message}", "GradlintCallback(fail_on='never') only reports"
            )


def first(batch: Any) -> Any:
    """What a batch feeds to forward: the first entry of a tuple or list, a mapping or a tensor as it is."""
    if isinstance(batch, Mapping) or not isinstance(batch, (tuple, list)):
        return batch
    return batch[0]
