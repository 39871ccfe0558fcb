"""The arguments of one recorded call, by name, as plain numbers and tensor metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gradlint.capture.record import Meta, Ref

Plain = Any  # what JSON can hold: numbers, strings, None and nested lists of them


@dataclass(frozen=True)
class Arguments:
    """The call's arguments by parameter name, tensors as references; `outputs` describes what it returned."""

    short: str
    values: dict[str, Any]
    outputs: list[Meta]

    def get(self, name: str, default: Any = None) -> Any:
        """The argument as plain data, or the default where it was not given."""
        value = self.values.get(name, default)
        return default if isinstance(value, Ref) else plain(value)

    def given(self, name: str) -> bool:
        """Whether the argument was given and is not None."""
        return self.values.get(name) is not None

    def tensor(self, name: str) -> Meta | None:
        """The metadata of a tensor argument, or None."""
        value = self.values.get(name)
        return value.meta if isinstance(value, Ref) else None

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


def references(name: str, value: Any) -> Iterator[tuple[str, Ref]]:
    """Every tensor in an argument with the argument's name; items of a list after the first are named "name.1" …"""
    if isinstance(value, Ref):
        yield name, value
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            yield from references(f"{name}.{position}" if position else name, item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from references(f"{name}.{key}", item)
    elif isinstance(value, slice):
        yield from references(name, (value.start, value.stop, value.step))


def plain(value: Any) -> Plain:
    """The value as JSON can hold it: dtypes and devices by name, slices as ["slice", start, stop, step]."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Ref):
        return "mask" if dtype_name(value.meta.dtype) == "bool" else "tensor"
    if isinstance(value, slice):
        return ("slice", plain(value.start), plain(value.stop), plain(value.step))
    if isinstance(value, (list, tuple)):
        return tuple(plain(item) for item in value)
    if value is Ellipsis:
        return "..."
    return dtype_name(value)


def dtype_name(dtype: object) -> str:
    """torch's name of the dtype without the prefix."""
    return str(dtype).removeprefix("torch.")
