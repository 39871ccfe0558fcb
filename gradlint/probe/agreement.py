"""Whether the samples of a batch pull the weights the same way: the cosine between gradients of its parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.capture.sharded import norm
from gradlint.error import GradlintError

PARTS = 4
LEAST = 2  # samples a part: norms over the batch need more than one

Batch = tuple[Any, Any, Any]


def agreement(model: nn.Module, batch: Batch, backward: Callable[..., object]) -> float | None:
    """The mean cosine between the gradients of micro-batches, each pair weighted by its lengths.

    With g₁ … g_k it is (‖Σg‖² − Σ‖g‖²) / ((Σ‖g‖)² − Σ‖g‖²), which needs the sum of the gradients only; 1 where the
    samples agree, 0 where they are unrelated (Sankararaman et al. 2020, gradient confusion, takes the least of them).
    `backward(args, kwargs, target)` adds the gradients of one part. Leaves no gradients, and the buffers as they were;
    None where the batch cannot be split, or a part cannot be run.
    """
    parts = split(batch)
    if len(parts) < 2:
        return None
    buffers = [buffer.detach().clone() for buffer in model.buffers()]
    model.zero_grad(set_to_none=True)
    lengths, before = list[float](), list[Tensor]()
    try:
        for part in parts:
            backward(*part)
            now = _gradients(model)
            lengths.append(_length([g - b for g, b in zip(now, before, strict=True)] if before else now))
            before = [g.clone() for g in now]
    except (GradlintError, ValueError):  # a part is not a batch to this model, or takes another way through it
        return None
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, kept in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(kept)
    squares = sum(length**2 for length in lengths)
    pairs = sum(lengths) ** 2 - squares
    return (_length(before) ** 2 - squares) / pairs if pairs > 0 else None


def split(batch: Batch, *, most: int = PARTS, least: int = LEAST) -> list[Batch]:
    """At most so many micro-batches of so many samples: every tensor as long as the first is cut along its first axis.

    None when there are not enough samples for two.
    """
    size = next((tensor.shape[0] for tensor in _tensors(batch) if tensor.ndim), 0)
    count = min(most, size // least)
    if count < 2:
        return []
    bounds = [size * i // count for i in range(count + 1)]
    cuts = [slice(a, b) for a, b in pairwise(bounds)]
    return [tuple(_cut(part, size, cut) for part in batch) for cut in cuts]


def _cut(value: Any, size: int, cut: slice) -> Any:
    if isinstance(value, Tensor):
        return value[cut] if value.ndim and value.shape[0] == size else value
    if type(value) in (list, tuple):
        return type(value)(_cut(item, size, cut) for item in value)
    if type(value) is dict:
        return {key: _cut(item, size, cut) for key, item in value.items()}
    return value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if type(value) is dict else value if type(value) in (list, tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def _gradients(model: nn.Module) -> list[Tensor]:
    return [_dense(torch.zeros_like(param) if param.grad is None else param.grad) for param in model.parameters()]


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout is torch.strided else gradient.to_dense()


def _length(tensors: list[Tensor]) -> float:
    return math.hypot(*map(norm, tensors))
