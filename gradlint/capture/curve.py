"""A user's own autograd.Function that works entry by entry, sampled: its values and the derivative that it claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

POINTS = np.sinh(np.linspace(-8.0, 8.0, 257))  # dense around zero, out to ±1490

FEWEST = 32  # points, side by side, at which the function must be defined
NAMES = ("at", "values", "slopes")


def sampled(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], output: object
) -> dict[str, list[float]] | None:
    """The function at fixed points, as {"at", "values", "slopes"}; None for one that is not of single entries.

    It must have one tensor argument and give one tensor of its shape, and give the same for every entry when the
    entries stand in another order.
    """
    given = [place for place, arg in enumerate(args) if isinstance(arg, torch.Tensor)]
    if len(given) != 1 or any(isinstance(arg, torch.Tensor) for arg in kwargs.values()):
        return None
    tensor = args[given[0]]
    if not isinstance(output, torch.Tensor) or output.shape != tensor.shape or not tensor.is_floating_point():
        return None
    if tensor.is_meta or tensor.numel() < 2:
        return None
    try:
        return _sampled(lambda x: function(*args[: given[0]], x, *args[given[0] + 1 :], **kwargs), tensor)
    except Exception:  # noqa: BLE001 whatever a user's code raises on other numbers, it is then not sampled
        return None


def _sampled(function: Callable[[torch.Tensor], torch.Tensor], like: torch.Tensor) -> dict[str, list[float]] | None:
    order = torch.randperm(len(POINTS), generator=torch.Generator().manual_seed(0))
    at = torch.as_tensor(POINTS).to(dtype=like.dtype, device=like.device)
    own = [] if like.is_cpu else [like.device]
    with torch.random.fork_rng(own, device_type=like.device.type if own else "cuda"), torch.enable_grad():
        first, second = at.clone().requires_grad_(), at[order].clone().requires_grad_()
        values, turned = function(first), function(second)
        if values.shape != at.shape or not values.requires_grad:
            return None
        (slopes,) = torch.autograd.grad(values.sum(), first)
    same = torch.allclose(values[order], turned, equal_nan=True)
    found = [entries.detach().double().cpu().numpy() for entries in (values, slopes)]
    defined = np.isfinite(found[0]) & np.isfinite(found[1])
    if not same or defined.sum() < FEWEST or not defined[defined.argmax() :][: defined.sum()].all():
        return None
    return {name: entries[defined].tolist() for name, entries in zip(NAMES, (POINTS, *found), strict=True)}
