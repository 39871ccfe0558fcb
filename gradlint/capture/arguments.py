"""The arguments of one recorded call, by name, as plain numbers and tensor metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from gradlint.capture.tape import Meta

Plain = Any  # what JSON can hold: numbers, strings, None and nested lists of them


@dataclass(frozen=True)
class Arguments:
    """The call's arguments by parameter name, tensors as fx nodes; `outputs` describes what it returned."""

    short: str
    values: dict[str, Any]
    outputs: tuple[Meta, ...]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument as plain data, or the default where it was not given."""
        value = self.values.get(name, default)
        return default if isinstance(value, fx.Node) else plain(value)

    def given(self, name: str) -> bool:
        """Whether the argument was given and is not None."""
        return self.values.get(name) is not None

    def tensor(self, name: str) -> Meta | None:
        """The metadata of a tensor argument, or None."""
        value = self.values.get(name)
        return meta_of(value) if isinstance(value, fx.Node) else None

    def shape(self, name: str = "input") -> tuple[int, ...]:
        """The shape of a tensor argument, () when there is none."""
        meta = self.tensor(name)
        return () if meta is None else meta.shape

    def axis(self, value: int, extra: int = 0) -> int:
        """A dimension of the input counted from the front; `extra` is 1 for ops that add one."""
        rank = len(self.shape()) + extra
        return value % rank if rank else 0

    def axes(self, value: Any) -> tuple[int, ...]:
        """Dimensions of the input counted from the front; all of them for None."""
        rank = len(self.shape())
        if value is None or value == ():
            return tuple(range(rank))
        given = value if isinstance(value, Sequence) else (value,)
        return tuple(sorted(self.axis(int(item)) for item in given)) if rank else ()


def meta_of(node: fx.Node) -> Meta | None:
    """The metadata of the tensor that a node stands for."""
    if "value" in node.meta:
        meta: Meta = node.meta["value"]
        return meta
    call, position = node.meta.get("call"), 0
    if "of" in node.meta:
        call, position = node.meta["of"].meta["call"], node.meta["output"]
    if call is None:
        return None
    outputs: tuple[Meta, ...] = call.outputs
    if position < 0:
        rebased: Meta | None = call.rebased
        return rebased
    return outputs[position] if position < len(outputs) else None


def nodes(name: str, value: Any) -> Iterator[tuple[str, fx.Node]]:
    """Every tensor in an argument with the argument's name; items of a list after the first are named "name.1" …"""
    if isinstance(value, fx.Node):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from nodes(f"{name}.{position}" if position else name, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from nodes(f"{name}.{key}", item)
    elif isinstance(value, slice):
        yield from nodes(name, (value.start, value.stop, value.step))


def plain(value: Any) -> Plain:
    """The value as JSON can hold it: dtypes and devices by name, slices as ["slice", start, stop, step]."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, fx.Node):
        meta = meta_of(value)
        return "mask" if meta is not None and meta.dtype == torch.bool else "tensor"
    if isinstance(value, slice):
        return ("slice", plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, (list, tuple)):
        return tuple(plain(item) for item in value)
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    if value is Ellipsis:
        return "..."
    return str(value)


def dtype_name(dtype: torch.dtype) -> str:
    """torch's name of the dtype without the prefix."""
    return str(dtype).removeprefix("torch.")
