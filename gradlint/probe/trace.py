"""A short, bounded training run on a copy of the model, and what becomes of the gradient at every weight in it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.capture import Intervention, Names
from gradlint.capture.copies import is_lazy
from gradlint.capture.sharded import norm
from gradlint.error import ProbeError, UsageError
from gradlint.graph.ir import Graph
from gradlint.probe.agreement import Batch, agreement, split
from gradlint.probe.budget import spilled
from gradlint.probe.isolation import ParamEdit, copy_inputs, edit, measured, pick_device, undisturbed
from gradlint.probe.ledger import log10
from gradlint.probe.loss import Value
from gradlint.probe.measurement import Described, fitted
from gradlint.probe.run import Plan, again, shape_lazy, target_of
from gradlint.profile import Trace

# What is usual: torch's default for Adam; for SGD a tenth of what residual nets with norms start from.
RATES: Mapping[str, float] = {"sgd": 0.01, "adam": 1e-3}
OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params, rate: torch.optim.SGD(params, rate, momentum=0.9),
    "adam": lambda params, rate: torch.optim.Adam(params, rate),
}


@dataclass(frozen=True)
class Training:
    """How a short run is trained. `rate` None is a usual one; `seconds` bounds the wall clock."""

    steps: int
    optimizer: str = "adam"
    rate: float | None = None
    seed: int = 0
    device: str = "auto"
    loss: str | None = None  # told; else the model's own, the file's, or one that fits the output
    seconds: float = math.inf
    memory: int | None = None  # bytes to stay within: each batch is taken in the parts that the graph was recorded in


def train(
    loaded: Described,
    graph: Graph,
    training: Training,
    *,
    interventions: Sequence[Intervention] = (),
    edits: Sequence[ParamEdit] = (),
    added: Callable[[], Sequence[nn.Parameter]] = tuple,
) -> Trace:
    """Train a copy of the model for a few steps, and follow the loss and the gradient of every weight.

    With data of the user's own (`LoadedModel.batches`) one batch after another is taken, else one drawn batch again and
    again, which a net that can train learns by heart. `interventions` and `edits` are those of `measure`, and `added`
    gives the parameters that interventions made in the first pass, which are trained with the model's. The run stops
    early at a loss that is not finite, or when the time is spent. The model and every random state are left as they
    were. Raises UsageError for an optimizer that is not known, ForwardError when the model raises, and ProbeError when
    there is nothing to differentiate.
    """
    if training.optimizer not in OPTIMIZERS:
        raise UsageError(f"unknown optimizer {training.optimizer!r}", f"one of {', '.join(OPTIMIZERS)}")
    device = pick_device(training.device)
    plan = Plan(
        device,
        loss=training.loss or loaded.loss,
        hint=loaded.loss_hint,
        seed=training.seed,
        graph=graph,
        interventions=tuple(interventions),
        entry=getattr(loaded, "entry", "forward"),
    )
    plan, _ = fitted(loaded, plan, training.memory)
    with undisturbed(training.seed, device), measured(loaded.model, device, None, changed=True) as model:
        if is_lazy(model):
            shape_lazy(model, loaded, plan)
        names = Names(model)
        edit(names, edits)
        torch.manual_seed(training.seed)
        return _Run(loaded, graph, model, names, plan, added).follow(training)


@dataclass
class _Run:
    loaded: Described
    graph: Graph
    model: nn.Module
    names: Names
    plan: Plan
    added: Callable[[], Sequence[nn.Parameter]]

    def follow(self, training: Training) -> Trace:
        started = time.monotonic()
        rate = RATES[training.optimizer] if training.rate is None else training.rate
        update = OPTIMIZERS[training.optimizer](self.model.parameters(), rate)
        weights = {path: param for path, param in self.names.params.items() if param.ndim > 1 and param.requires_grad}
        found: list[float] = []
        sizes: dict[str, list[float]] = {path: [] for path in weights}
        stopped, name, agreed = "", "", None
        for step in range(training.steps):
            batch = self._batch(step)
            if step == 0:
                agreed = agreement(self.model, batch, self._backward)
            self._join(update)
            update.zero_grad()
            value = self._backward(*batch)
            self._join(update)
            found.append(float(value.total.detach()))
            name = value.name
            for path, size in _sizes(weights):
                sizes[path].append(size)
            stopped = self._stopped(found, step, training, time.monotonic() - started)
            if stopped:
                break
            update.step()
        return Trace(
            optimizer=training.optimizer,
            rate=rate,
            data="made up" if getattr(self.loaded, "batches", None) is None else "given",
            loss=name,
            losses=tuple(found),
            gradients={path: tuple(each) for path, each in sizes.items()},
            stopped=stopped,
            agreement=agreed,
            seconds=time.monotonic() - started,
        )

    def _join(self, update: torch.optim.Optimizer) -> None:
        """Train what interventions added in the first pass, too."""
        known = {id(param) for group in update.param_groups for param in group["params"]}
        if fresh := [param for param in self.added() if id(param) not in known]:
            update.add_param_group({"params": fresh})

    def _stopped(self, found: list[float], step: int, training: Training, spent: float) -> str:
        if not math.isfinite(found[-1]):
            return f"the loss is not finite at step {step}"
        if spent > training.seconds and step + 1 < training.steps:
            return f"{training.seconds:.0f} s were spent after {step + 1} of {training.steps} steps"
        return ""

    def _batch(self, step: int) -> tuple[Any, Any, Any]:
        """Arguments and targets of a step, copied, as a model may change them in place."""
        batches = getattr(self.loaded, "batches", None)
        given = self.loaded if batches is None else batches(step)
        parts = (given.args, given.kwargs, target_of(given))
        args, kwargs, target = (copy_inputs(part, self.plan.device, None) for part in parts)
        return args, kwargs, target

    def _backward(self, args: Any, kwargs: Any, target: Any) -> Value:
        """One pass, in the parts of the plan; the gradients are added to those that are there."""
        whole = (args, kwargs, target)
        parts = (split(whole, most=self.plan.parts, least=1) if self.plan.parts > 1 else []) or [whole]
        share = 1.0 if "unit" in (self.plan.loss, self.plan.hint) else 1.0 / len(parts)
        values = [self._part(part, share) for part in parts]
        return replace(values[0], total=sum((value.total.detach() for value in values[1:]), values[0].total) * share)

    def _part(self, part: Batch, share: float) -> Value:
        plan = self.plan if share == 1.0 else replace(self.plan, loss_scale=share)
        with spilled(active=plan.spill):
            value = again(self.model, *part, self.graph, plan)
        if value is None:
            raise ProbeError("no output requires a gradient")
        return value


def _sizes(weights: Mapping[str, Tensor]) -> Iterator[tuple[str, float]]:
    """log10 RMS of the gradient of each weight; -inf without one."""
    present = {path: weight.grad.detach() for path, weight in weights.items() if weight.grad is not None}
    dense = {path: grad.to_dense() if grad.layout is not torch.strided else grad for path, grad in present.items()}
    known = {path: norm(grad) for path, grad in dense.items()}
    for path, weight in weights.items():
        yield path, log10(known.get(path, 0.0)) - 0.5 * math.log10(max(1, weight.numel()))
