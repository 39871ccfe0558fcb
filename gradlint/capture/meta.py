"""Recording without memory: a run on torch's meta device, where questions about values get made-up answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gradlint.capture import copies
from gradlint.capture.moments import weight_moments
from gradlint.capture.recorder import Observer, run
from gradlint.capture.recording import Recording
from gradlint.capture.structure import flatten
from gradlint.error import ForwardError
from gradlint.graph.ir import Param
from gradlint.load.initial import initial_of
from gradlint.load.meta import Answers

# What user code raises when a made-up answer takes it where the real one would not have.
_MISLED = (
    RuntimeError,
    NotImplementedError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    AssertionError,
)


def is_on_meta(model: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a parameter, buffer or input is on meta."""
    held = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    return any(tensor.is_meta for tensor in (*held, *(t for _, t in flatten((args, dict(kwargs))))))


def run_on_meta(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], observer: Observer | None = None
) -> Recording:
    """Record a run of a copy on meta. Conditions on values are taken for true, and for false when that fails.

    Raises ForwardError when the model runs in neither way.
    """
    failure: Exception | None = None
    for truth in (True, False):
        answers = Answers(truth=truth)
        try:
            with torch.device("meta"), answers:
                recording = run(
                    copies.on_meta(model),
                    copies.inputs_on_meta(args),
                    copies.inputs_on_meta(dict(kwargs)),
                    observer=observer,
                )
        except _MISLED as error:
            failure = error
            continue
        return replace(recording, method="recorded-meta", notes=_notes(answers))
    raise ForwardError(
        f"the model does not run without values: {failure}",
        "build it on the CPU, or lint a smaller configuration of it",
    ) from failure


def _notes(answers: Answers) -> tuple[str, ...]:
    if not answers.count:
        return ()
    return (f"{answers.count} questions about values were answered by assumption: one branch of each was recorded",)


def as_drawn(param: Param, module: nn.Module | None) -> Param:
    """A parameter on meta with the statistics of what it would have been initialised to, where that was noted."""
    drawn = initial_of(module, param.path.rpartition(".")[2])
    if drawn is None:
        return param
    moments = {} if drawn.entries is None else weight_moments(drawn.entries)
    numbers = {name: value for name, value in vars(drawn).items() if name != "entries"}
    return replace(param, **numbers, moments=moments)
