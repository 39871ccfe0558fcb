"""A recording as a torch.fx graph, the form in which it can be handed to other tools."""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from gradlint.capture.record import REBASED, Call, Leaf, Ref, span
from gradlint.capture.tape import Tape


def to_fx(tape: Tape) -> fx.Graph:
    """One call_function node for each call, with what was recorded of it in `node.meta`.

    Keys of `meta`: "call" (the recorded call: index, module path and type, outputs …), "span" (the user's line) for
    calls; "value" (shape, dtype, requires_grad), "origin" and "path" for placeholders and get_attr nodes.
    """
    return _Writer().graph(tape)


def rebased(result: object) -> object:
    """Target of the node for a tensor that was changed through a view of it: it stands for the whole tensor."""
    return result


class _Writer:
    def __init__(self) -> None:
        self._graph = fx.Graph()
        self._nodes: dict[int, fx.Node] = {}
        self._items: dict[tuple[int, int], fx.Node] = {}

    def graph(self, tape: Tape) -> fx.Graph:
        for step in tape.steps:
            self._nodes[id(step)] = self._leaf(step) if isinstance(step, Leaf) else self._call(step)
        self._graph.output(tuple(self._node(ref) for ref in tape.outputs))
        return self._graph

    def _leaf(self, leaf: Leaf) -> fx.Node:
        kind = "placeholder" if leaf.origin == "input" else "get_attr"
        target = leaf.path.replace(".", "_") if leaf.origin == "input" else leaf.path
        node = self._graph.create_node(kind, target or "input")
        node.meta.update(value=leaf.meta, origin=leaf.origin, path=leaf.path)
        return node

    def _call(self, call: Call) -> fx.Node:
        node = self._graph.create_node(
            "call_function",
            call.func or call.name,
            self._arguments(call.args),
            self._arguments(call.kwargs),
            call.name[-40:],
        )
        node.meta.update(call=call, span=span(call.place))
        return node

    def _arguments(self, value: Any) -> Any:
        if isinstance(value, Ref):
            return self._node(value)
        if isinstance(value, (tuple, list)):
            return type(value)(self._arguments(item) for item in value)
        if isinstance(value, dict):
            return {key: self._arguments(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self._arguments(part) for part in (value.start, value.stop, value.step)))
        return value

    def _node(self, ref: Ref) -> fx.Node:
        node = self._nodes[id(ref.node)]
        if isinstance(ref.node, Leaf):
            return node
        key = (id(ref.node), ref.output)
        if key not in self._items:
            self._items[key] = self._item(node, ref.node, ref.output)
        return self._items[key]

    def _item(self, node: fx.Node, call: Call, output: int) -> fx.Node:
        if output == REBASED:
            return self._graph.create_node("call_function", rebased, (node,))
        for step in call.paths[output]:
            node = self._graph.create_node("call_function", operator.getitem, (node, step))
        return node
