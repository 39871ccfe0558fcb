"""Steps of a candidate as interventions on a recorded run and edits of the copied model's parameters."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlint.capture.calls import signature
from gradlint.capture.recorder import Intervention
from gradlint.error import ProbeError
from gradlint.fix.candidate import (
    Bypass,
    Fuse,
    Guard,
    Initialise,
    Normalise,
    Prenormalise,
    Rescale,
    Score,
    Skip,
    Soften,
    Step,
    Stress,
    Swap,
    Witness,
)
from gradlint.fix.initialisation import initialise
from gradlint.fix.replay import Function, Store, data_of, with_tensor
from gradlint.fix.rewiring import bypass, normalise, prenormalise, skip
from gradlint.graph.ir import Graph, Op
from gradlint.probe import ParamEdit

Call = Callable[[Function, tuple[Any, ...], Mapping[str, Any]], Any]
Transform = Callable[[Tensor], Tensor]

LSUV_ROUNDS = 3  # the weight's share of the output's variance is all of it but the bias: three rounds reach 2 %
LSUV_TOLERANCE = 0.02

STRESS = 1e3  # how much larger "large" makes an argument: every bounded activation is then at its bounds
MANY = 4096  # entries of a unit that are compared with those of others
SIMILAR = 1e-4  # of the units' RMS: rounding makes copies of a unit differ by less


ACTIVATIONS: Mapping[str, Transform] = {
    "identity": torch.clone,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "selu": F.selu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "log_softmax": lambda x: F.log_softmax(x, 1 if x.ndim > 1 else -1),  # torch's losses have the classes there
}
RECURRENT: Mapping[str, Function] = {"rnn_relu": torch.rnn_relu, "rnn_relu_cell": torch.rnn_relu_cell}


@dataclass(frozen=True)
class Applied:
    """What carries steps out on one run, and what their witnesses noted in it: the smallest number of each kind.

    `scales` has what weights were multiplied with in it, by their paths. `learned` gives the parameters that the steps
    added, once a run has made them.
    """

    interventions: tuple[Intervention, ...]
    edits: tuple[ParamEdit, ...]
    notes: dict[str, float] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    learned: Callable[[], tuple[torch.nn.Parameter, ...]] = tuple


def apply(graph: Graph, steps: Iterable[Step], seed: int, *, lasting: bool = False) -> Applied:
    """Replacements by recorded call, and draws of parameters with this seed.

    The result keeps the tensors of skips while it runs, so it serves one run at a time: each a pass of its own or, if
    `lasting`, the steps of one training.
    """
    ordered = tuple(steps)
    edits = tuple(_edit(step, seed) for step in ordered if isinstance(step, Initialise))
    store = Store(lasting)
    calls: dict[int, list[Step]] = defaultdict(list)
    for step in ordered:
        for index in _indices(step):
            calls[index].append(step)
    changes = (Intervention(i, replace=_call(graph.ops[i], found, store)) for i, found in sorted(calls.items()))
    return Applied(tuple(changes), edits, store.notes, store.scales, lambda: tuple(store.learned.values()))


def _indices(step: Step) -> tuple[int, ...]:
    if isinstance(step, (Initialise, Score)):
        return ()
    if isinstance(step, Prenormalise):
        return step.ops
    if isinstance(step, Bypass):
        return step.norm, step.op
    return tuple({step.start, step.end}) if isinstance(step, (Skip, Fuse, Soften)) else (step.op,)


def _edit(step: Initialise, seed: int) -> ParamEdit:
    return ParamEdit(step.param, partial(initialise, step=step, seed=seed))


def _call(op: Op, steps: Iterable[Step], store: Store) -> Call:
    """One function in place of the recorded call, with every step at it wrapped around the last."""
    ordered = sorted(steps, key=lambda step: ORDER[type(step)])

    def replaced(func: Function, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if op.kind != "custom" and signature(func).name != op.name:
            raise ProbeError(f"with the change the model takes another way at call {op.index}")
        call = func
        for step in ordered:
            call = WRAPPERS[type(step)](step, call, op, store)
        return call(*args, **kwargs)

    return replaced


def _swap(step: Any, call: Function, op: Op, store: Store) -> Function:
    if step.function in RECURRENT:
        return RECURRENT[step.function]

    def swapped(*args: Any, **kwargs: Any) -> Tensor:
        if op.kind == "softmax" and step.function == "log_softmax":
            return F.log_softmax(data_of(args, kwargs)[1], cast(int, op.attrs.get("dim", 1)))
        return ACTIVATIONS[step.function](data_of(args, kwargs)[1])

    return swapped


def _guard(step: Any, call: Function, op: Op, store: Store) -> Function:
    return _with_argument(call, op, lambda x: SAFE.get(op.function, _at_least)(x, step.bound))


def _stress(step: Any, call: Function, op: Op, store: Store) -> Function:
    return _with_argument(call, op, STRESSES[step.kind])


def _fuse(step: Any, call: Function, op: Op, store: Store) -> Function:
    """At the first op its input is kept, and at the last one the function of it takes the place of the result."""

    def fused(*args: Any, **kwargs: Any) -> Any:
        if op.index != step.end:
            store.fused[step.start] = data_of(args, kwargs)[1].clone()
            return call(*args, **kwargs)
        return FUSED[step.function](store.fused[step.start], step).reshape(call(*args, **kwargs).shape)

    return fused


def _soften(step: Any, call: Function, op: Op, store: Store) -> Function:
    """At the argmax its scores are kept, and the lookup mixes the rows of its table by their softmax."""

    def softened(*args: Any, **kwargs: Any) -> Any:
        if op.index == step.start:
            store.fused[step.start] = data_of(args, kwargs)[1]
            return call(*args, **kwargs)
        return torch.softmax(store.fused[step.start], -1) @ (kwargs["weight"] if "weight" in kwargs else args[1])

    return softened


def _witness(step: Any, call: Function, op: Op, store: Store) -> Function:
    def noted(*args: Any, **kwargs: Any) -> Any:
        result = call(*args, **kwargs)
        with torch.no_grad():
            number = WITNESSES[step.kind](result.detach(), op)
        store.notes[step.kind] = min(number, store.notes.get(step.kind, number))
        return result

    return noted


def _with_argument(call: Function, op: Op, change: Transform) -> Function:
    """The call with the argument that its singularity is about changed: the denominator, or else the data."""

    def changed(*args: Any, **kwargs: Any) -> Any:
        place = 1 if op.function == "div" and len(args) > 1 else data_of(args, kwargs)[0]
        tensor = args[place] if isinstance(place, int) else kwargs[place]
        if isinstance(tensor, Tensor):
            args, kwargs = with_tensor(args, kwargs, place, change(tensor))
        return call(*args, **kwargs)

    return changed


def _rescale(step: Any, call: Function, op: Op, store: Store) -> Function:
    def rescaled(*args: Any, **kwargs: Any) -> Any:
        if store.lasting and op.index in store.rescaled:
            return call(*args, **kwargs)
        store.rescaled.add(op.index)
        store.scales.setdefault(step.param, 1.0)
        weight = next(t for t in (*args, *kwargs.values()) if isinstance(t, torch.nn.Parameter) and t.dim() > 1)
        with torch.no_grad():
            for _ in range(LSUV_ROUNDS):
                std = float(call(*args, **kwargs).double().std())
                if not (0.0 < std < float("inf")) or abs(std - 1.0) < LSUV_TOLERANCE:
                    break
                weight.data.div_(std)
                store.scales[step.param] /= std
        return call(*args, **kwargs)

    return rescaled


def _at_least(x: Tensor, eps: float) -> Tensor:
    return x.clamp_min(eps)


def _off_zero(x: Tensor, eps: float) -> Tensor:
    """Entries nearer zero than eps moved to ±eps, keeping their sign."""
    return torch.where(x.abs() < eps, torch.full_like(x, eps).copysign(x), x)


def _inside_one(x: Tensor, eps: float) -> Tensor:
    return x.clamp(-1.0 + eps, 1.0 - eps)


def _at_most(x: Tensor, bound: float) -> Tensor:
    return x.clamp_max(bound)


def _first_zero(x: Tensor) -> Tensor:
    """The first sample's entries 0, as units that are off would make them."""
    mask = torch.ones_like(x)
    mask[:1] = 0.0
    return x * mask


