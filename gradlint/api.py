"""`gradlint.check`: a model that already exists in this process → a report that prints itself."""

from __future__ import annotations

import inspect
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradlint import result
from gradlint.config import Settings
from gradlint.error import GradlintError, InputError, UsageError
from gradlint.result import InputUsed
from gradlint.version import __version__

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gradlint.load import LoadedModel


LIBRARIES = ("site-packages", "dist-packages")  # their files apply no loss to the user's model


class Report(result.Report):
    """A report that shows itself: `print(report)` in a terminal, its own view in a notebook."""

    def __str__(self) -> str:
        from gradlint import report

        text = io.StringIO()
        report.render(self, "full", text, color="never")
        return text.getvalue()

    def _repr_html_(self) -> str:
        from gradlint.report.notebook import fragment

        return fragment(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as the JSON format holds it (schema gradlint/1)."""
        from gradlint.report.json import document

        return document(self)


def check(
    model: nn.Module,
    inputs: object = None,
    *,
    data: Iterable[object] | None = None,
    loss: str | None = None,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    device: str = "auto",
    seed: int = 0,
    probe: bool = True,
    fix: bool = True,
    optimizer: str = "any",
    dtype: str | None = None,
    steps: int = 0,
    rate: float | None = None,
) -> Report:
    """Lint a model in this process. The model, its gradients and the random state stay as they are.

    `inputs` is a tensor, a tuple of positional arguments or a dict of keyword arguments; without it they are inferred
    from the model. `data` is an iterable of batches in place of them: what forward does not take of a batch is what the
    loss compares with, and a LightningModule runs its `training_step`. `loss` is ce, nll, bce, bce_logits, mse or
    "module:function"; without it the one that the file of the model's class applies, or else one that fits the output,
    is chosen and named. `optimizer` ("sgd", "adam") says by whose limits to judge; `dtype` ("bf16", "fp16", "fp8")
    measures what that format loses, too; `steps` follows the gradient through so many training steps at the learning
    rate `rate`. Comments in the source suppress findings; configuration files are not read. Raises GradlintError when
    the model cannot be run or an option is not usable.
    """
    from gradlint.analysis import analyse_model
    from gradlint.capture.sharded import class_of
    from gradlint.report.source import Sources
    from gradlint.suppress import Entry, suppress

    settings = Settings(
        select=tuple(select),
        ignore=tuple(ignore),
        loss=loss,
        device=device,
        seed=seed,
        probe=probe,
        fix=fix,
        optimizer=optimizer,
        dtype=dtype,
        steps=steps,
        rate=rate,
    )
    name = class_of(model).__name__
    loaded = _loaded(model, name, inputs, data, settings)
    loaded = loaded if loaded.loss_hint else replace(loaded, loss_hint=_stated_loss(model))
    target = analyse_model(name, None, loaded, settings)
    judged = suppress([Entry(target, settings, target.path or name, whole=False)], Sources())
    return Report(tuple(judged), __version__, target.seconds)


def _loaded(
    model: nn.Module, name: str, inputs: object, data: Iterable[object] | None, settings: Settings
) -> LoadedModel:
    from gradlint.load import LoadedModel
    from gradlint.load.data import Batches, entry, with_data
    from gradlint.load.inputs import feed

    if data is not None and inputs is not None:
        raise UsageError("inputs and data both say what the model is fed", "give one of them")
    if data is not None:
        return with_data(model, Batches(data, model, entry(model, settings.loss)), name)
    if inputs is None:
        fed = feed(model, settings)
        return LoadedModel(
            model, fed.args, fed.kwargs, fed.inputs, name, None, None, fed.draw, fed.loss, notes=fed.notes
        )
    args, kwargs = _arguments(inputs)
    used = tuple(_used(key, value) for key, value in [*enumerate(args), *kwargs.items()])
    return LoadedModel(model, args, kwargs, used, name, None, None, lambda _: (args, kwargs))


def _stated_loss(model: nn.Module) -> str | None:
    """The loss that the file of the model's class applies to it, as the command line would find; None without one."""
    from gradlint.source.models import find_expression
    from gradlint.source.text import read

    kind = type(model)
    try:
        path = inspect.getsourcefile(kind)
        if path is None or any(part in LIBRARIES for part in Path(path).parts):
            return None
        return find_expression(read(Path(path), path), kind.__name__).loss
    except (OSError, TypeError, GradlintError):  # a class of a notebook or a shell has no file
        return None


def _arguments(inputs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple | list):
        return tuple(inputs), {}
    return (inputs,), {}


def _used(key: object, value: object) -> InputUsed:
    import torch

    if not isinstance(value, torch.Tensor):
        return InputUsed(str(key), (), type(value).__name__, "example")
    tensor: Tensor = value
    if tensor.numel() == 0:
        raise InputError(f"input {key} is empty: its shape is {tuple(tensor.shape)}", "give at least one sample")
    return InputUsed(str(key), tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), "example")
