"""Takes the gradient of every observed tensor: all at once where they are few bytes, else each as it arrives."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from gradlint.probe.ledger import Ledger, alike, log_rms_alike, log_rms_of
from gradlint.probe.sites import FEW, SMALL, Key

Source = Tensor | GradientEdge


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
        self._expected: list[tuple[list[Key], list[Source]]] = []  # those of one shape together
        self._room = FEW
        self._arrived: dict[Key, Tensor] = {}

    def expect(self, keys: list[Key], tensors: list[Tensor], *, settled: bool = False) -> None:
        """Take the gradients of these tensors of one shape under their keys when they come.

        `settled` says that they stay what they are: their edges, which cost more than all else, need not be looked up.
        """
        if True in {tensor.is_leaf for tensor in tensors}:
            known = [(key, tensor) for key, tensor in zip(keys, tensors, strict=True) if not tensor.is_leaf]
            keys, tensors = [key for key, _ in known], [tensor for _, tensor in known]
        if not keys:
            return
        self._room -= len(tensors) * tensors[0].nbytes
        if self._room < 0:
            self.hook()
            self._meet(keys, tensors)
        else:
            self._expected.append((keys, [*(tensors if settled else map(get_gradient_edge, tensors))]))

    def hook(self) -> None:
        """Meet every gradient that is expected by a hook, so that any backward pass will do."""
        expected, self._expected, self._room = self._expected, [], -1
        for keys, sources in expected:
            self._meet(keys, sources)

    def _meet(self, keys: list[Key], sources: Sequence[Source]) -> None:
        slots: dict[Node, list[tuple[Key, int]]] = {}
        for key, source in zip(keys, sources, strict=True):
            node = source.grad_fn if isinstance(source, Tensor) else source.node
            if node is not None:
                slots.setdefault(node, []).append((key, source.output_nr))
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
        if self._expected:
            return self._together(total, params)
        total.backward()  # type: ignore[no-untyped-call]
        self._collect()
        return {path: param.grad for path, param in params.items() if param.grad is not None}

    def _together(self, total: Tensor, params: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
        expected, self._expected = self._expected, []
        sources = [source for _, several in expected for source in several]
        leaves = {path: param for path, param in params.items() if param.requires_grad and param.is_leaf}
        wanted: list[Any] = [*sources, *leaves.values()]
        found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
        for keys, several in expected:
            gradients = list(islice(found, len(several)))
            if len(keys) > 1 and {None if g is None else g.layout for g in gradients} == {torch.strided}:
                self._measure(keys, gradients)
            else:
                arrived = zip(keys, gradients, strict=True)
                self._arrived |= {key: gradient for key, gradient in arrived if gradient is not None}
        self._collect()
        return {path: gradient for path, gradient in zip(leaves, found, strict=True) if gradient is not None}

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
