"""What a recorded run replaces in torch for its duration, and puts back whatever happens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import torch
import torch.utils.checkpoint
from torch import nn

Caller = Callable[..., Any]  # (original, module or class, args, kwargs) → result


class Outside(NamedTuple):
    """What the recorder does about code that is no part of the model.

    `pause` records nothing for the length of a block. `passed_on(given, back)` hears of tensors that such code gives
    back, in the same nested order, for those that it was given.
    """

    pause: Callable[[], AbstractContextManager[None]]
    passed_on: Callable[[Any, Any], None]


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
def run_patches(
    call_module: Caller,
    call_function: Caller,
    outside: Outside,
    *,
    opaque: bool = True,
) -> Iterator[None]:
    """Route module calls and custom autograd functions through the recorder; switch checkpointing and compiling off.

    Checkpointing is off because the second forward of a backward pass would run without the interventions of the
    first; compiling, because compiled code shows no operations. Without `opaque`, for a replay of a run that met
    neither custom functions nor scripted or replicated modules, these are left as they are: changing an attribute of
    `nn.Module` costs as much as forty operations, as every subclass forgets its methods. What FSDP does to gather
    parameters and to let them go again is no part of the model, but `outside` of it.
    """
    changes: list[tuple[Any, str, object]] = list(_sharding(outside))
    apply = _function_apply(call_function)
    if opaque:
        changes += [(nn.Module, "__call__", _module_call(call_module)), (torch.autograd.Function, "apply", apply)]
    else:
        changes += [(torch.utils.checkpoint.CheckpointFunction, "apply", apply)]
    changes += [(torch.utils.checkpoint, "_checkpoint_without_reentrant_generator", _no_checkpoint)]
    changes += [(torch, "compile", _uncompiled)]
    before = [(target, name, vars(target).get(name, _MISSING)) for target, name, _ in changes]
    try:
        for target, name, value in changes:
            setattr(target, name, value)
        with _eager():
            yield
    finally:
        for target, name, value in reversed(before):
            if value is _MISSING:
                delattr(target, name)
            else:
                setattr(target, name, value)


def _sharding(outside: Outside) -> Iterator[tuple[type, str, object]]:
    """The methods by which FSDP2 gathers and frees parameters, where it was imported and still has them."""
    module = sys.modules.get("torch.distributed.fsdp._fully_shard._fsdp_param_group")
    owner = getattr(module, "FSDPParamGroup", None)
    if owner is None:
        return
    found = vars(owner)
    for name in ("unshard", "wait_for_unshard", "reshard"):
        if name in found:
            yield owner, name, _paused(found[name], outside.pause)
    if _HOOKING in found:
        yield owner, _HOOKING, _passing(found[_HOOKING], outside)


_HOOKING = "_register_post_backward_hook"  # sends a module's arguments through a function that waits for the backward


def _paused(function: Callable[..., Any], pause: Callable[[], AbstractContextManager[None]]) -> Callable[..., Any]:
    def quiet(*args: Any, **kwargs: Any) -> Any:
        with pause():
            return function(*args, **kwargs)

    return quiet


def _passing(function: Callable[..., Any], outside: Outside) -> Callable[..., Any]:
    def passing(self: object, args: Any, kwargs: Any) -> Any:
        with outside.pause():
            back = function(self, args, kwargs)
        outside.passed_on((args, kwargs), back)
        return back

    return passing


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


def _eager() -> AbstractContextManager[object]:
    """Run what was compiled as it is. Dynamo, costly to import, is only touched where it already is."""
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        return cast(AbstractContextManager[object], torch.compiler.set_stance("force_eager"))
    return nullcontext()


def _uncompiled(function: Any = None, **_options: object) -> Any:
    return _uncompiled if function is None else function
