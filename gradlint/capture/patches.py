"""What a recorded run replaces in torch for its duration, and puts back whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn

Caller = Callable[..., Any]  # (original, module or class, args, kwargs) → result

_MISSING = object()
_REPLICATED = (nn.DataParallel, nn.parallel.DistributedDataParallel)


@contextmanager
def replaced(target: object, name: str, value: object) -> Iterator[None]:
    """Set an attribute for the length of the block."""
    before = vars(target).get(name, _MISSING)
    setattr(target, name, value)
    try:
        yield
    finally:
        if before is _MISSING:
            delattr(target, name)
        else:
            setattr(target, name, before)


@contextmanager
def run_patches(call_module: Caller, call_function: Caller, *, opaque: bool = True) -> Iterator[None]:
    """Route module calls and custom autograd functions through the recorder; switch checkpointing and compiling off.

    Checkpointing is off because the second forward of a backward pass would run without the interventions of the
    first; compiling, because compiled code shows no operations. Without `opaque`, for a replay of a run that met
    neither custom functions nor scripted or replicated modules, these are left as they are: changing an attribute of
    `nn.Module` costs as much as forty operations, as every subclass forgets its methods.
    """
    with ExitStack() as stack:
        if opaque:
            stack.enter_context(replaced(nn.Module, "__call__", _module_call(call_module)))
            stack.enter_context(replaced(torch.autograd.Function, "apply", _function_apply(call_function)))
        else:
            apply = _function_apply(call_function)
            stack.enter_context(replaced(torch.utils.checkpoint.CheckpointFunction, "apply", apply))
        stack.enter_context(replaced(torch.utils.checkpoint, "_checkpoint_without_reentrant_generator", _no_checkpoint))
        stack.enter_context(_eager())
        yield


def _module_call(call_module: Caller) -> Caller:
    original = nn.Module.__call__

    def __call__(self: nn.Module, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if isinstance(self, _REPLICATED):
            return call_module(_call_replicated, self, args, kwargs)
        return call_module(original, self, args, kwargs)

    return __call__


def _call_replicated(parallel: Any, *args: Any, **kwargs: Any) -> Any:
    """Run the wrapped module itself: replicas in other threads are out of the recorder's sight."""
    return parallel.module(*args, **kwargs)


def _function_apply(call_function: Caller) -> object:
    original = vars(torch.autograd.Function)["apply"].__func__

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        if cls is torch.utils.checkpoint.CheckpointFunction:
            function, _, *rest = args
            return function(*rest, **kwargs)
        return call_function(original, cls, args, kwargs)

    return classmethod(apply)


def _no_checkpoint(*_args: object, **_kwargs: object) -> Iterator[None]:
    yield


@contextmanager
def _eager() -> Iterator[None]:
    """Run what torch.compile would compile as it is. Dynamo, costly to import, is only touched where it already is."""
    with ExitStack() as stack:
        stack.enter_context(replaced(torch, "compile", _uncompiled))
        if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _uncompiled(function: Any = None, **_options: object) -> Any:
    return _uncompiled if function is None else function
