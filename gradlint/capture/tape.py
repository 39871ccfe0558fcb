"""The fx graph of a run, built call by call: static single assignment over tensors that are changed in place."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from gradlint.capture import calls
from gradlint.capture.frames import Place
from gradlint.capture.naming import Names


@dataclass(frozen=True, slots=True)
class Meta:
    """What is kept of a tensor: its shape, dtype and whether a gradient flows back to it. Never its storage."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    requires_grad: bool


@dataclass(slots=True)
class Call:
    """One recorded call; `fx.Node.meta["call"]` of its node. `rebased` is the storage's owner that a view changed."""

    index: int
    name: str
    outputs: tuple[Meta, ...]
    path: str
    type: str
    module: int  # id of the module
    place: Place | None
    inplace: bool
    grad_enabled: bool
    custom: bool = False
    rebased: Meta | None = None


@dataclass(slots=True)
class Entry:
    """What a live tensor currently is: an output (flat position, path inside the result) of a node."""

    tensor: weakref.ref[torch.Tensor]
    node: fx.Node
    output: int | None  # None for a placeholder or get_attr node
    path: tuple[int | str, ...]
    time: int


REBASE = -1  # the output position of the base that an in-place operation on a view changes as well


def describe(tensor: torch.Tensor) -> Meta:
    """The tensor's metadata."""
    return Meta(tuple(tensor.shape), tensor.dtype, tensor.requires_grad)


def rebase(result: object) -> object:
    """Target of the fx node that stands for a view's base after the view was changed in place."""
    return result


