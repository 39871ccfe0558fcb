"""Watches one run: the size of every activation on the way forward and of every gradient on the way back."""

from __future__ import annotations

import torch
from torch import Tensor

from gradlint.graph.ir import Graph
from gradlint.probe import stack, units
from gradlint.probe.gradients import Gradients
from gradlint.probe.ledger import HALF, Ledger, alike, log_rms
from gradlint.probe.sites import SMALL, Key, Sites, sites
from gradlint.probe.units import Function

FLOATING = frozenset({torch.float32, torch.float64, torch.complex64, torch.complex128, *HALF})
KEPT = 1 << 23  # entries kept at most
CACHED = 1 << 20  # entries up to which both bounds are found faster in a pass each than in one
# The correlation of large tensors is estimated from BLOCKS runs of LENGTH entries of each sample: single entries far
# apart would cost one cache line each.
BLOCKS, LENGTH = 32, 16


class Collector:
    """An observer of a recorded run; `ledger` holds what it measured.

    `gradients` takes what arrives in the backward pass. Small activations are kept and measured together, as a call of
    torch costs more than their arithmetic; one is copied when a later in-place operation may change it.
    """

    def __init__(self, batch: int, graph: Graph | None = None, *, ranges: bool = False) -> None:
        """`ranges` also notes the "peak", share of "zeros at" and "bits" of each gradient, and bounds of everything."""
        self.ledger = Ledger()
        self._batch = batch
        self._sites: Sites | None = None if graph is None else sites(graph)
        self.gradients = Gradients(self.ledger, self._sites.due if self._sites else frozenset(), ranges=ranges)
        self._plain = frozenset() if self._sites is None else self._sites.plain
        self._ranges = ranges
        self._outputs: list[tuple[int, tuple[Tensor, ...]]] = []
        self._activations: list[tuple[Key, Tensor]] = []
        self._samples: list[tuple[Key, Tensor]] = []
        self._units: list[tuple[tuple[Key, str, int], Tensor]] = []  # bounds of each unit: the least, and the greatest
        self._room = KEPT

    def on_input(self, key: Key, tensor: Tensor) -> None:
        """Note the size of an input, before the model can change it in place."""
        if _has_size(tensor):
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

    def forward_done(self, graph: Graph) -> None:
        """Measure the activations that were kept, before the backward pass needs the room.

        Gradients that were asked for on the way, by the model or of computed weights, are not those of the loss.
        """
        self.gradients.forget()
        with torch.no_grad():
            self._flush(sites(graph))
            for keys, tensors in alike(self._samples):
                stack.correlation(self.ledger, keys, tensors)
            self._finish_units()
        self._samples, self._units = [], []

    def _flush(self, known: Sites) -> None:
        """Look at the outputs that were kept."""
        outputs, self._outputs = self._outputs, []
        plain = [((index, position), tensor) for index, made in outputs for position, tensor in enumerate(made)]
        for keys, tensors in alike(plain):
            self.gradients.expect_settled(keys, tensors)
            self._measure_together(keys, tensors, known)
        kept, self._activations, self._room = self._activations, [], KEPT
        for keys, tensors in alike(kept):
            self._measure_together(keys, tensors, known)

    def _measure_together(self, keys: list[Key], tensors: list[Tensor], known: Sites) -> None:
        if _has_size(tensors[0]):
            stack.measure(self.ledger, keys, tensors, self._batch, known.functions)

    def _keep(self, index: int, outputs: tuple[Tensor, ...]) -> None:
        copied = self._sites is None or not self._sites.settled
        for position, tensor in enumerate(outputs):
            if not _has_size(tensor):
                continue
            key, size = (index, position), tensor.numel()
            self.gradients.expect(key, tensor)
            if size <= SMALL and self._room > size:
                self._room -= size
                self._activations.append((key, tensor.detach().clone() if copied else tensor))
            else:
                self._measure(key, tensor, tensor.detach())

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
        asked = both.is_cpu and function.name in units.BOUNDS  # asking is free on the CPU only
        within = (both[0].min().item(), both[1].max().item()) if asked else None
        units.saturation(self.ledger, [key], lambda: entries.unsqueeze(0), function, within)
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


def _has_size(tensor: Tensor) -> bool:
    """Whether the tensor holds numbers that have a size: dense floating ones."""
    return tensor.dtype in FLOATING and tensor.layout is torch.strided and tensor.numel() > 0


def sample(entries: Tensor) -> Tensor:
    """(samples, …): a copy of at most BLOCKS × LENGTH features of each sample, spread over the tensor."""
    count, size = entries.shape[0], entries.numel() // entries.shape[0]
    length = size // BLOCKS
    if length <= LENGTH:
        return entries.reshape(count, -1).clone()
    rows = entries.reshape(count, size)
    shape, strides = (count, BLOCKS, LENGTH), (rows.stride(0), length * rows.stride(1), rows.stride(1))
    return rows.as_strided(shape, strides, rows.storage_offset()).flatten(1)
