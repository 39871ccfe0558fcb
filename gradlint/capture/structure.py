"""The tensors in a model's inputs and outputs, with a name for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import torch
from torch import nn

Named = tuple[str, torch.Tensor]
_DEPTH = 6
_OPAQUE = (str, bytes, int, float, bool, type, torch.dtype, torch.device, torch.Generator, nn.Module)


def flatten(value: object, prefix: str = "") -> list[Named]:
    """Every tensor in nested sequences, mappings, dataclasses and plain objects, named by the path to it.

    A bare tensor has the name of the prefix. Nothing is visited twice.
    """
    return list(_walk(value, prefix, 0, set()))


def _walk(value: object, name: str, depth: int, seen: set[int]) -> Iterator[Named]:
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    if depth > _DEPTH or value is None or isinstance(value, _OPAQUE) or id(value) in seen:
        return
    seen.add(id(value))
    for key, item in _items(value):
        yield from _walk(item, f"{name}.{key}" if name else str(key), depth + 1, seen)


def _items(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from zip(value._fields, value, strict=True)
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from enumerate(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value))
    elif hasattr(value, "__dict__") and not callable(value):
        yield from vars(value).items()


def arguments(args: tuple[object, ...], kwargs: Mapping[str, object], names: tuple[str, ...] = ()) -> list[Named]:
    """The input tensors of a call, positional ones under the parameter's name where `names` gives it."""
    found: list[Named] = []
    for position, value in enumerate(args):
        found += flatten(value, names[position] if position < len(names) else f"input_{position}")
    for key, value in kwargs.items():
        found += flatten(value, key)
    return found