@dataclass
class Tape:
    """Builds the graph. Tensors are known by identity through weak references, so no activation is kept alive."""

    names: Names
    graph: fx.Graph = field(default_factory=fx.Graph)
    hidden: int = 0  # values whose producer the recorder could not see
    _known: dict[int, Entry] = field(default_factory=dict)
    _changed: dict[int, tuple[int, Entry]] = field(default_factory=dict)  # id of a base → when and by what
    _attributes: dict[int, fx.Node] = field(default_factory=dict)
    _items: dict[tuple[fx.Node, int], fx.Node] = field(default_factory=dict)
    _clock: int = 0

    def placeholder(self, name: str, tensor: torch.Tensor) -> fx.Node:
        """A node for one input tensor of the model."""
        node = self.graph.create_node("placeholder", "input_" + name.replace(".", "_"))
        node.meta.update(value=describe(tensor), origin="input", path=name)
        if id(tensor) not in self._known:
            self._remember(tensor, node, None, ())
        return node

    def add(
        self, func: calls.Function, args: Any, kwargs: Any, outputs: Sequence[torch.Tensor], call: Call, result: object
    ) -> None:
        """Append one call and make its outputs known."""
        node = self.graph.create_node(
            "call_function", func, self._freeze(args, 0), self._freeze(kwargs, 0) if kwargs else {}, call.name[-40:]
        )
        node.meta["call"] = call
        self._clock += 1
        if result is outputs[0]:
            self._produce(outputs[0], node, 0, (), call)
            return
        for position, (path, tensor) in enumerate(_places(result if result is not None else outputs[0], ())):
            self._produce(tensor, node, position, path, call)

    def refer(self, tensor: torch.Tensor) -> fx.Node:
        """The node that the tensor currently is; parameters, buffers and unknown tensors become get_attr nodes."""
        entry = self._known.get(id(tensor))
        if entry is not None and entry.tensor() is tensor:
            return self._node(self._current(tensor, entry))
        node = self._attributes.get(id(tensor))
        if node is not None and node.meta["tensor"]() is tensor:
            return node
        return self._view_of_known(tensor) or self._gap(tensor) or self._attribute(tensor)

    def _remember(self, tensor: torch.Tensor, node: fx.Node, output: int | None, path: tuple[int | str, ...]) -> Entry:
        entry = self._known[id(tensor)] = Entry(weakref.ref(tensor), node, output, path, self._clock)
        return entry

    def _produce(
        self, tensor: torch.Tensor, node: fx.Node, position: int, path: tuple[int | str, ...], call: Call
    ) -> None:
        if id(tensor) in self.names.tensors and not (call.inplace and tensor.requires_grad and not tensor.is_leaf):
            return  # a parameter or buffer stays one, whatever no-op returned it or wrote to it
        entry = self._remember(tensor, node, position, path)
        if not call.inplace:
            return
        base = tensor._base if tensor._is_view() else None
        if base is None:
            self._changed[id(tensor)] = (self._clock, entry)
        else:
            call.rebased = describe(base)
            owner = self._remember(base, node, REBASE, (REBASE,))
            self._changed[id(base)] = (self._clock, owner)

    def _current(self, tensor: torch.Tensor, entry: Entry) -> Entry:
        """The entry itself, or that of the tensor's base when it was changed through another view since."""
        if not self._changed or not tensor._is_view():
            return entry
        time, owner = self._changed.get(id(tensor._base), (-1, entry))
        return owner if time > entry.time and owner.tensor() is tensor._base else entry

    def _view_of_known(self, tensor: torch.Tensor) -> fx.Node | None:
        base = tensor._base if tensor._is_view() else None
        return None if base is None or id(base) not in self._known else self.refer(base)

    def _gap(self, tensor: torch.Tensor) -> fx.Node | None:
        """Bridge code that the recorder cannot see (TorchScript, C++) along the autograd graph to a known tensor."""
        if tensor.grad_fn is None:
            return None
        self.hidden += 1
        live = {}
        for entry in self._known.values():
            known = entry.tensor()
            if known is not None and known.grad_fn is not None:
                live[known.grad_fn] = known
        queue, seen = [tensor.grad_fn], {tensor.grad_fn}
        for function in queue:
            if function in live:
                return self.refer(live[function])
            following = [following for following, _ in function.next_functions if following not in seen and following]
            queue += following if len(queue) < 500 else []
            seen.update(following)
        return None

    def _attribute(self, tensor: torch.Tensor) -> fx.Node:
        paths = self.names.tensors.get(id(tensor))
        path = paths[0] if paths else self.names.attributes.get(id(tensor), f"constant_{len(self._attributes)}")
        origin = "constant" if not paths else "param" if path in self.names.params else "buffer"
        node = self.graph.create_node("get_attr", path)
        node.meta.update(value=describe(tensor), origin=origin, path=path, tensor=weakref.ref(tensor))
        self._attributes[id(tensor)] = node
        return node

    def _node(self, entry: Entry) -> fx.Node:
        """The node itself, or the getitem chain that takes this output from it."""
        if entry.output is None or not entry.path:
            return entry.node
        key = (entry.node, entry.output)
        if key not in self._items:
            self._items[key] = self._item(entry)
        return self._items[key]

    def _item(self, entry: Entry) -> fx.Node:
        if entry.output == REBASE:
            node = self.graph.create_node("call_function", rebase, (entry.node,))
            node.meta.update(of=entry.node, output=REBASE)
            return node
        node = entry.node
        for step in entry.path:
            node = self.graph.create_node("call_function", operator.getitem, (node, step))
        node.meta.update(of=entry.node, output=entry.output)
        return node

    def _freeze(self, value: Any, depth: int) -> Any:
        """The argument with nodes for tensors."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        if isinstance(value, torch.Tensor):
            return self.refer(value)
        if depth < 5:
            if isinstance(value, torch.Size):
                return tuple(value)
            if isinstance(value, tuple):
                return tuple(self._freeze(item, depth + 1) for item in value)
            if isinstance(value, list):
                return [self._freeze(item, depth + 1) for item in value]
            if isinstance(value, dict):
                return {str(key): self._freeze(item, depth + 1) for key, item in value.items()}
            if isinstance(value, slice):
                return slice(*(self._freeze(part, depth + 1) for part in (value.start, value.stop, value.step)))
        return value


_PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device})


def _places(value: object, path: tuple[int | str, ...]) -> list[tuple[tuple[int | str, ...], torch.Tensor]]:
    """Every tensor of a call's result with the path to it, in the order of `calls.tensors`."""
    if isinstance(value, torch.Tensor):
        return [(path, value)]
    items: Any = ()
    if len(path) <= 5 and isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif len(path) <= 5 and isinstance(value, dict):
        items = value.items()
    return [place for key, item in items for place in _places(item, (*path, key))]
