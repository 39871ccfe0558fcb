"""Takes the gradient of every observed tensor: all at once where they are few bytes, else each as it arrives."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node

from gradlint.probe.ledger import K, Ledger, alike, log_rms_alike, log_rms_of
from gradlint.probe.sites import FEW, SMALL, Key

Edge = tuple[Key, Node, int]  # the autograd node that receives the gradient of a tensor, and at which position
# Hooks that are set at a time: one alone costs several times as much, as the code for it is not in the cache.
BATCH = 64


class Gradients:
    """Measures the gradient of each tensor that it was told to expect, as the tensor was when it was told.

    A tensor that may be changed later is named by its edge in the graph of autograd, and none by module hooks, so
    in-place operations and views are fine. As long as all that is expected takes no more than FEW bytes, the gradients
    can be had together by one call of the engine (`backward`), which costs hardly anything a tensor. Beyond that each
    is met by a pre-hook on its node: large ones are measured at once, while they are in the cache, small ones are kept
    until one of the calls in `due`.
    """

    def __init__(self, ledger: Ledger, due: Collection[int] = frozenset(), *, ranges: bool = False) -> None:
        """`ranges` also notes the "peak", share of "zeros at" and "bits" of each gradient."""
        self.timed: dict[Key, int] = {}  # gradients to be told apart by step, and the axis of the steps
        self._ledger = ledger
        self._due = due
        self._ranges = ranges
        self._edges: list[Edge] = []
        self._settled: list[tuple[list[Key], list[Tensor]]] = []  # of one shape each
        self._room = FEW
        self._arrived: dict[Key, Tensor] = {}

    def expect(self, key: Key, tensor: Tensor) -> None:
        """Take the gradient of this tensor, as it is now, under its key when it comes."""
        node = tensor.grad_fn
        if node is not None:
            self._edges.append((key, node, tensor.output_nr))
            self._room -= tensor.nbytes
            if self._room < 0 and len(self._edges) >= BATCH:
                self.hook()

    def expect_settled(self, keys: list[Key], tensors: list[Tensor]) -> None:
        """Take the gradients of tensors of one shape that stay what they are: their nodes need not be looked up."""
        if True in {tensor.is_leaf for tensor in tensors}:
            known = [(key, tensor) for key, tensor in zip(keys, tensors, strict=True) if not tensor.is_leaf]
            keys, tensors = [key for key, _ in known], [tensor for _, tensor in known]
        if keys:
            self._settled.append((keys, tensors))
            self._room -= len(tensors) * tensors[0].nbytes
            if self._room < 0:
                self.hook()

    def hook(self) -> None:
        """Meet every gradient that is expected by a hook, so that any backward pass will do."""
        slots: dict[Node, list[tuple[Key, int]]] = {}
        for key, node, number in self._edges:
            slots.setdefault(node, []).append((key, number))
        for keys, tensors in self._settled:
            for key, tensor in zip(keys, tensors, strict=True):
                if tensor.grad_fn is not None:
                    slots.setdefault(tensor.grad_fn, []).append((key, tensor.output_nr))
        self._edges, self._settled = [], []
        for node, several in slots.items():
            node.register_prehook(partial(self._arrive, several))
            if any(call in self._due for (call, _), _ in several):
                node.register_prehook(self._collect)

    def forget(self) -> None:
        """Drop what has arrived so far: gradients that the forward pass asked for are not those of the loss."""
        self._arrived.clear()
        self._ledger.forget("gradient", "steps", "peak", "zeros at", "bits")

    def backward(self, total: Tensor, params: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        """Backpropagate, measure what was expected, and give the gradient of each parameter that got one.

        The parameters are left without it where all gradients are had together; else theirs are accumulated as ever.
        """
        if self._room < 0:
            self.hook()
        if self._edges or self._settled:
            return self._together(total, params)
        total.backward()  # type: ignore[no-untyped-call]
        self._collect()
        return {path: param.grad for path, param in params.items() if param.grad is not None}

    def _together(self, total: Tensor, params: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        edges, settled, self._edges, self._settled = self._edges, self._settled, [], []
        leaves = {path: param for path, param in params.items() if param.requires_grad and param.is_leaf}
        wanted: list[Any] = [tensor for _, tensors in settled for tensor in tensors]
        wanted += [GradientEdge(node, number) for _, node, number in edges]
        wanted += leaves.values()
        found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
        for keys, _ in settled:
            gradients = list(islice(found, len(keys)))
            if len(keys) > 1 and {None if g is None else g.layout for g in gradients} == {torch.strided}:
                self._measure(keys, gradients)
            else:
                self._arrived |= _arrived(keys, gradients)
        self._arrived |= _arrived((key for key, _, _ in edges), islice(found, len(edges)))
        self._collect()
        return _arrived(leaves, found)

    def _arrive(self, slots: list[tuple[Key, int]], gradients: tuple[Tensor | None, ...]) -> None:
        for key, number in slots:
            gradient = gradients[number]
            if gradient is not None and gradient.numel() <= SMALL:
                self._arrived[key] = gradient
            elif gradient is not None:
                self._measure([key], [gradient])

    def _collect(self, _: object = None) -> None:
        """Measure the gradients that arrived and were kept."""
        for keys, gradients in alike(self._arrived.items()):
            self._measure(keys, gradients)
        self._arrived.clear()

    def _measure(self, keys: list[Key], gradients: list[Tensor]) -> None:
        """Note what is to be known of gradients of one shape."""
        if gradients[0].layout is not torch.strided or not gradients[0].numel():
            return
        log_rms_alike(self._ledger, "gradient", keys, gradients)
        if not self.timed and not self._ranges:
            return
        for key, gradient in zip(keys, gradients, strict=True):
            if key in self.timed:
                self._by_step(key, gradient)
            if self._ranges:
                self._range(key, gradient)

    def _by_step(self, key: Key, gradient: Tensor) -> None:
        steps = gradient.movedim(self.timed[key], 0)
        keys: list[Hashable] = [(*key, step) for step in range(len(steps))]
        log_rms_of(self._ledger, "steps", keys, steps)

    def _range(self, key: Key, gradient: Tensor) -> None:
        """Note the largest magnitude of a gradient, and the share of its entries that are exactly zero."""
        self._ledger.put("peak", [key], gradient.abs().amax().reshape(1))
        self._ledger.put("zeros at", [key], (gradient == 0).float().mean().reshape(1))
        self._ledger.note("bits", key, 8.0 * gradient.element_size())


def _arrived(keys: Iterable[K], gradients: Iterable[Tensor | None]) -> dict[K, Tensor]:
    """The gradients that there are, by their keys."""
    return {key: gradient for key, gradient in zip(keys, gradients, strict=True) if gradient is not None}
