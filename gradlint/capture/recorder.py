"""Runs a model once, numbers every torch call, records it, and lets observers and interventions at it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from gradlint.capture import calls, copies, frames, patches, structure
from gradlint.capture.curve import sampled
from gradlint.capture.naming import Names
from gradlint.capture.record import Call, Place
from gradlint.capture.recording import Recording
from gradlint.capture.sharded import class_of
from gradlint.capture.tape import Tape, describe
from gradlint.error import GradlintError

Scratch = dict[str, Any]
Replace = Callable[[calls.Function, calls.Args, calls.Kwargs], object]
After = Callable[[Any, calls.Args, calls.Kwargs, Scratch], object]


class Observer(Protocol):
    """Sees the outputs of every numbered call. Torch calls that it makes itself are not recorded."""

    def on_output(self, index: int, outputs: tuple[torch.Tensor, ...]) -> None:
        """Take the tensors that call `index` produced, in the order of `Op.outputs`."""


@dataclass(frozen=True)
class Intervention:
    """A change to the call numbered `index`. Torch calls that it makes itself are not recorded.

    `replace(func, args, kwargs)` runs instead of the call. `after(output, args, kwargs, scratch)` takes the output and
    returns what the model goes on with; `scratch` is one dict for all interventions of a run, so that a tensor can be
    kept at one call and used at a later one. Where the call works in place, both get a copy of the tensor it changes
    and their result is written to the original.
    """

    index: int
    replace: Replace | None = None
    after: After | None = None


class Located(NamedTuple):
    """Where a call stands: the module's path and type, and the user's line."""

    path: str
    type: str
    place: Place | None


@dataclass(slots=True)
class _Active:
    """A module that is being called; `site` is the place of the call, looked up when first needed."""

    module: nn.Module
    path: str
    type: str
    site: Place | None = None
    located: bool = False


def run(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    record: bool = True,
    interventions: Iterable[Intervention] = (),
    observer: Observer | None = None,
    forward: Callable[..., Any] | None = None,
    opaque: bool = True,
) -> Recording:
    """Run a model or function once and number its torch calls; the same model, inputs and RNG give the same numbers.

    `forward` is called in place of the model: another method of it. `opaque` is whether the run may meet custom
    autograd functions, or scripted or replicated modules; a replay can know better.

    The model itself is run, with gradients enabled: buffers and the global RNG move as in any forward pass, so pass a
    copy where that matters. What the model raises passes through. Raises GradlintError for a model with lazy
    parameters: run it once before.
    """
    root = model if isinstance(model, nn.Module) else _Function(model)
    if record and copies.is_lazy(root):
        raise GradlintError("the model has lazy parameters that no forward pass has initialised", "run it once before")
    recorder = Recorder(root, record=record, interventions=interventions, observer=observer, forward=forward)
    return recorder.run(args, dict(kwargs or {}), opaque=opaque or record)


class _Function(nn.Module):
    """The root for a callable that is not a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.__dict__["function"] = function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["function"](*args, **kwargs)