def _larger(x: Tensor) -> Tensor:
    return x * STRESS


def _extreme(x: Tensor) -> Tensor:
    """The first sample's entries ±1000, by their sign."""
    signs = torch.where(x[:1] < 0, -STRESS, STRESS).to(x.dtype)
    return torch.cat([signs + 0.0 * x[:1], x[1:]])


def _distinct(x: Tensor, op: Op) -> float:
    """The share of units (channels of a convolution, features else) that are not copies of another one."""
    units = _units(x, op)
    scale = float(units.square().mean().sqrt()) or 1.0
    return float(torch.unique((units / (scale * SIMILAR)).round(), dim=0).shape[0]) / units.shape[0]


def _variety(x: Tensor, op: Op) -> float:
    """1 - the mean |correlation| between units over samples and positions: 0 when all say the same."""
    units = _units(x, op)
    units = units - units.mean(1, keepdim=True)
    units = units / units.square().sum(1, keepdim=True).sqrt().clamp_min(1e-30)
    count = units.shape[0]
    return 1.0 - float(((units @ units.T).abs().sum() - count) / max(1, count * (count - 1)))


def _units(x: Tensor, op: Op) -> Tensor:
    """(units, entries) in float64: the channels of a convolution, the features of anything else; the first MANY."""
    rows = x.transpose(0, 1) if op.kind == "conv" else x.movedim(-1, 0)
    return rows.flatten(1)[:, :MANY].double()


