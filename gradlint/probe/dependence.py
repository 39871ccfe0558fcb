"""What one prediction depends on: the gradient of one entry of an output axis, laid out along an axis before it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradlint.capture import run
from gradlint.capture.structure import arguments
from gradlint.error import ProbeError
from gradlint.graph.ir import Graph
from gradlint.probe.isolation import copy_inputs, copy_model, pick_device, undisturbed
from gradlint.probe.question import Suspect
from gradlint.profile import Question

Slot = tuple[int, int]  # call number and position among its outputs; (-1, n) for the n-th input
INPUT = -1


class Loaded(Protocol):
    """What is needed of a `gradlint.load.LoadedModel`."""

    model: nn.Module
    args: tuple[object, ...]
    kwargs: dict[str, object]


@dataclass
class Watcher:
    """An observer that keeps the asked-for outputs, and the gradient that arrives at the asked-for sources."""

    ends: frozenset[Slot]
    sources: frozenset[Slot]
    kept: dict[Slot, Tensor] = field(default_factory=dict)
    gradients: dict[Slot, Tensor] = field(default_factory=dict)

    def on_output(self, index: int, outputs: tuple[Tensor, ...]) -> None:
        """Keep what was asked for; a gradient is taken at the autograd node, so a later in-place op does not matter."""
        for position, tensor in enumerate(outputs):
            slot = (index, position)
            if slot in self.ends:
                self.kept[slot] = tensor
            if slot in self.sources and tensor.grad_fn is not None:
                tensor.grad_fn.register_prehook(partial(self._arrived, slot, tensor.output_nr))

    def watch(self, slot: Slot, tensor: Tensor) -> None:
        """Take the gradient of an input."""
        if slot in self.sources and tensor.requires_grad:
            tensor.register_hook(lambda gradient: self.gradients.__setitem__(slot, gradient))  # type: ignore[no-untyped-call]

    def _arrived(self, slot: Slot, position: int, gradients: tuple[Tensor | None, ...]) -> None:
        gradient = gradients[position]
        if gradient is not None:
            self.gradients[slot] = gradient


def dependence(
    loaded: Loaded, graph: Graph, suspects: Iterable[Suspect], *, device: str = "auto", seed: int = 0
) -> dict[Question, tuple[float, ...]]:
    """Per question log10 RMS of the gradient at every entry of the source's axis, in the median sample.

    It may stay without an answer.

    The model is replayed on a copy in evaluation mode, where dropout is off and batch norms no longer tie the samples
    of a batch together, and the middle entry of the end's axis is differentiated under random weights. A question
    whose mask turns out to be no triangle is dropped: the model does not mean to be causal. Raises ProbeError when the
    model cannot be run, or takes another way, in evaluation mode.
    """
    wanted = tuple(suspects)
    ends = {each.question: _slot(graph, each.question.end) for each in wanted}
    sources = {each.question: _slot(graph, each.question.source) for each in wanted}
    masks = {_slot(graph, each.mask) for each in wanted if each.mask is not None and graph.op_of(each.mask)}
    watcher = Watcher(frozenset(ends.values()) | masks, frozenset(sources.values()))
    place = pick_device(device)
    with undisturbed(seed, place):
        try:
            model = _forward(loaded, graph, watcher, place)
            meant = [
                each.question for each in wanted if each.mask is None or _is_triangle(watcher, graph, model, each.mask)
            ]
            answers = {q: found for q in meant if (found := _answer(watcher, q, ends[q], sources[q]))}
        except Exception as error:
            raise ProbeError(f"what predictions depend on was not measured: {type(error).__name__}: {error}") from error
    return answers


def _forward(loaded: Loaded, graph: Graph, watcher: Watcher, device: torch.device) -> nn.Module:
    model = copy_model(loaded.model, device, None).eval()
    args = _differentiable(copy_inputs(loaded.args, device, None))
    kwargs = _differentiable(copy_inputs(loaded.kwargs, device, None))
    for position, (_, tensor) in enumerate(arguments(tuple(args), kwargs)):
        watcher.watch((INPUT, position), tensor)
    recording = run(model, args, kwargs, record=False, observer=watcher)
    if recording.calls != len(graph.ops):
        raise ProbeError("evaluation mode takes another way than training mode")
    return model


def _is_triangle(watcher: Watcher, graph: Graph, model: nn.Module, mask: int) -> bool:
    """Whether the mask holds one number on one side of the diagonal and another one on the other side."""
    if graph.op_of(mask) is not None:
        found = watcher.kept.get(_slot(graph, mask))
    else:
        found = dict(model.named_buffers()).get(graph.values[mask].name)
    if found is None or found.ndim < 2 or found.shape[-1] != found.shape[-2]:
        return False
    square = found.reshape(-1, *found.shape[-2:])[0].detach().float()
    upper = torch.ones_like(square, dtype=torch.bool).triu(1)
    return any(_differ(square[half], square[~half]) for half in (upper, upper.T))


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one == one[0]).all() and (other == other[0]).all() and one[0] != other[0])


def _answer(watcher: Watcher, question: Question, end: Slot, source: Slot) -> tuple[float, ...] | None:
    kept = watcher.kept.get(end)
    if kept is None or kept.grad_fn is None:
        return None
    watcher.gradients.clear()
    entry = kept.select(question.end_axis, kept.shape[question.end_axis] // 2)
    weights = torch.randn(entry.shape, generator=torch.Generator().manual_seed(0)).to(entry)
    (entry * weights).sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
    gradient = watcher.gradients.get(source)
    if gradient is None:
        return None
    rows = _typical(gradient.detach().double().square(), question.source_axis)
    return tuple(0.5 * math.log10(row) if row > 0 else -math.inf for row in rows.tolist())


def _typical(squares: Tensor, axis: int) -> Tensor:
    """Means over all other axes, of positions in the median sample, as the first axis holds the samples.

    A few samples may go another way: where a drawn token is the padding, its row of a mask hides everything, and a
    softmax of it reads all positions alike.
    """
    rest = [other for other in range(bool(axis), squares.ndim) if other != axis]
    each = squares.mean(rest) if rest else squares
    return each.median(0).values if axis else each


def _slot(graph: Graph, value: int) -> Slot:
    op = graph.op_of(value)
    return (INPUT, graph.inputs.index(value)) if op is None else (op.index, op.outputs.index(value))


def _differentiable(value: Any) -> Any:
    """The inputs with floating tensors that get a gradient; clones of leaves, so that in-place ops may hit them."""
    if isinstance(value, Tensor):
        return value.requires_grad_().clone() if value.is_floating_point() else value
    if type(value) in (list, tuple):
        return type(value)(_differentiable(item) for item in value)
    if isinstance(value, Mapping):
        return {key: _differentiable(item) for key, item in value.items()}
    return value
