"""Operands in narrow formats with sums in single precision, as the matrix units of accelerators compute them."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gradlint.capture import Intervention
from gradlint.graph.ir import Graph

# What is computed by matrix units. Norms, softmax, losses and attention kernels stay as they are.
PRODUCTS = frozenset({"linear", "conv", "matmul"})
Note = Callable[[Tensor, Tensor], None]


def sixteen(graph: Graph, dtype: torch.dtype) -> tuple[Intervention, ...]:
    """Interventions that compute each product from operands in this 16-bit format, and keep its result in it.

    It stands in for kernels that a CPU lacks: float16 convolutions run there, but a hundred times slower.
    """
    return tuple(Intervention(index, replace=partial(_sixteen, dtype)) for index, _ in _products(graph))


def eight(graph: Graph, lost: MutableMapping[int, float]) -> tuple[Intervention, ...]:
    """Interventions that round the operands of each product to e4m3 and the gradient of its result to e5m2.

    Every tensor is scaled by its largest entry, as torchao's float8 training does. `lost` takes, by value id of the
    result, the share of the entries of its gradient that rounding makes zero.
    """
    return tuple(Intervention(index, replace=partial(_eight, _note(lost, value))) for index, value in _products(graph))


def rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor as it comes back from this format, scaled so that its largest entry is the format's largest."""
    largest = tensor.abs().amax()
    if not (largest > 0 and largest.isfinite()):
        return tensor
    scale = torch.finfo(dtype).max / largest.double()
    return (tensor * scale).float().to(dtype).double().div(scale).to(tensor.dtype)


def _products(graph: Graph) -> list[tuple[int, int]]:
    return [(op.index, op.outputs[0]) for op in graph.ops if op.kind in PRODUCTS and op.outputs]


def _sixteen(dtype: torch.dtype, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def narrow(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype not in (torch.float32, dtype):
            return value
        return value.to(dtype).float()

    with torch.autocast("cpu", enabled=False):
        output = func(*map(narrow, args), **{key: narrow(value) for key, value in kwargs.items()})
        return output.to(dtype) if isinstance(output, Tensor) and output.dtype is torch.float32 else output


def _note(lost: MutableMapping[int, float], value: int) -> Note:
    def note(gradient: Tensor, kept: Tensor) -> None:
        alive = int(torch.count_nonzero(gradient))
        lost[value] = 1.0 - int(torch.count_nonzero(kept)) / alive if alive else 0.0

    return note


def _eight(note: Note, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    output = func(*map(_operand, args), **{key: _operand(value) for key, value in kwargs.items()})
    if not isinstance(output, Tensor) or not output.requires_grad:
        return output
    return _Backward.apply(output, note)  # type: ignore[no-untyped-call]


def _operand(value: Any) -> Any:
    matrix = isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 1 and value.numel() > 0
    return _Forward.apply(value) if matrix else value  # type: ignore[no-untyped-call]


class _Forward(torch.autograd.Function):
    """Rounds to e4m3; the gradient passes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return rounded(tensor, torch.float8_e4m3fn)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class _Backward(torch.autograd.Function):
    """Passes; rounds the gradient to e5m2."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, note: Note) -> Tensor:
        ctx.note = note
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        kept = rounded(gradient, torch.float8_e5m2)
        ctx.note(gradient, kept)
        return kept, None
