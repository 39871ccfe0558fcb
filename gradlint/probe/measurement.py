"""Measure a model: one pass, and what it takes to tell a true zero from an underflow or a zero initialisation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor, nn

from gradlint.capture import Intervention
from gradlint.capture.copies import is_lazy
from gradlint.capture.sharded import is_sharded
from gradlint.capture.structure import arguments
from gradlint.error import GradlintError, ProbeError
from gradlint.graph.ir import Graph
from gradlint.probe.budget import FEW, fit, resident
from gradlint.probe.health import FAST, judge, relative
from gradlint.probe.isolation import ParamEdit, copy_inputs, copy_model, pick_device, undisturbed
from gradlint.probe.precision import compare
from gradlint.probe.route import widest
from gradlint.probe.run import Loaded, Plan, entry, forward_error, once, shape_lazy
from gradlint.probe.seeds import combine, decided
from gradlint.profile import Measurement, ParamMeasure

K = TypeVar("K", int, str)

DATA = 1000  # seeds of inputs are kept apart from those of weights
ROUNDS = 3  # zero-initialised heads behind zero-initialised branches open one after another
SMALL_SCALE = 0.1  # what a zero gain or layer scale is moved to: the branch is open but does not dominate


class Options(Protocol):
    """What is needed of `gradlint.config.Settings`."""

    @property
    def device(self) -> str:
        """The device's name, or "auto"."""

    @property
    def loss(self) -> str | None:
        """The name of a loss, or None for a guess."""

    @property
    def seeds(self) -> int:
        """How many seeds may be spent on a verdict near a limit."""

    @property
    def optimizer(self) -> str:
        """What the model will be trained with: "sgd", "adam" or "any"."""

    @property
    def memory(self) -> int | None:
        """Bytes that a pass may take."""

    @property
    def dtype(self) -> str | None:
        """Another number format to compare with: "bf16", "fp16", "fp8"."""


class Described(Loaded, Protocol):
    """A loaded model that knows of a loss."""

    loss: str | None
    loss_hint: str | None
    rebuild: Callable[[], nn.Module] | None

    @property
    def draw(self) -> Callable[[int], tuple[tuple[object, ...], dict[str, object]]]:
        """Other example inputs for a seed."""
        ...


@dataclass(frozen=True)
class Fallback:
    """Options for a direct call."""

    device: str = "auto"
    loss: str | None = None
    seeds: int = 1
    dtype: str | None = None
    optimizer: str = "any"
    memory: int | None = None


@dataclass
class Instance:
    """The model built once more, with other inputs."""

    model: nn.Module
    args: tuple[object, ...]
    kwargs: dict[str, object]
    target: object = None


def measure(
    loaded: Described,
    *,
    settings: Options | None = None,
    graph: Graph | None = None,
    interventions: tuple[Intervention, ...] = (),
    edits: tuple[ParamEdit, ...] = (),
    seed: int = 0,
    dtype: str | None = None,
    loss: str | None = None,
    explain_zeros: bool = True,
) -> tuple[Graph, Measurement]:
    """Run the model forward and backward once on a copy in train mode: its graph, and what was measured in it.

    With a `graph` the run is a replay of it, with interventions and edited parameters; without, the run is recorded.
    `dtype` ("float64" …) converts model and inputs; `loss` goes before `settings.loss`, the model's own loss, and the
    one that the user's file applies. When exact zeros keep the gradient from every way through the model and
    `explain_zeros` holds, the pass is taken again in float64 (an underflow then shows its size) and with the
    zero-initialised parameters moved (`Measurement.unblocked`); gains that start tiny are moved likewise where the
    gradient is lost. A first measurement (without a graph, interventions or edits) is checked against a loss of unit
    scale where a guessed one makes the model ill, repeated with further seeds, at most `settings.seeds`, while its
    verdict is near a limit, and compared with the number format `settings.dtype` where one is asked for.

    Raises ForwardError when the model raises, ProbeError when it cannot be copied, scored or differentiated, UsageError
    for a loss or device that does not exist.
    """
    options = settings or Fallback()
    plan = Plan(
        device=pick_device(options.device),
        dtype=None if dtype is None else getattr(torch, dtype),
        loss=loss or options.loss or loaded.loss,
        hint=loaded.loss_hint,
        seed=seed,
        graph=graph,
        interventions=tuple(interventions),
        edits=tuple(edits),
        entry=getattr(loaded, "entry", "forward"),
    )
    plan, remark = fitted(loaded, plan, options.memory)
    recorded, measured = once(loaded, plan)
    measured = replace(measured, notes=(*measured.notes, *remark))
    plan = replace(plan, graph=recorded)
    if explain_zeros:
        moved = _explain if blocked(recorded, measured) else _opened
        measured = moved(loaded, plan, recorded, measured)
    if graph is None and not plan.interventions and not plan.edits:
        plan, measured = _checked(loaded, plan, recorded, measured, options)
        measured = _repeated(loaded, plan, recorded, measured, options)
        if options.dtype is not None:
            measured = replace(measured, precision=compare(loaded, plan, options.dtype))
    return recorded, replace(measured, optimizer=options.optimizer)


