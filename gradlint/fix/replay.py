"""What a replaced call gets hold of: its tensors, and what its run keeps for later calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradlint.graph.ir import Op

Function = Callable[..., Any]


@dataclass
class Store:
    """What a run keeps: inputs of blocks and norms until they are added, and the notes of witnesses.

    `lasting` says that the runs are steps of one training, which rescales a weight once: `rescaled` are those done. It
    trains what the steps add, too: `learned` has the gains and shifts of norms and the projections, by op and name.
    `scales` has what weights were multiplied with, by their paths.
    """

    lasting: bool = False
    rescaled: set[int] = field(default_factory=set)
    scales: dict[str, float] = field(default_factory=dict)
    inputs: dict[int, Tensor] = field(default_factory=dict)
    bypassing: dict[int, Tensor] = field(default_factory=dict)
    fused: dict[int, Tensor] = field(default_factory=dict)
    notes: dict[str, float] = field(default_factory=dict)
    learned: dict[tuple[int, str], torch.nn.Parameter] = field(default_factory=dict)

    def parameter(self, op: int, name: str, start: Tensor) -> Tensor:
        """What a step adds, as it is at the start or, in a training, as it was learned until now."""
        if not self.lasting:
            return start
        return self.learned.setdefault((op, name), torch.nn.Parameter(start.detach().clone()))


def data_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int | str, Tensor]:
    """The call's first floating tensor that is not a parameter (x @ W, but W.mm(x) too), and where it stands."""
    places: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    tensors = [(place, value) for place, value in places if isinstance(value, Tensor) and value.is_floating_point()]
    data = [(place, value) for place, value in tensors if not isinstance(value, torch.nn.Parameter)]
    return (data or tensors)[0]


def with_tensor(
    args: tuple[Any, ...], kwargs: dict[str, Any], place: int | str, value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with another tensor at a place that `data_of` gave."""
    if isinstance(place, int):
        return (*args[:place], value, *args[place + 1 :]), kwargs
    return args, {**kwargs, place: value}


def where_read(
    op: Op, value: int, args: tuple[Any, ...], kwargs: Mapping[str, Any], change: Callable[[Tensor], Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the tensors changed that are this value of the graph; their order is that of `Op.inputs`."""
    ids = iter(op.inputs)

    def walk(given: Any) -> Any:
        if isinstance(given, Tensor):
            return change(given) if next(ids, None) == value else given
        if isinstance(given, (list, tuple)):
            walked = [walk(item) for item in given]
            return walked if isinstance(given, list) else tuple(walked)
        return {key: walk(item) for key, item in given.items()} if isinstance(given, dict) else given

    return walk(args), {key: walk(item) for key, item in kwargs.items()}
