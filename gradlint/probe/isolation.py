"""A copy of the model to measure, and the random numbers of the process kept as they were."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer
from torch.nn.parameter import is_lazy as is_uninitialised

from gradlint.capture.naming import Names
from gradlint.capture.sharded import is_sharded, lent, rewrite
from gradlint.error import ProbeError, UsageError
from gradlint.load.duplicate import computed, detached, duplicate

Draw = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class ParamEdit:
    """Draw a parameter anew on the measured copy: `function` takes the tensor and returns new values, or fills it."""

    path: str
    function: Draw


@contextmanager
def undisturbed(seed: int, device: torch.device) -> Iterator[None]:
    """Seed every generator of torch, Python and NumPy for the block, and put back the states they had."""
    numpy = sys.modules.get("numpy")
    python, legacy = random.getstate(), numpy.random.get_state() if numpy else None
    devices = [device] if device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=devices), _mps_rng(device):
            torch.manual_seed(seed)
            random.seed(seed)
            if numpy:
                numpy.random.seed(seed % 2**32)
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(legacy)


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one, else the CPU.

    Raises UsageError when it is not there, and ProbeError for "meta", where there are no numbers.
    """
    if name == "meta":
        raise ProbeError("nothing can be measured on the meta device")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name} cannot be used: {str(error).splitlines()[0]}", "--device cpu") from error
    return device


@contextmanager
def measured(
    model: nn.Module, device: torch.device, dtype: torch.dtype | None, *, changed: bool = False
) -> Iterator[nn.Module]:
    """A copy of the model to measure; one that is spread over processes is lent itself, and given back as it was.

    `changed` says that its parameters are written to. Raises ProbeError as `copy_model` does, and for another dtype of
    a model that cannot be copied.
    """
    if not is_sharded(model):
        yield copy_model(model, device, dtype)
        return
    if dtype is not None:
        raise ProbeError("a model that is spread over processes is measured in its own precision")
    with lent(model, changed=changed):
        yield _train(model)


def copy_model(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> nn.Module:
    """A deep copy in train mode on the device, without gradients; `dtype` converts its floating tensors.

    Raises ProbeError when the model cannot be copied or has no data (meta tensors).
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()) if not is_uninitialised(tensor)):
        raise ProbeError("the model has no values (it is on the meta device)", "build it on the CPU")
    memo: dict[int, Any] = {id(held): value for held, value in _uncopyable(model)}
    try:
        copied = duplicate(model, memo)
    except Exception as error:
        raise ProbeError(f"the model cannot be copied: {type(error).__name__}: {error}") from error
    for tensor in copied.parameters():
        tensor.grad = None
    copied = copied.to(device) if dtype is None else copied.to(device, dtype)
    return _train(copied)


def copy_inputs(value: Any, device: torch.device, dtype: torch.dtype | None) -> Any:
    """The inputs with every tensor copied to the device; `dtype` converts floating ones."""
    if isinstance(value, Tensor):
        wanted = dtype if dtype is not None and value.is_floating_point() else value.dtype
        return value.detach().clone().to(device, wanted)
    if isinstance(value, Mapping):
        return _rebuilt(value, {key: copy_inputs(item, device, dtype) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(copy_inputs(item, device, dtype) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(copy_inputs(item, device, dtype) for item in value)
    return copy.deepcopy(value) if _has_tensors(value) else value


def edit(names: Names, edits: Sequence[ParamEdit]) -> None:
    """Apply the edits to the parameters of a copy, or of a model that is lent with its parameters.

    Raises ProbeError for a path that the model does not have.
    """
    with torch.no_grad():
        for change in edits:
            param = names.params.get(change.path)
            if param is None:
                raise ProbeError(f"the model has no parameter {change.path!r}")
            if hasattr(param, "full_tensor"):
                rewrite(param, change.function)
                continue
            drawn = change.function(param)
            if drawn is not None and drawn is not param:
                param.copy_(drawn)


def _uncopyable(model: nn.Module) -> Iterator[tuple[Any, Any]]:
    """What deepcopy refuses, with its stand-in: computed tensors (old weight norm), generators, lazy buffers."""
    for held in model.buffers():
        if isinstance(held, UninitializedBuffer):
            data = held.data
            yield held, UninitializedBuffer(device=data.device, dtype=data.dtype)  # type: ignore[call-arg]
    yield from ((held, detached(held)) for held in computed(model))
    for module in model.modules():
        yield from ((held, held.clone_state()) for held in vars(module).values() if isinstance(held, torch.Generator))


def _train(model: nn.Module) -> nn.Module:
    """The model in train mode; an exported program that knows no modes is left in its own.

    A class that calls another method of its own `train` (a layer that trains itself) has its flags set.
    """
    try:
        return model.train()
    except NotImplementedError:
        return model
    except TypeError:
        for module in model.modules():
            module.training = True
        return model


def _rebuilt(value: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    if type(value) is dict:
        return items
    rebuilt = copy.copy(value)
    rebuilt.update(items)  # type: ignore[attr-defined]
    return rebuilt


def _has_tensors(value: object) -> bool:
    return any(isinstance(item, Tensor) for item in vars(value).values()) if hasattr(value, "__dict__") else False


@contextmanager
def _mps_rng(device: torch.device) -> Iterator[None]:
    """fork_rng covers the CPU and CUDA only."""
    if device.type != "mps":
        yield
        return
    state = torch.mps.get_rng_state()
    try:
        yield
    finally:
        torch.mps.set_rng_state(state)