def fitted(loaded: Described, plan: Plan, memory: int | None) -> tuple[Plan, tuple[str, ...]]:
    """The plan so that a pass stays within so many bytes, and a note on what that takes."""
    if memory is None or is_sharded(loaded.model):
        return plan, ()
    if plan.graph is not None:
        return _as_recorded(loaded, plan, plan.graph), ()
    with undisturbed(plan.seed, plan.device):
        model = copy_model(loaded.model, plan.device, plan.dtype)
        parts = (loaded.args, loaded.kwargs, getattr(loaded, "target", None))
        args, kwargs, target = (copy_inputs(part, plan.device, plan.dtype) for part in parts)
        run = entry(model, plan.entry) or model
        if is_lazy(model):
            shape_lazy(model, loaded, plan)
        try:
            found = fit(model, (args, kwargs, target), lambda a, k: run(*a, **k), memory, _held(plan.device))
        except Exception as error:
            raise forward_error(error) from error
    return replace(plan, parts=found.parts, spill=found.spill), (found.note,) if found.note else ()


def _as_recorded(loaded: Described, plan: Plan, graph: Graph) -> Plan:
    """A replay of a run that took its batch in parts takes the same ones, and spills for the smallest."""
    sizes = [tensor.shape[0] for _, tensor in arguments(loaded.args, loaded.kwargs) if tensor.ndim][:1]
    taken = [graph.values[value].shape[0] for value in graph.inputs if graph.values[value].shape][:1]
    if not sizes or not taken or taken[0] >= sizes[0]:
        return plan
    return replace(plan, parts=sizes[0] // max(1, taken[0]), spill=taken[0] <= FEW)


def _held(device: torch.device) -> int:
    """Bytes that are taken already: of the device, or of this process."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else resident()


def _checked(
    loaded: Described, plan: Plan, graph: Graph, measured: Measurement, options: Options
) -> tuple[Plan, Measurement]:
    """The plan and measurement to judge by: with a loss of unit scale, when only a guessed one makes the model ill.

    How large a gradient is depends on the loss as well as on the model. Where nobody said which loss it is, a fault
    that another one does not show is not the model's.
    """
    if not measured.guessed or judge(graph, measured, optimizer=options.optimizer).state not in ("warning", "error"):
        return plan, measured
    other = replace(plan, loss="unit")
    _, again = once(loaded, other)
    if blocked(graph, again):
        again = _explain(loaded, other, graph, again)
    if judge(graph, again, optimizer=options.optimizer).state != "healthy":
        return plan, measured
    note = f"with {measured.loss}, a guess, the gradient is out of range; with a loss of unit scale it is not"
    return other, replace(again, notes=(f"loss unit: {note}", *again.notes[1:]))


def _repeated(loaded: Described, plan: Plan, graph: Graph, measured: Measurement, options: Options) -> Measurement:
    """The measurement over as many seeds as it takes to tell on which side of the limits it lies."""
    told = options.optimizer
    found, healths = [measured], [judge(graph, measured, optimizer=told)]
    for seed in range(plan.seed + 1, plan.seed + options.seeds):
        if decided(healths, told):
            break
        try:
            _, another = once(_instance(loaded, seed, plan.device), replace(plan, seed=seed, redrawn=True))
        except GradlintError as error:  # a run that cannot be repeated is measured once
            return replace(combine(found), notes=(*measured.notes, f"seed {seed}: {error.message}"))
        found.append(another)
        healths.append(judge(graph, another, optimizer=told))
    return combine(found)


def _instance(loaded: Described, seed: int, device: torch.device) -> Instance:
    """The model with weights of this seed (its own where it cannot be built again) and inputs of another one."""
    with undisturbed(seed, device):
        try:
            model = loaded.rebuild() if loaded.rebuild is not None else loaded.model
            batches = getattr(loaded, "batches", None)
            if batches is not None:
                batch = batches(seed)
                return Instance(model, batch.args, batch.kwargs, batch.target)
            args, kwargs = loaded.draw(DATA + seed)
        except Exception as error:
            raise ProbeError(f"the model cannot be built again: {type(error).__name__}: {error}") from error
    return Instance(model, args, kwargs)


def blocked(graph: Graph, measured: Measurement) -> bool:
    """Whether exact zeros stand on every way from the inputs to the output."""
    route = widest(graph, relative(graph, measured))
    return route is not None and route.width == -math.inf


def _explain(loaded: Described, plan: Plan, graph: Graph, measured: Measurement) -> Measurement:
    """The measurement with underflows given their size, and with the zero-initialised parameters moved beside it."""
    if plan.dtype is None and plan.device.type != "mps":
        measured = _resolved(loaded, plan, graph, measured)
    if not blocked(graph, measured):
        return measured
    current, moved = measured, list[str]()
    for _ in range(ROUNDS):
        found = [path for path in movable(graph, current) if path not in moved]
        if not found:
            break
        moved += found
        edits = (*plan.edits, *(ParamEdit(path, _off_zero) for path in moved))
        _, current = once(loaded, replace(plan, edits=edits))
        if not blocked(graph, current):
            break
    return replace(measured, unblocked=current, moved=tuple(moved)) if moved else measured


def _opened(loaded: Described, plan: Plan, graph: Graph, measured: Measurement) -> Measurement:
    """The measurement with tiny gains opened beside it, where the gradient is lost and may be lost to them.

    A layer scale of 1e-5 (Touvron et al. 2021) starts a branch as good as closed, as a zero does, and leaves as soon:
    a token that only attention joins to the prediction gets its gradient through that gain alone.
    """
    dim = dimmed(graph, measured)
    if not dim or judge(graph, measured).kind != "vanishing":
        return measured
    edits = (*plan.edits, *(ParamEdit(path, lambda gain: gain.sign() * SMALL_SCALE) for path in dim))
    _, current = once(loaded, replace(plan, edits=edits))
    return replace(measured, unblocked=current, moved=tuple(dim))


def dimmed(graph: Graph, measured: Measurement) -> list[str]:
    """Gains far below SMALL_SCALE whose gradient is not small beside them, so that a few steps open their branch."""
    number = relative(graph, measured)
    paths = dict.fromkeys(path for op in graph.ops if op.kind == "mul" for path in op.params if path in measured.params)
    return [
        path
        for path in paths
        if -math.inf < measured.params[path].weight < math.log10(SMALL_SCALE) - 1
        and (speed := number(path)) is not None
        and speed >= FAST
    ]


def movable(graph: Graph, measured: Measurement) -> list[str]:
    """Weights and gains that are exactly zero but get a gradient: the first training step moves them."""
    biases = {
        graph.values[v].name for op in graph.ops for v, role in zip(op.inputs, op.roles, strict=True) if role == "bias"
    }
    return [
        path
        for path, param in measured.params.items()
        if param.weight == -math.inf and param.status == "ok" and path not in biases
    ]


def _off_zero(param: Tensor) -> Tensor:
    """What torch's default initialisation would have drawn (std 1/√(3 fan_in)); SMALL_SCALE for a gain."""
    if param.ndim < 2:
        return torch.full_like(param, SMALL_SCALE)
    fan_in = max(1, param[0].numel())
    return torch.randn(param.shape).to(param) / math.sqrt(3 * fan_in)


def _resolved(loaded: Described, plan: Plan, graph: Graph, measured: Measurement) -> Measurement:
    """Exact zeros that a float64 run does not share are underflows: they get their size from it."""
    try:
        _, exact = once(loaded, replace(plan, dtype=torch.float64))
    except GradlintError as error:
        return replace(measured, notes=(*measured.notes, f"no float64 run: {error.message}"))
    hidden = [
        path for path, param in measured.params.items() if param.status == "zero" and exact.params[path].status == "ok"
    ]
    if not hidden:
        return measured
    params = {path: _underflow(param, exact.params[path]) for path, param in measured.params.items()}
    profile = replace(
        measured.profile,
        gradient=_filled(measured.profile.gradient, exact.profile.gradient),
        params=_filled(measured.profile.params, exact.profile.params),
    )
    note = f"{len(hidden)} gradients underflow to zero in float32; their sizes are those of a float64 run"
    return replace(measured, params=params, profile=profile, notes=(*measured.notes, note))


def _underflow(param: ParamMeasure, exact: ParamMeasure) -> ParamMeasure:
    hidden = param.status == "zero" and exact.status == "ok"
    return replace(exact, status="underflow", zero_share=param.zero_share) if hidden else param


def _filled(sizes: Mapping[K, float], exact: Mapping[K, float]) -> dict[K, float]:
    return {key: exact.get(key, size) if size == -math.inf else size for key, size in sizes.items()}
