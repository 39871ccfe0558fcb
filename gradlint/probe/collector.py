"""Watches one run: the size of every activation on the way forward and of every gradient on the way back."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradlint.graph.ir import Graph
from gradlint.probe import units
from gradlint.probe.ledger import HALF, Ledger, alike, log_rms, log_rms_of

Key = tuple[int, int]  # call number and position among its outputs; (-1, n) for the n-th input
Gradients = tuple[Tensor | None, ...]
Slots = list[tuple[Key, int]]  # whose gradients an autograd node receives, and at which position

FLOATING = frozenset({torch.float32, torch.float64, torch.complex64, torch.complex128, *HALF})
STRIDED = torch.strided
SMALL = 1 << 14  # entries; smaller tensors are kept and measured together, larger ones at once
KEPT = 1 << 23  # entries kept at most
# Large values whose bounds are taken when the graph is known: those that the functions with a limited domain read.
RANGED = frozenset({"elementwise", "mul", "softmax", "loss", "reduce", "custom", "other"})
# The correlation of large tensors is estimated from BLOCKS runs of LENGTH entries of each sample: single entries far
# apart would cost one cache line each.
BLOCKS, LENGTH = 32, 16


class Collector:
    """An observer of a recorded run; `ledger` holds what it measured.

    Gradients are taken by pre-hooks on the autograd nodes of the outputs, never by module hooks, so in-place operations
    and views are fine. Small tensors are kept and measured together at the end, as a call of torch costs more than
    their arithmetic; an activation is copied when a later in-place operation may change it.
    """

    def __init__(self, batch: int, graph: Graph | None = None, *, ranges: bool = False) -> None:
        """`ranges` also notes the "peak", share of "zeros at" and "bits" of each gradient, and bounds of everything."""
        self.ledger = Ledger()
        self.timed: dict[Key, int] = {}  # gradients to be told apart by step, and the axis of the steps
        self._batch = batch
        self._graph = graph
        # Without in-place operations a tensor stays what it is: it need not be copied, and torch can keep its gradient.
        self._settled = graph is not None and not any(op.inplace for op in graph.ops)
        self._ranges = ranges
        self._ranged = None if graph is None or ranges else _ranged(graph)
        self._nodes: dict[Any, Slots] = {}
        self._activations: list[tuple[Key, Tensor]] = []
        self._gradients: list[tuple[Key, Tensor]] = []
        self._arriving: list[tuple[Slots, list[Gradients]]] = []
        self._samples: list[tuple[Key, Tensor]] = []
        self._room = KEPT

    def on_input(self, key: Key, tensor: Tensor) -> None:
        """Note the size of an input, before the model can change it in place."""
        if tensor.numel() and tensor.dtype in FLOATING and tensor.layout is STRIDED:
            log_rms(self.ledger, "activation", key, tensor.detach())

    def on_output(self, index: int, outputs: tuple[Tensor, ...]) -> None:
        """Measure or keep the outputs of a call and hook their gradients."""
        for position, tensor in enumerate(outputs):
            size = tensor.numel()
            if size and tensor.dtype in FLOATING and tensor.layout is STRIDED:
                small = size <= SMALL and self._room > size
                key = (index, position)
                if small:
                    self._room -= size
                    self._keep(key, tensor)
                else:
                    self._measure(key, tensor, tensor.detach())
                node = tensor.grad_fn
                if node is None:
                    continue
                if small and self._settled:
                    tensor.retain_grad()
                else:
                    self._hook(key, node, tensor, small=small)

    def watch(self, key: Key, tensor: Tensor) -> None:
        """Hook the gradient of a tensor that no call produced."""
        if tensor.dtype in FLOATING and tensor.requires_grad:
            tensor.register_hook(partial(self._gradient, key))  # type: ignore[no-untyped-call]

    def release(self) -> None:
        """Forget the autograd nodes: after the forward pass nothing more is hooked."""
        self._nodes.clear()

    def finish(self, graph: Graph) -> None:
        """Measure what was kept. The graph says which outputs are those of activations."""
        for keys, stacked in alike((key, tensor.detach()) for key, tensor in self._activations):
            self._measure_together(keys, stacked, graph)
        if self._settled:
            for key, tensor in self._activations:
                if tensor.grad is not None:
                    self._gradient(key, tensor.grad)
        for slots, arrived in self._arriving:
            for gradients in arrived:
                self._arrive(slots, gradients)
        for keys, stacked in alike(self._gradients):
            log_rms_of(self.ledger, "gradient", keys, stacked)
            self._range(keys, stacked)
        for keys, stacked in alike(self._samples):
            self.ledger.put("correlation", keys, correlation(stacked))
        self._activations, self._gradients, self._arriving, self._samples = [], [], [], []

    def _keep(self, key: Key, tensor: Tensor) -> None:
        self._activations.append((key, tensor if self._settled else tensor.detach().clone()))

    def _hook(self, key: Key, node: Any, tensor: Tensor, *, small: bool) -> None:
        slots = self._nodes.get(node)
        if slots is None:
            slots = self._nodes[node] = []
            if small and key not in self.timed:
                arrived: list[Gradients] = []
                self._arriving.append((slots, arrived))
                node.register_prehook(arrived.append)
            else:
                node.register_prehook(partial(self._arrive, slots))
        slots.append((key, tensor.output_nr))

    def _arrive(self, slots: Slots, gradients: Gradients) -> None:
        for key, number in slots:
            gradient = gradients[number]
            if gradient is not None:
                self._gradient(key, gradient)

    def _gradient(self, key: Key, gradient: Tensor) -> None:
        if gradient.layout is not STRIDED or not gradient.numel():
            return
        entries = gradient.detach()
        if key in self.timed:
            self._by_step(key, entries)
        if entries.numel() <= SMALL:
            self._gradients.append((key, entries))
        else:
            log_rms(self.ledger, "gradient", key, entries)
            self._range([key], entries.unsqueeze(0))

    def _range(self, keys: list[Key], stacked: Tensor) -> None:
        """Note the largest magnitude of gradients, and the share of their entries that are exactly zero."""
        if self._ranges:
            flat = stacked.reshape(len(keys), -1)
            self.ledger.put("peak", keys, flat.abs().amax(1))
            self.ledger.put("zeros at", keys, (flat == 0).float().mean(1))
            for key in keys:
                self.ledger.note("bits", key, 8.0 * flat.element_size())

    def _measure(self, key: Key, tensor: Tensor, entries: Tensor) -> None:
        log_rms(self.ledger, "activation", key, entries)
        if tensor.is_complex():
            return
        function = units.function_of(tensor, key, self._graph)
        if function:
            units.measure(self.ledger, [key], entries.unsqueeze(0), function, units.axis_of(tensor))
        elif self._ranged is None or key in self._ranged:
            low, high = torch.aminmax(entries)
            self._bounds([key], low.reshape(1), high.reshape(1))
        if 1 < self._batch == tensor.shape[0]:
            self._samples.append((key, _sample(entries)))

    def _measure_together(self, keys: list[Key], stacked: Tensor, graph: Graph) -> None:
        log_rms_of(self.ledger, "activation", keys, stacked)
        if stacked.is_complex():
            return
        flat = stacked.reshape(len(keys), -1)
        found = list(units.activations(graph, keys))
        if sum(len(places) for _, _, places in found) < len(keys):  # those of activations come with their units
            self._bounds(keys, flat.amin(1), flat.amax(1))
        if stacked.ndim > 1 and 1 < self._batch == stacked.shape[1]:
            self.ledger.put("correlation", keys, correlation(flat.reshape(len(keys), self._batch, -1)))
        for function, axis, places in found:
            units.measure(self.ledger, [keys[place] for place in places], _select(stacked, places), function, axis)

    def _bounds(self, keys: list[Key], low: Tensor, high: Tensor) -> None:
        self.ledger.put("low", keys, low)
        self.ledger.put("high", keys, high)

    def _by_step(self, key: Key, gradient: Tensor) -> None:
        steps = gradient.movedim(self.timed[key], 0)
        keys: list[Hashable] = [(*key, step) for step in range(len(steps))]
        log_rms_of(self.ledger, "steps", keys, steps)


def correlation(samples: Tensor) -> Tensor:
    """Mean cosine between different samples, for each of (tensors, samples, features); NaN where a sample is zero."""
    samples = samples.float() if samples.dtype in HALF else samples
    lengths: Tensor = torch.linalg.vector_norm(samples, dim=2)
    total = torch.bmm(lengths.reciprocal().unsqueeze(1), samples)  # the sum of the directions
    count = samples.shape[1]
    return ((total**2).sum((1, 2)) - count) / (count * (count - 1))


def _sample(entries: Tensor) -> Tensor:
    """(samples, features): a copy of at most BLOCKS × LENGTH features, spread over the tensor."""
    rows = entries.reshape(entries.shape[0], -1)
    length = rows.shape[1] // BLOCKS
    if length <= LENGTH:
        return rows.clone()
    shape, strides = (len(rows), BLOCKS, LENGTH), (rows.stride(0), length * rows.stride(1), rows.stride(1))
    return rows.as_strided(shape, strides, rows.storage_offset()).flatten(1)


def _select(stacked: Tensor, places: list[int]) -> Tensor:
    """These rows; without a copy where they are equally far apart, as those of alternating layers are."""
    step = places[1] - places[0] if len(places) > 1 else 1
    if places == list(range(places[0], places[-1] + 1, step)):
        return stacked[places[0] : places[-1] + 1 : step]
    return stacked[places]


def _ranged(graph: Graph) -> frozenset[Key]:
    """The outputs whose bounds are worth a pass over their entries."""
    read = {value for op in graph.ops if op.kind in RANGED for value in op.inputs} | set(graph.outputs)
    producers = ((value, graph.op_of(value)) for value in read)
    return frozenset((op.index, op.outputs.index(value)) for value, op in producers if op is not None)
