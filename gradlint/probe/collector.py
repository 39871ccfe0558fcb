"""Watches one run: the size of every activation on the way forward and of every gradient on the way back."""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from operator import setitem
from typing import Any

import torch
from torch import Tensor

from gradlint.graph.ir import Graph
from gradlint.probe import stack, units
from gradlint.probe.ledger import HALF, Ledger, alike, log_rms, log_rms_each, log_rms_of
from gradlint.probe.sites import SMALL, Key, Sites, sites
from gradlint.probe.units import Function

Gradients = tuple[Tensor | None, ...]
Slots = list[tuple[Key, int]]  # whose gradients an autograd node receives, and at which position

FLOATING = frozenset({torch.float32, torch.float64, torch.complex64, torch.complex128, *HALF})
STRIDED = torch.strided
KEPT = 1 << 23  # entries kept at most
GRADIENTS = ("gradient", "steps", "peak", "zeros at", "bits")  # tables of what arrives in the backward pass
CACHED = 1 << 20  # entries up to which both bounds are found faster in a pass each than in one
# The correlation of large tensors is estimated from BLOCKS runs of LENGTH entries of each sample: single entries far
# apart would cost one cache line each.
BLOCKS, LENGTH = 32, 16


class Collector:
    """An observer of a recorded run; `ledger` holds what it measured.

    Gradients are taken by pre-hooks on the autograd nodes of the outputs, never by module hooks, so in-place operations
    and views are fine. Small activations are kept and measured together, as a call of torch costs more than their
    arithmetic; one is copied when a later in-place operation may change it.
    """

    def __init__(self, batch: int, graph: Graph | None = None, *, ranges: bool = False) -> None:
        """`ranges` also notes the "peak", share of "zeros at" and "bits" of each gradient, and bounds of everything."""
        self.ledger = Ledger()
        self.timed: dict[Key, int] = {}  # gradients to be told apart by step, and the axis of the steps
        self._batch = batch
        self._sites: Sites | None = None if graph is None else sites(graph)
        self._plain = frozenset() if self._sites is None else self._sites.plain
        self._ranges = ranges
        self._outputs: list[tuple[int, tuple[Tensor, ...]]] = []
        self._activations: list[tuple[Key, Tensor]] = []
        self._arrived: dict[tuple[Key, int], Gradients] = {}
        self._samples: list[tuple[Key, Tensor]] = []
        self._units: list[tuple[tuple[Key, str, int], Tensor]] = []  # bounds of each unit: the least, and the greatest
        self._room = KEPT

    def on_input(self, key: Key, tensor: Tensor) -> None:
        """Note the size of an input, before the model can change it in place."""
        if tensor.numel() and tensor.dtype in FLOATING and tensor.layout is STRIDED:
            log_rms(self.ledger, "activation", key, tensor.detach())

    def on_output(self, index: int, outputs: tuple[Tensor, ...]) -> None:
        """Measure or keep the outputs of a call and hook their gradients."""
        if index in self._plain:
            self._outputs.append((index, outputs))
            return
        self._keep(index, outputs)
        if self._sites is not None and index in self._sites.full:
            with torch.no_grad():
                self._flush(self._sites)

    def watch(self, key: Key, tensor: Tensor) -> None:
        """Hook the gradient of a tensor that no call produced."""
        if tensor.dtype in FLOATING and tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._measure_gradient(key, gradient))  # type: ignore[no-untyped-call]

    def forward_done(self, graph: Graph) -> None:
        """Measure the activations that were kept, before the backward pass needs the room.

        Gradients that were asked for on the way, by the model or of computed weights, are not those of the loss.
        """
        self._arrived.clear()
        self.ledger.forget(*GRADIENTS)
        with torch.no_grad():
            self._flush(sites(graph))
            for keys, tensors in alike(self._samples):
                stack.correlation(self.ledger, keys, tensors)
            self._finish_units()
        self._samples, self._units = [], []

    def backward_done(self) -> None:
        """Measure the gradients that were kept."""
        self._collect()

    def _flush(self, known: Sites) -> None:
        """Look at the outputs that were kept, one after another while the code for it is in the cache."""
        outputs, self._outputs = self._outputs, []
        for index, made in outputs:
            self._keep(index, made)
        kept, self._activations, self._room = self._activations, [], KEPT
        for keys, tensors in alike(kept):
            stack.measure(self.ledger, keys, tensors, self._batch, known.functions)

    def _keep(self, index: int, outputs: tuple[Tensor, ...]) -> None:
        copied = self._sites is None or not self._sites.settled
        slots: dict[Any, Slots] = {}
        for position, tensor in enumerate(outputs):
            size = tensor.numel()
            if not size or tensor.dtype not in FLOATING or tensor.layout is not STRIDED:
                continue
            key, small = (index, position), size <= SMALL and self._room > size
            if small:
                self._room -= size
                self._activations.append((key, tensor.detach().clone() if copied else tensor))
            else:
                self._measure(key, tensor, tensor.detach())
            node = tensor.grad_fn
            if node is not None and (len(outputs) > 1 or not small or self._ranges):
                slots.setdefault(node, []).append((key, tensor.output_nr))
            elif node is not None:
                node.register_prehook(partial(setitem, self._arrived, (key, tensor.output_nr)))
        for node, several in slots.items():
            node.register_prehook(partial(self._arrive, several))
        if self._sites is not None and index in self._sites.due and outputs and (node := outputs[0].grad_fn):
            node.register_prehook(self._collect)

    def _arrive(self, slots: Slots, gradients: Gradients) -> None:
        for key, number in slots:
            if (gradient := gradients[number]) is not None:
                self._measure_gradient(key, gradient)

    def _collect(self, _: Gradients = ()) -> None:
        """Measure the gradients that arrived and were kept."""
        found = {
            key: gradient for (key, number), held in self._arrived.items() if (gradient := held[number]) is not None
        }
        self._arrived.clear()
        small: dict[Key, Tensor] = {}
        for key, gradient in found.items():
            if key in self.timed or gradient.layout is not STRIDED or gradient.numel() > SMALL:
                self._measure_gradient(key, gradient)
            elif gradient.numel():
                small[key] = gradient.detach()
        log_rms_each(self.ledger, "gradient", small)

    def _measure_gradient(self, key: Key, gradient: Tensor) -> None:
        if gradient.layout is not STRIDED or not gradient.numel():
            return
        entries = gradient.detach()
        if key in self.timed:
            self._by_step(key, entries)
        log_rms(self.ledger, "gradient", key, entries)
        if self._ranges:
            self._range(key, entries)

    def _range(self, key: Key, gradient: Tensor) -> None:
        """Note the largest magnitude of a gradient, and the share of its entries that are exactly zero."""
        self.ledger.put("peak", [key], gradient.abs().amax().reshape(1))
        self.ledger.put("zeros at", [key], (gradient == 0).float().mean().reshape(1))
        self.ledger.note("bits", key, 8.0 * gradient.element_size())

    def _measure(self, key: Key, tensor: Tensor, entries: Tensor) -> None:
        log_rms(self.ledger, "activation", key, entries)
        if tensor.is_complex():
            return
        function = units.function_of(tensor) if self._sites is None else self._sites.functions.get(key)
        if function is not None and function.dims == entries.ndim:
            self._measure_units(key, function, entries)
        elif self._ranges or self._sites is None or key in self._sites.ranged:
            cached = entries.numel() <= CACHED
            low, high = (entries.amin(), entries.amax()) if cached else torch.aminmax(entries)
            stack.bounds(self.ledger, [key], low.reshape(1), high.reshape(1))
        if 1 < self._batch == tensor.shape[0]:
            self._samples.append((key, sample(entries)))

    def _measure_units(self, key: Key, function: Function, entries: Tensor) -> None:
        both = units.bounds(entries, function)
        units.saturation(self.ledger, [key], lambda: entries.unsqueeze(0), function, both)
        self._units.append(((key, function.name, entries.numel()), both))

    def _finish_units(self) -> None:
        for found, tensors in alike(self._units):
            least, most = torch.stack(tensors, 1)
            keys = [key for key, _, _ in found]
            stack.bounds(self.ledger, keys, least, most)
            for name, entries in dict.fromkeys((name, entries) for _, name, entries in found):
                places = [place for place, (_, *kind) in enumerate(found) if kind == [name, entries]]
                made = [keys[place] for place in places]
                units.measure(self.ledger, made, name, least[places], most[places], entries)

    def _by_step(self, key: Key, gradient: Tensor) -> None:
        steps = gradient.movedim(self.timed[key], 0)
        keys: list[Hashable] = [(*key, step) for step in range(len(steps))]
        log_rms_of(self.ledger, "steps", keys, steps)


def sample(entries: Tensor) -> Tensor:
    """(samples, …): a copy of at most BLOCKS × LENGTH features of each sample, spread over the tensor."""
    count, size = entries.shape[0], entries.numel() // entries.shape[0]
    length = size // BLOCKS
    if length <= LENGTH:
        return entries.reshape(count, -1).clone()
    rows = entries.reshape(count, size)
    shape, strides = (count, BLOCKS, LENGTH), (rows.stride(0), length * rows.stride(1), rows.stride(1))
    return rows.as_strided(shape, strides, rows.storage_offset()).flatten(1)
