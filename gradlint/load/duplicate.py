"""A copy of a model together with the functions that it holds: `self.mlp = lambda x: body.down(body.up(x))`.

`copy.deepcopy` takes functions as they are, so that a copy would go on running modules of the original through them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import partial
from types import CellType, FunctionType
from typing import Any

import torch
from torch import nn

_REGISTERED = frozenset({"_parameters", "_buffers", "_modules"})  # what `deepcopy` finds by itself
_CONTAINERS = (list, tuple, set, frozenset)
_DEPTH = 4  # containers within containers that are looked into


def duplicate(model: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """A deep copy of the model whose functions close over the copy's parts; `memo` is as for `copy.deepcopy`.

    Raises what `copy.deepcopy` raises.
    """
    functions = list(_functions(model))
    cells: dict[int, CellType] = {}
    for function in functions:
        closure = tuple(cells.setdefault(id(cell), CellType()) for cell in function.__closure__ or ())
        hollow = FunctionType(function.__code__, function.__globals__, function.__name__, None, closure)
        hollow.__dict__.update(function.__dict__)
        memo[id(function)] = hollow
    copied = copy.deepcopy(model, memo)
    for function in functions:
        hollow = memo[id(function)]
        hollow.__defaults__ = _copies(function.__defaults__, memo)
        hollow.__kwdefaults__ = _copies(function.__kwdefaults__, memo)
        for cell in function.__closure__ or ():
            for content in _contents(cell):
                cells[id(cell)].cell_contents = _copies(content, memo)
    return copied


def computed(model: nn.Module) -> Iterator[torch.Tensor]:
    """Tensors that modules hold and that autograd made, which `copy.deepcopy` refuses; `detached` copies them.

    They are from an earlier call (old weight norm's last result), or from a constructor:
    `self.pos = nn.Parameter(x) * 0.02`, which a forward pass reads and no optimiser moves.
    """
    for module in model.modules():
        for held in (*vars(module).values(), *module.buffers(recurse=False)):
            if isinstance(held, torch.Tensor) and not held.is_leaf:
                yield held


def detached(tensor: torch.Tensor) -> torch.Tensor:
    """A leaf with the numbers of a computed tensor; it wants a gradient where that did."""
    return tensor.detach().clone().requires_grad_(tensor.requires_grad)


def _functions(model: nn.Module) -> Iterator[FunctionType]:
    """Every function with a closure or defaults that modules hold, and those that these close over."""
    seen: set[int] = set()
    held = ((value, 0) for module in model.modules() for key, value in vars(module).items() if key not in _REGISTERED)
    waiting = list(held)
    while waiting:
        value, depth = waiting.pop()
        inside = list(_inside(value))
        if not inside or depth > _DEPTH or id(value) in seen:
            continue
        seen.add(id(value))
        waiting += [(item, 0 if isinstance(value, FunctionType) else depth + 1) for item in inside]
        if isinstance(value, FunctionType):
            yield value


def _inside(value: object) -> Iterable[object]:
    if isinstance(value, FunctionType):
        defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
        return (*defaults, *(content for cell in value.__closure__ or () for content in _contents(cell)))
    if isinstance(value, partial):
        return (value.func, *value.args, *value.keywords.values())
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, _CONTAINERS) else ()


def _contents(cell: CellType) -> Iterator[object]:
    try:
        yield cell.cell_contents
    except ValueError:  # a variable that was not assigned yet, or no more
        return


def _copies(value: Any, memo: dict[int, Any]) -> Any:
    """The copy of a part of the model, or of what may hold some; anything else is shared, as a function would."""
    if isinstance(value, torch.Tensor) and not value.is_leaf and id(value) not in memo:
        return detached(value)
    parts = (nn.Module, torch.Tensor, FunctionType, partial, dict, *_CONTAINERS)
    return copy.deepcopy(value, memo) if isinstance(value, parts) else value
