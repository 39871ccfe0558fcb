"""A model to try inputs on: a copy that shares the parameters, so that nothing of the model changes."""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gradlint.load.duplicate import duplicate
from gradlint.load.infer_layers import has_shape


@contextlib.contextmanager
def stand_in(model: nn.Module, device: str = "cpu") -> Iterator[nn.Module]:
    """A copy to run; for a model that holds what cannot be copied (a lock, a file) itself, its buffers put back."""
    try:
        copied = shadow(model, device)
    except UNCOPYABLE:
        if device == "meta":
            raise
    else:
        yield copied
        return
    held = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    try:
        yield model
    finally:
        with torch.no_grad():
            for buffer, before in held:
                buffer.copy_(before)


UNCOPYABLE = (TypeError, RuntimeError, ValueError, AttributeError, NotImplementedError, pickle.PicklingError)


def shadow(model: nn.Module, device: str = "cpu") -> nn.Module:
    """A copy that shares the parameters (or has them on meta) and owns its buffers and its Python state.

    Parameters of lazy layers, which take their shape from the first run, are its own too.
    """
    memo: dict[int, object] = {}
    for parameter in filter(has_shape, model.parameters()):
        memo[id(parameter)] = _on_meta(parameter) if device == "meta" else parameter
    for tensor in _other_tensors(model):
        memo.setdefault(id(tensor), tensor.detach().to(device).clone())
    for module in model.modules():
        memo |= {id(v): v.clone_state() for v in vars(module).values() if isinstance(v, torch.Generator)}
    return duplicate(model, memo)


def _on_meta(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)


def _other_tensors(model: nn.Module) -> Iterator[Tensor]:
    """Buffers, and tensors that hooks left as plain attributes (weight_norm's computed weight)."""
    yield from filter(has_shape, model.buffers())
    for module in model.modules():
        yield from (value for value in vars(module).values() if isinstance(value, Tensor))
