"""Copies of a model to run: buffers and Python state of its own, parameters shared or on meta."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy as is_uninitialised

from gradlint.load.duplicate import computed, detached, duplicate


def sharing(model: nn.Module) -> nn.Module:
    """A copy that shares the parameters and owns everything else, so that a forward pass leaves the model as it was."""
    return _copied(model, lambda parameter: parameter)


def on_meta(model: nn.Module) -> nn.Module:
    """A copy on torch's meta device: shapes without storage."""
    return _copied(model, _meta_parameter).to("meta")


def inputs_on_meta(value: Any) -> Any:
    """The inputs with every tensor replaced by one on meta."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("meta")
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(inputs_on_meta(item) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(inputs_on_meta(item) for item in value)
    if isinstance(value, dict):
        return {key: inputs_on_meta(item) for key, item in value.items()}
    return value


def is_lazy(model: nn.Module) -> bool:
    """Whether a parameter or buffer still waits for the first forward to learn its shape."""
    return any(is_uninitialised(tensor) for tensor in (*model.parameters(), *model.buffers()))


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put torch's random state back after the block."""
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else []
    with torch.random.fork_rng(devices=devices):
        yield


def _copied(model: nn.Module, parameter: Callable[[nn.Parameter], nn.Parameter]) -> nn.Module:
    memo: dict[int, Any] = {id(held): parameter(held) for held in model.parameters()}
    memo |= {id(held): detached(held) for held in computed(model)}
    for module in model.modules():
        memo |= {id(held): held.clone_state() for held in vars(module).values() if isinstance(held, torch.Generator)}
    return duplicate(model, memo)


def _meta_parameter(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
