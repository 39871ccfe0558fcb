"""What norms and skips compute that a candidate adds to a recorded run, or moves in it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradlint.fix.candidate import Normalise, Skip
from gradlint.fix.replay import Function, Store, data_of, where_read
from gradlint.graph.ir import Op


def normalise(step: Any, call: Function, op: Op, store: Store) -> Function:
    """The norm takes what the op makes; in a training it learns a gain and a shift."""

    """The norm takes what the op makes; in a training it learns a gain and a shift."""

    def normalised(*args: Any, **kwargs: Any) -> Tensor:
        found = NORMS[step.function](call(*args, **kwargs), step)
        return _affine(found, step.function, step.op, store) if store.lasting else found

    return normalised


def _affine(x: Tensor, function: str, place: int, store: Store) -> Tensor:
    """The gain and shift that torch's norm has; RMSNorm has no shift."""
    channels = function in ("batch_norm", "group_norm")
    shape = [x.shape[1] if channels else x.shape[-1], *[1] * (x.ndim - 2 if channels else 0)]
    scaled = x * store.parameter(place, "gain", x.new_ones(shape))
    return scaled if function == "rms_norm" else scaled + store.parameter(place, "shift", x.new_zeros(shape))


def prenormalise(step: Any, call: Function, op: Op, store: Store) -> Function:
    """What the branch's ops read is normalised; they share the norm that they learn, by the first of them."""

    def normed(x: Tensor) -> Tensor:
        found = NORMS[step.function](x, Normalise(op.index, step.function))
        return _affine(found, step.function, -1 - step.ops[0], store) if store.lasting else found

    def read(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = where_read(op, step.source, args, kwargs, normed)
        return call(*args, **kwargs)

    return read


def bypass(step: Any, call: Function, op: Op, store: Store) -> Function:
    """At the norm its input is kept, which the addition then takes for the norm's output."""

    def passed(*args: Any, **kwargs: Any) -> Any:
        if op.index == step.norm:
            store.bypassing[step.op] = data_of(args, kwargs)[1].clone()
        else:
            kept = store.bypassing.pop(step.op)
            args, kwargs = where_read(op, step.source, args, kwargs, lambda _: kept)
        return call(*args, **kwargs)

    return passed


def skip(step: Any, call: Function, op: Op, store: Store) -> Function:
    """At the block's start the input is kept; at its end (which may be the same op) it is added."""

    def kept(*args: Any, **kwargs: Any) -> Any:
        if op.index == step.start:
            store.inputs[step.source] = data_of(args, kwargs)[
                1
            ].clone()  # an in-place op may change the original before it is added
        result = call(*args, **kwargs)
        if op.index != step.end:
            return result
        source = store.inputs.pop(step.source)
        if not step.stride:
            return result + source
        return result + project(source, store.parameter(op.index, "projection", projection(source, result, step)), step)

    return kept


def projection(x: Tensor, like: Tensor, step: Skip) -> Tensor:
    """The weight from the one tensor's features or channels to the other's, as torch draws it: U(±1/√fan_in)."""
    axis = 1 if step.channels else -1
    generator = torch.Generator().manual_seed(step.source)
    drawn = torch.rand(like.shape[axis], x.shape[axis], generator=generator)
    return ((2.0 * drawn - 1.0) / math.sqrt(x.shape[axis])).to(x)


def project(x: Tensor, weight: Tensor, step: Skip) -> Tensor:
    """The tensor through a projection, in steps of the skip's stride between convolutions."""
    if not step.channels:
        return F.linear(x, weight)
    places: list[Any] = [slice(None, None, step.stride)] * (x.ndim - 2)
    return torch.einsum("oc,nc...->no...", weight, x[(..., *places)])


def _batch_norm(x: Tensor, step: Normalise) -> Tensor:
    return F.batch_norm(x, None, None, training=True)


def _layer_norm(x: Tensor, step: Normalise) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _group_norm(x: Tensor, step: Normalise) -> Tensor:
    return F.group_norm(x, step.groups)


def _rms_norm(x: Tensor, step: Normalise) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


NORMS: Mapping[str, Callable[[Tensor, Normalise], Tensor]] = {
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
    "rms_norm": _rms_norm,
}
