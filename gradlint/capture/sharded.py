"""Models whose parameters FSDP2 (`fully_shard`) spreads over processes: what they are called, and their numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def is_sharded(model: nn.Module) -> bool:
    """Whether `fully_shard` was applied to the model or a part of it."""
    return "torch.distributed.fsdp" in sys.modules and any(True for _ in _groups(model))


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


def _groups(model: nn.Module) -> Iterator[Any]:
    from torch.distributed.fsdp import FSDPModule

    return (module for module in model.modules() if isinstance(module, FSDPModule))