def _width(x: Tensor, op: Op) -> float:
    """Largest entry less smallest."""
    return float(x.max() - x.min())


SAFE: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "div": _off_zero,
    "reciprocal": _off_zero,
    "acos": _inside_one,
    "asin": _inside_one,
    "exp": _at_most,
    "expm1": _at_most,
}
FUSED: Mapping[str, Callable[[Tensor, Fuse], Tensor]] = {
    "log_softmax": lambda z, step: F.log_softmax(z, step.dims[0]),
    "logsigmoid": lambda z, step: F.logsigmoid(z),
    "negative_logsigmoid": lambda z, step: F.logsigmoid(-z),
    "logsumexp": lambda z, step: torch.logsumexp(z, step.dims, step.keepdim),
    "softmax": lambda z, step: F.softmax(z, step.dims[0]),
}
STRESSES: Mapping[str, Transform] = {
    "zero": _first_zero,
    "large": _larger,
    "high": lambda x: _larger(x.abs()),  # nothing but an overflow: what is far below 0 becomes 0 in an exponential
    "extreme": _extreme,
}
WITNESSES: Mapping[str, Callable[[Tensor, Op], float]] = {"distinct": _distinct, "variety": _variety, "width": _width}
# The order in which steps at one op wrap the call: from the function itself outwards.
WRAPPERS: Mapping[type, Callable[[Any, Function, Op, Store], Function]] = {
    Swap: _swap,
    Fuse: _fuse,
    Soften: _soften,
    Guard: _guard,
    Rescale: _rescale,
    Stress: _stress,
    Prenormalise: prenormalise,
    Bypass: bypass,
    Normalise: normalise,
    Witness: _witness,
    Skip: skip,
}
ORDER: Mapping[type, int] = {kind: position for position, kind in enumerate(WRAPPERS)}
