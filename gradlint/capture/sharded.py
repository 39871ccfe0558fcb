"""Models whose parameters FSDP2 (`fully_shard`) spreads over processes: what they are called, and their numbers.

Such a model cannot be copied, so it is lent itself, and given back as it was.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was applied to the model or a part of it."""
    return "torch.distributed.fsdp" in sys.modules and any(True for _ in _groups(model))


def class_of(module: nn.Module) -> type:
    """The module's class as it was written: FSDP2 makes one of its own for a module, `FSDPLinear` of `Linear`."""
    bases = type(module).__bases__
    return bases[1] if [base.__name__ for base in bases[:-1]] == ["FSDPModule"] else type(module)


@contextmanager
def lent(model: nn.Module, *, changed: bool = False) -> Iterator[nn.Module]:
    """The model itself, without gradients; modes, gradients and buffers are put back after the block.

    `changed` says that parameters are written to: each process keeps its part of them for so long.
    """
    for group in _groups(model):
        group.reshard()
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(param, param.grad) for param in model.parameters()]
    held = [*model.buffers(), *(map(_local, model.parameters()) if changed else ())]
    kept = [(tensor, tensor.detach().clone()) for tensor in held]
    for param, _ in gradients:
        param.grad = None
    try:
        yield model
    finally:
        for group in _groups(model):
            group.reshard()
        for module, training in modes:
            module.training = training
        for param, gradient in gradients:
            param.grad = gradient
        with torch.no_grad():
            for tensor, before in kept:
                tensor.copy_(before)


def rewrite(param: Any, function: Callable[[Tensor], Tensor | None]) -> None:
    """Give a spread parameter the numbers that a function makes of the whole of it, or fills it with."""
    from torch.distributed.tensor import distribute_tensor

    found = whole(param.detach())
    drawn = function(found)
    param.copy_(distribute_tensor(found if drawn is None else drawn, param.device_mesh, list(param.placements)))


def whole(tensor: Any) -> Tensor:
    """The tensor itself, or all of one that is spread over processes, gathered in each of them."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found


def norm(tensor: Tensor) -> float:
    """The norm of a tensor, over all processes where it is spread over them."""
    spread = sums(tensor)
    if spread is not None:
        return math.sqrt(spread[0])
    return float(torch.linalg.vector_norm(tensor, dtype=_wide(tensor)).abs())


def gathered_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters as the forward pass sees them, by path: one group after another is gathered and let go again."""
    for group in _groups(model) if is_sharded(model) else ():
        group.unshard()
        yield from model.named_parameters(remove_duplicate=False)
        group.reshard()


def sums(tensor: Any) -> tuple[float, int, int] | None:
    """Of a spread tensor over all processes: the sum of squares, the number of zeros and of entries; None for others.

    Each process counts its own part in float64, and one exchange adds them up; nothing is gathered.
    """
    if not hasattr(tensor, "to_local") or not hasattr(tensor, "device_mesh"):
        return None
    mine = tensor.to_local()
    numbers = torch.stack(
        [
            torch.linalg.vector_norm(mine, dtype=torch.float64) ** 2,
            (mine == 0).sum().double(),
            torch.tensor(float(mine.numel()), dtype=torch.float64, device=mine.device),
        ]
    )
    if any(placement.is_shard() for placement in tensor.placements):
        torch.distributed.all_reduce(numbers, group=tensor.device_mesh.get_group())
    square, zeros, count = numbers.tolist()
    return square, int(zeros), int(count)


def _local(tensor: Any) -> Tensor:
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def _wide(tensor: Tensor) -> torch.dtype:
    if tensor.is_complex():
        return torch.complex128
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _groups(model: nn.Module) -> Iterator[Any]:
    from torch.distributed.fsdp import FSDPModule

    return (module for module in model.modules() if isinstance(module, FSDPModule))
