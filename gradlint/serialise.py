"""Frozen dataclasses to JSON-able data and back: how results cross the worker boundary and rest in a file."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Hashable, Mapping
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_data(value: object) -> Any:
    """The value as dicts, lists, strings and numbers. Keys of mappings become strings, tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_data(item) for key, item in value.items()}
    if isinstance(value, (tuple, list, set, frozenset)):
        return [to_data(item) for item in value]
    return value


def from_data(cls: type[T], data: Any) -> T:
    """The dataclass of type `cls` that `to_data` was given. Raises TypeError when the data is of another shape."""
    hints = _hints(cast(Hashable, cls))
    known = {name: _restore(hint, data[name]) for name, hint in hints.items() if name in data}
    return cls(**known)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    hints = get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def _restore(hint: Any, data: Any) -> Any:
    origin = get_origin(hint)
    if data is None or origin is Literal or hint is object or hint is Any:
        return data
    if dataclasses.is_dataclass(hint):
        return from_data(hint, data)  # type: ignore[arg-type]
    if origin is tuple:
        items = get_args(hint)
        if len(items) == 2 and items[1] is Ellipsis:
            return tuple(_restore(items[0], item) for item in data)
        return tuple(_restore(kind, item) for kind, item in zip(items, data, strict=True))
    if origin is list:
        return [_restore(get_args(hint)[0], item) for item in data]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, item = get_args(hint)
        return {_restore_key(key, k): _restore(item, v) for k, v in data.items()}
    if origin in (Union, types.UnionType):
        return _restore_union(get_args(hint), data)
    return data


def _restore_union(options: tuple[Any, ...], data: Any) -> Any:
    structured = [o for o in options if dataclasses.is_dataclass(o) or get_origin(o) in (tuple, list, dict)]
    return _restore(structured[0], data) if structured and isinstance(data, (dict, list)) else data


def _restore_key(hint: Any, key: str) -> Any:
    options = get_args(hint) or (hint,)
    return int(key) if int in options and key.lstrip("-").isdigit() else key
