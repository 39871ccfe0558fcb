"""Watches one run: the size of every activation on the way forward and of every gradient on the way back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradlint.graph.ir import Graph
from gradlint.probe import units
from gradlint.probe.ledger import HALF, Ledger, log_rms, log_rms_of, wide

Key = tuple[int, int]  # call number and position among its outputs; (-1, n) for the n-th input
Gradients = Sequence[Tensor | None]

FLOATING = frozenset({torch.float32, torch.float64, torch.complex64, torch.complex128, *HALF})
SMALL = 1 << 14  # entries; smaller tensors are kept and measured together, larger ones at once
KEPT = 1 << 23  # entries kept at most
FEATURES = 512  # entries of each sample of a large tensor that its correlation is estimated from


@dataclass(slots=True)
class _Kept:
    """A small tensor to be measured later."""

    key: Key
    tensor: Tensor


class Collector:
    """An observer of a recorded run; `ledger` holds what it measured.

    Gradients are taken by pre-hooks on the autograd nodes of the outputs, never by module hooks, so in-place operations
    and views are fine. A small activation is copied, as a later in-place operation may change it.
    """

    def __init__(self, batch: int, graph: Graph | None = None) -> None:
        self.ledger = Ledger()
        self.timed: dict[Key, int] = {}  # gradients to be told apart by step, and the axis of the steps
        self._batch = batch
        self._graph = graph
        self._nodes: dict[Any, list[tuple[Key, int]]] = {}
        self._activations: list[_Kept] = []
        self._gradients: list[_Kept] = []
        self._room = KEPT

    def on_output(self, index: int, outputs: tuple[Tensor, ...]) -> None:
        """Measure or keep the outputs of a call and hook their gradients."""
        for position, tensor in enumerate(outputs):
            if tensor.dtype not in FLOATING or tensor.layout is not torch.strided:
                continue
            key = (index, position)
            self._activation(key, tensor)
            node = tensor.grad_fn
            if node is not None:
                self._hook(key, node, tensor.output_nr)

    def watch(self, key: Key, tensor: Tensor) -> None:
        """Hook the gradient of a tensor that no call produced."""
        if tensor.dtype in FLOATING and tensor.requires_grad:
            tensor.register_hook(partial(self._gradient, key))  # type: ignore[no-untyped-call]

    def release(self) -> None:
        """Forget the autograd nodes: after the forward pass nothing more is hooked."""
        self._nodes.clear()

    def finish(self, graph: Graph) -> None:
        """Measure what was kept. The graph says which outputs are those of activations."""
        for group in _groups(self._activations):
            self._measure_activations(group, graph)
        for group in _groups(self._gradients):
            stacked = torch.stack([kept.tensor for kept in group])
            log_rms_of(self.ledger, "gradient", [kept.key for kept in group], stacked)
        self._activations, self._gradients = [], []

    def _hook(self, key: Key, node: Any, number: int) -> None:
        slots = self._nodes.get(node)
        if slots is None:
            slots = self._nodes[node] = []
            node.register_prehook(partial(self._gradients_of, slots))
        slots.append((key, number))

    def _gradients_of(self, slots: list[tuple[Key, int]], gradients: Gradients) -> None:
        for key, number in slots:
            gradient = gradients[number]
            if gradient is not None:
                self._gradient(key, gradient)

    def _gradient(self, key: Key, gradient: Tensor) -> None:
        if gradient.layout is not torch.strided:
            return
        if self.timed and key in self.timed:
            self._by_step(key, gradient.detach())
        if gradient.numel() <= SMALL and self._take(gradient):
            self._gradients.append(_Kept(key, gradient))
        elif gradient.numel():
            log_rms(self.ledger, "gradient", key, gradient.detach())

    def _activation(self, key: Key, tensor: Tensor) -> None:
        entries = tensor.detach()
        if tensor.numel() <= SMALL and self._take(tensor):
            self._activations.append(_Kept(key, entries.clone()))
        elif tensor.numel():
            log_rms(self.ledger, "activation", key, entries)
            self._large(key, tensor, entries)

    def _large(self, key: Key, tensor: Tensor, entries: Tensor) -> None:
        if tensor.is_complex():
            return
        function = units.function_of(tensor, key, self._graph)
        if function:
            units.measure(self.ledger, [key], entries.unsqueeze(0), function, units.axis_of(tensor))
        else:
            low, high = torch.aminmax(entries)
            self._bounds([key], low.reshape(1), high.reshape(1))
        if 1 < self._batch == tensor.shape[0]:
            rows = entries.reshape(self._batch, -1)
            rows = rows[:, :: max(1, rows.shape[1] // FEATURES)]
            self.ledger.put("correlation", [key], correlation(rows.unsqueeze(0)))

    def _measure_activations(self, group: list[_Kept], graph: Graph) -> None:
        stacked = torch.stack([kept.tensor for kept in group])
        keys = [kept.key for kept in group]
        log_rms_of(self.ledger, "activation", keys, stacked)
        if stacked.is_complex():
            return
        flat = stacked.reshape(len(group), -1)
        self._bounds(keys, flat.amin(1), flat.amax(1))
        if stacked.ndim > 1 and 1 < self._batch == stacked.shape[1]:
            self.ledger.put("correlation", keys, correlation(flat.reshape(len(group), self._batch, -1)))
        for function, axis, places in units.activations(graph, keys):
            chosen = stacked if len(places) == len(keys) else stacked[places]
            units.measure(self.ledger, [keys[place] for place in places], chosen, function, axis)

    def _bounds(self, keys: list[Key], low: Tensor, high: Tensor) -> None:
        self.ledger.put("low", keys, low)
        self.ledger.put("high", keys, high)

    def _by_step(self, key: Key, gradient: Tensor) -> None:
        steps = wide(gradient.movedim(self.timed[key], 0).reshape(gradient.shape[self.timed[key]], -1))
        rms = torch.linalg.vector_norm(steps, dim=1).log10() - 0.5 * math.log10(max(1, steps.shape[1]))
        self.ledger.put("steps", [(*key, step) for step in range(len(steps))], rms)

    def _take(self, tensor: Tensor) -> bool:
        if not tensor.numel():
            return False
        self._room -= tensor.numel()
        return self._room > 0


def correlation(samples: Tensor) -> Tensor:
    """Mean cosine between different samples, for each of (tensors, samples, features); NaN where a sample is zero."""
    length = torch.linalg.vector_norm(wide(samples), dim=2, keepdim=True)
    directions = wide(samples) / length
    count = samples.shape[1]
    total: Tensor = (directions.sum(1) ** 2).sum(1)
    return (total - count) / (count * (count - 1))


def _groups(kept: Iterable[_Kept]) -> list[list[_Kept]]:
    """Tensors of one shape, dtype and device together."""
    groups: dict[object, list[_Kept]] = {}
    for entry in kept:
        tensor = entry.tensor
        groups.setdefault((tensor.shape, tensor.dtype, tensor.device), []).append(entry)
    return list(groups.values())
