"""The record of a run, call by call: static single assignment over tensors that are changed in place."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from gradlint.capture.fixed import Following
from gradlint.capture.naming import Names
from gradlint.capture.record import REBASED, Call, Leaf, Meta, Ref
from gradlint.graph.ir import Origin


class _Entry(NamedTuple):
    """What a live tensor is since time `time`."""

    tensor: weakref.ref[torch.Tensor]
    ref: Ref
    time: int


def describe(tensor: torch.Tensor) -> Meta:
    """The tensor's metadata."""
    return Meta(tuple(tensor.shape), tensor.dtype, tensor.requires_grad)


@dataclass
class Tape:
    """Everything recorded, in order. Tensors are known through weak references, so no activation is kept alive."""

    names: Names
    steps: list[Leaf | Call] = field(default_factory=list)
    outputs: list[Ref] = field(default_factory=list)
    reads: list[Ref] = field(default_factory=list)  # tensors whose numbers Python took although a gradient was theirs
    hidden: int = 0  # values whose producer showed no torch call
    following: Following = field(default_factory=Following)
    _known: dict[int, _Entry] = field(default_factory=dict)
    _changed: dict[int, _Entry] = field(default_factory=dict)  # id of a base → what it became when it was last changed
    _leaves: dict[int, Ref] = field(default_factory=dict)
    _sequence: list[tuple[int, int, Call]] = field(default_factory=list)
    _given: list[tuple[Ref, torch.Tensor]] = field(default_factory=list)  # the tensors of the call being noted

    @property
    def calls(self) -> Iterator[Call]:
        """The recorded calls in order."""
        return (step for step in self.steps if isinstance(step, Call))

    def placeholder(self, name: str, tensor: torch.Tensor) -> None:
        """Note one input tensor of the model."""
        ref = self._leaf("input", name, tensor)
        self._known.setdefault(id(tensor), _Entry(weakref.ref(tensor), ref, 0))

    def add(self, call: Call, args: Any, kwargs: Any, result: Any, sequence: tuple[int, int]) -> None:
        """Append a finished call and make its outputs known; `sequence` is the range of autograd nodes it made."""
        call.args = self._freeze(args, 0)
        call.kwargs = self._freeze(kwargs, 0) if kwargs else {}
        self.steps.append(call)
        given, self._given = self._given, []
        if sequence[0] != sequence[1]:
            self._sequence.append((*sequence, call))
        places = (
            [((), result)] if isinstance(result, torch.Tensor) else _places(args[0] if result is None else result, ())
        )
        for output, (path, tensor) in enumerate(places):
            call.paths.append(path)
            self._produce(tensor, Ref(call, output), call)
        self.following.follow(call, given)

    def equate(self, tensor: torch.Tensor, other: torch.Tensor) -> None:
        """Take a tensor that no recorded call made for another one."""
        self._known[id(tensor)] = _Entry(weakref.ref(tensor), self.refer(other), len(self.steps))

    def refer(self, tensor: torch.Tensor) -> Ref:
        """What the tensor currently is; parameters, buffers and unknown tensors become leaves."""
        entry = self._known.get(id(tensor))
        if entry is not None and entry.tensor() is tensor:
            return self._current(tensor, entry).ref if self._changed else entry.ref
        ref = self._leaves.get(id(tensor))
        if (
            ref is not None
            and isinstance(ref.node, Leaf)
            and ref.node.tensor is not None
            and ref.node.tensor() is tensor
        ):
            return ref
        if id(tensor) in self.names.tensors:
            return self._attribute(tensor)
        return (
            self._unwrapped(tensor) or self._view_of_known(tensor) or self._bridged(tensor) or self._attribute(tensor)
        )

    def _leaf(self, origin: Origin, path: str, tensor: torch.Tensor) -> Ref:
        leaf = Leaf(origin, path, describe(tensor), weakref.ref(tensor))
        self.steps.append(leaf)
        return Ref(leaf, 0)

    def _produce(self, tensor: torch.Tensor, ref: Ref, call: Call) -> None:
        key = id(tensor)
        if key in self.names.tensors and not (call.inplace and tensor.requires_grad and not tensor.is_leaf):
            return  # a parameter or buffer stays one, whatever no-op returned it or wrote to it
        entry = self._known[key] = _Entry(weakref.ref(tensor), ref, len(self.steps))
        if call.inplace:
            self._note_change(tensor, entry, call)

    def _note_change(self, tensor: torch.Tensor, entry: _Entry, call: Call) -> None:
        base = tensor._base if tensor._is_view() else None
        if base is None:
            self._changed[id(tensor)] = entry
        elif id(base) not in self.names.tensors or tensor.requires_grad:
            call.rebased = describe(base)
            owner = _Entry(weakref.ref(base), Ref(call, REBASED), entry.time)
            self._known[id(base)] = self._changed[id(base)] = owner

    def _current(self, tensor: torch.Tensor, entry: _Entry) -> _Entry:
        """The entry itself, or that of the tensor's base when it was changed through another tensor since."""
        if not tensor._is_view():
            return entry
        owner = self._changed.get(id(tensor._base), entry)
        return owner if owner.time > entry.time and owner.tensor() is tensor._base else entry

    def _view_of_known(self, tensor: torch.Tensor) -> Ref | None:
        base = tensor._base if tensor._is_view() else None
        return None if base is None or id(base) not in self._known else self.refer(base)

    def _unwrapped(self, tensor: torch.Tensor) -> Ref | None:
        """What a tensor inside `torch.vmap` or `torch.func.grad` stands for."""
        if not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return None
        return self.refer(torch._C._functorch.get_unwrapped(tensor))

    def _bridged(self, tensor: torch.Tensor) -> Ref | None:
        """Look through code that shows no torch calls (TorchScript, C++) along the autograd graph to a recorded call.

        Autograd numbers its nodes in the order they are made, which tells what call each of them belongs to.
        """
        if tensor.grad_fn is None:
            return None
        self.hidden += 1
        queue, seen = [(tensor.grad_fn, 0)], {tensor.grad_fn}
        for function, output in queue:
            call = self._maker(function._sequence_nr())
            if call is not None:
                return Ref(call, output if output < len(call.outputs) else 0)
            for following, number in function.next_functions:
                if following is not None and following not in seen and len(queue) < _REACH:
                    seen.add(following)
                    queue.append((following, number))
        return None

    def _maker(self, number: int) -> Call | None:
        low, high = 0, len(self._sequence)
        while low < high:
            middle = (low + high) // 2
            start, stop, call = self._sequence[middle]
            if start <= number < stop:
                return call
            low, high = (middle + 1, high) if number >= stop else (low, middle)
        return None

    def _attribute(self, tensor: torch.Tensor) -> Ref:
        paths = self.names.tensors.get(id(tensor))
        path = paths[0] if paths else self.names.attributes.get(id(tensor), f"constant_{len(self._leaves)}")
        origin: Origin = "constant" if not paths else "param" if path in self.names.params else "buffer"
        ref = self._leaves[id(tensor)] = self._leaf(origin, path, tensor)
        return ref

    def _freeze(self, value: Any, depth: int) -> Any:
        """The argument with a `Ref` for each tensor."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is torch.Tensor or isinstance(value, torch.Tensor):
            ref = self.refer(value)
            self._given.append((ref, value))
            return ref
        if kind is tuple or kind is torch.Size:
            return tuple([self._freeze(item, depth + 1) for item in value]) if depth < _DEPTH else value
        if depth < _DEPTH:
            if isinstance(value, (list, tuple)):
                return [self._freeze(item, depth + 1) for item in value]
            if isinstance(value, dict):
                return {str(key): self._freeze(item, depth + 1) for key, item in value.items()}
            if isinstance(value, slice):
                return slice(*(self._freeze(part, depth + 1) for part in (value.start, value.stop, value.step)))
        return value


_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device})
_DEPTH = 5
_REACH = 500  # autograd nodes looked at to find a known one


def _places(value: Any, path: tuple[int | str, ...]) -> list[tuple[tuple[int | str, ...], torch.Tensor]]:
    """Every tensor of a call's result with the path to it, in the order of `calls.tensors`."""
    if isinstance(value, torch.Tensor):
        return [(path, value)]
    items: Any = ()
    if len(path) <= _DEPTH and isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif len(path) <= _DEPTH and isinstance(value, dict):
        items = value.items()
    return [place for key, item in items for place in _places(item, (*path, key))]
