"""Parameters that a model makes of memory as it is and never writes: known by a mark, then drawn as torch would."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

LEFT = (torch.empty, torch.empty_like, Tensor.new_empty)
"""What returns memory with whatever is in it."""


class Marking(TorchFunctionMode):
    """Inside, new memory holds NaN until it is written, so that what a model never writes is known afterwards."""

    def __torch_function__(
        self, func: object, types: object, args: tuple[object, ...] = (), kwargs: dict[str, object] | None = None
    ) -> object:
        assert callable(func)
        made = func(*args, **(kwargs or {}))
        if func in LEFT and isinstance(made, Tensor) and made.is_floating_point() and not made.is_meta:
            with torch.no_grad():
                made.fill_(math.nan)
        return made


def settled(model: nn.Module) -> tuple[str, ...]:
    """Draw the parameters that still hold the mark, and return their paths.

    A model that waits for a checkpoint leaves them so: they hold nothing, or worse, whatever is there. A matrix gets
    U(±1/√fan_in) as nn.Linear's does (kaiming_uniform with a = √5), a vector, which may be a bias or a gain, ones.
    """
    found = []
    for name, param in model.named_parameters():
        if is_lazy(param) or param.is_meta or not param.is_floating_point() or not param.numel():
            continue
        with torch.no_grad():
            if bool(param.isnan().all()):
                found.append(name)
                bound = 1 / math.sqrt(max(1, math.prod(param.shape[1:])))
                _ = param.uniform_(-bound, bound) if param.dim() > 1 else param.fill_(1)
    return tuple(found)