class Recorder(TorchFunctionMode):
    """The mode under which a recorded run takes place; use `run`."""

    def __init__(
        self,
        model: nn.Module,
        *,
        record: bool,
        interventions: Iterable[Intervention] = (),
        observer: Observer | None = None,
        forward: Callable[..., Any] | None = None,
        locate: Callable[[], Located] | None = None,
    ) -> None:
        """`forward` is run in place of the model; `locate` places the calls that no module of the model makes."""
        super().__init__()
        self.model = model
        self.forward = model if forward is None else forward
        self.locate = locate
        self.names = Names(model) if record else None
        self.tape = Tape(self.names) if self.names is not None else None
        self.observer = observer
        self.count = 0
        self.scratch: Scratch = {}
        self.called: dict[str, int] = {}
        self._changes: dict[int, list[Intervention]] = {}
        for intervention in interventions:
            self._changes.setdefault(intervention.index, []).append(intervention)
        self._active = [_Active(model, "", class_of(model).__name__)]
        self._paused = False

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, opaque: bool = True) -> Recording:
        """Run the model under the mode."""
        if self.tape is not None:
            for name, tensor in structure.arguments(args, kwargs, self._arguments()):
                self.tape.placeholder(name, tensor)
        outside = patches.Outside(self._pause, self._passed_on)
        patched = patches.run_patches(self._call_module, self._call_function, outside, opaque=opaque)
        with torch.enable_grad(), patched, self:
            output = self.forward(*args, **kwargs)
        outputs = structure.flatten(output)
        if self.tape is not None:
            self.tape.outputs = [self.tape.refer(tensor) for _, tensor in outputs]
        return Recording(output, outputs, self.count, self.tape, self.called, training=self.model.training)

    def _arguments(self) -> tuple[str, ...]:
        """The names of the arguments of what is called, where that is the model or a method of it."""
        own = getattr(self.forward, "__self__", None) is self.model
        return _parameter_names(self.forward if own else self.model)

    def __torch_function__(
        self, func: calls.Function, types: Any, args: calls.Args = (), kwargs: calls.Kwargs | None = None
    ) -> Any:
        """Run one torch call: count it when it produces a tensor, record it, apply what was asked for."""
        if self._paused:
            return func(*args, **(kwargs or {}))
        if self.tape is None and self.count not in self._changes and calls.LEARNED.get(func):
            return self._replay(func, args, kwargs)
        kwargs = kwargs or {}
        inner = calls.composite(func)
        if inner is not None:
            with self:
                return inner(*args, **kwargs)
        start = _autograd_nodes()
        if self.count in self._changes and not calls.is_query(func):
            output = self._intervene(func, args, kwargs)
        else:
            output = func(*args, **kwargs)
        outputs = calls.produced(func, args, output)
        calls.learn(func, produced=bool(outputs))
        if outputs:
            self._finish(func, args, kwargs, output, outputs, start)
        elif self.tape is not None and (tensor := calls.read(func, args)) is not None:
            self.tape.reads.append(self.tape.refer(tensor))
        return output

    def _replay(self, func: calls.Function, args: calls.Args, kwargs: calls.Kwargs | None) -> object:
        """Run and count a call that is neither recorded nor changed, of a function known to return tensors.

        The mode is off while it is handled, so that what the observer calls is not recorded.
        """
        output = func(*args, **kwargs) if kwargs else func(*args)
        outputs = (output,) if isinstance(output, torch.Tensor) else calls.produced(func, args, output)
        if outputs:
            index = self.count
            self.count = index + 1
            if self.observer is not None:
                self.observer.on_output(index, outputs)
        return output

    def _intervene(self, func: calls.Function, args: calls.Args, kwargs: calls.Kwargs) -> object:
        target = calls.mutated(func, args, kwargs)
        if target is None:
            return self._changed(func, args, kwargs)
        stand_in = target.clone()
        output = self._changed(func, *_substitute(args, kwargs, target, stand_in))
        result = stand_in if output is None else output
        if not isinstance(result, torch.Tensor) or result.shape != target.shape:
            return result
        with torch.set_grad_enabled(torch.is_grad_enabled() and not (target.is_leaf and target.requires_grad)):
            target.copy_(result)
        return None if output is None else target

    @contextmanager
    def _pause(self) -> Iterator[None]:
        """Record nothing, and no module's call, for the length of the block."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _changed(self, func: calls.Function, args: calls.Args, kwargs: calls.Kwargs) -> object:
        with self._pause():
            return self._apply(self._changes[self.count], func, args, kwargs)

    def _apply(
        self, changes: list[Intervention], func: calls.Function, args: calls.Args, kwargs: calls.Kwargs
    ) -> object:
        replacement = next((change.replace for change in changes if change.replace is not None), None)
        output = func(*args, **kwargs) if replacement is None else replacement(func, args, kwargs)
        for change in changes:
            if change.after is not None:
                given = args[0] if output is None and args else output
                output = change.after(given, args, kwargs, self.scratch)
        return output

    def _finish(
        self,
        func: calls.Function,
        args: calls.Args,
        kwargs: calls.Kwargs,
        output: object,
        outputs: tuple[torch.Tensor, ...],
        start: int,
        custom: str = "",
        curve: dict[str, list[float]] | None = None,
    ) -> None:
        index = self.count
        self.count += 1
        if self.tape is not None:
            path, type_name, place = self._locate(sys._getframe(2))
            call = Call(
                index,
                func,
                custom or calls.signature(func).name,
                [describe(tensor) for tensor in outputs],
                path,
                type_name,
                place,
                not custom and calls.mutated(func, args, kwargs) is not None,
                torch.is_grad_enabled(),
                bool(custom),
                curve=curve,
            )
            self.tape.add(call, args, kwargs, output, (start, _autograd_nodes()))
        if self.observer is not None:
            with self._pause():
                self.observer.on_output(index, outputs)

    def _call_module(self, original: calls.Function, module: nn.Module, args: Any, kwargs: Any) -> Any:
        if self._paused:
            return original(module, *args, **kwargs)
        if isinstance(module, torch.jit.ScriptModule):
            given = (*args, *module.parameters())
            return self._opaque(
                lambda *a, **k: original(module, *a[: len(args)], **k), module.original_name, given, kwargs
            )
        if self.names is None:
            return original(module, *args, **kwargs)
        path = self.names.path(module, self._active[-1].path)
        self.called[path] = self.called.get(path, 0) + 1
        self._active.append(_Active(module, path, class_of(module).__name__))
        try:
            return original(module, *args, **kwargs)
        finally:
            self._active.pop()

    def _call_function(self, original: calls.Function, cls: type, args: Any, kwargs: Any) -> Any:
        """A user-defined autograd.Function."""
        return self._opaque(
            lambda *a, **k: original(cls, *a, **k), f"{cls.__module__}.{cls.__qualname__}", args, kwargs
        )

    def _passed_on(self, given: Any, back: Any) -> None:
        """Take tensors that something which is no part of the model gave back for those that it was given."""
        if self.tape is not None:
            for old, new in zip(calls.tensors(given), calls.tensors(back), strict=True):
                self.tape.equate(new, old)

    def _opaque(self, function: calls.Function, name: str, args: Any, kwargs: Any) -> Any:
        """Make one numbered call of something that is not to be looked into."""
        if self._paused:
            return function(*args, **kwargs)
        start = _autograd_nodes()
        with self._pause():
            change = self._changed if self.count in self._changes else _unchanged
            output = change(function, args, kwargs)
            curve = None if self.tape is None else sampled(function, args, kwargs, output)
        outputs = tuple(calls.tensors(output))
        if outputs:
            with torch._C.DisableTorchFunction():
                self._finish(function, args, kwargs, output, outputs, start, custom=name, curve=curve)
        return output

    def _locate(self, frame: FrameType) -> Located:
        """The module whose code makes the call, and the user's line."""
        active = self._module_of(frame)
        if self.locate is not None:
            given = self.locate()
            return given if len(self._active) == 1 else Located(active.path, active.type, given.place)
        return Located(active.path, active.type, self._site(frame, len(self._active)))

    def _site(self, frame: FrameType | None, depth: int) -> Place | None:
        found, boundary = frames.nearest(frame, _BOUNDARIES)
        if boundary is None or depth <= 1 or (found is not None and found[0] == frames.USER):
            return found
        active = self._active[depth - 1]
        if not active.located:
            active.site = self._site(boundary.f_back, depth - 1)
            active.located = True
        if found is None or (active.site is not None and active.site[0] == frames.USER):
            return active.site
        return found

    def _module_of(self, frame: FrameType | None) -> _Active:
        """The module being called; or one whose method was called directly, as in `self.block.forward(x)`."""
        top = self._active[-1]
        own = _codes(type(top.module))
        while frame is not None and frame.f_code not in _BOUNDARIES and frame.f_code not in own:
            code = frame.f_code
            if code.co_argcount and code.co_varnames[0] == "self":
                module = frame.f_locals.get("self")
                if isinstance(module, nn.Module) and self.names is not None:
                    return self._direct(module, top)
            frame = frame.f_back
        return top

    def _direct(self, module: nn.Module, top: _Active) -> _Active:
        assert self.names is not None
        path = self.names.path(module, top.path)
        if module is not top.module:
            self.called.setdefault(path, 1)
        return _Active(module, path, class_of(module).__name__)


_autograd_nodes: Callable[[], int] = torch._C._autograd._get_sequence_nr
_BOUNDARIES = frozenset({Recorder._call_module.__code__, Recorder.run.__code__})
_class_codes: dict[type, frozenset[CodeType]] = {}


def _codes(cls: type) -> frozenset[CodeType]:
    """The code objects of every method of a class and its bases."""
    known = _class_codes.get(cls)
    if known is None:
        methods = (value for base in cls.__mro__ for value in vars(base).values())
        known = _class_codes[cls] = frozenset(m.__code__ for m in methods if inspect.isfunction(m))
    return known


def _unchanged(func: calls.Function, args: calls.Args, kwargs: calls.Kwargs) -> object:
    return func(*args, **kwargs)


def _substitute(args: calls.Args, kwargs: calls.Kwargs, old: object, new: object) -> tuple[calls.Args, dict[str, Any]]:
    replaced = tuple(new if value is old else value for value in args)
    return replaced, {key: new if value is old else value for key, value in kwargs.items()}


def _parameter_names(called: Callable[..., Any]) -> tuple[str, ...]:
    function = called.__dict__.get("function", called.forward) if isinstance(called, nn.Module) else called
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtin functions have no signature
        return ()
    return tuple(p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
