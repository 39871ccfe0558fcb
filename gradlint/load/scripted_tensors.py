"""Whether the tensors that a TorchScript archive describes lie within their data: torch's reader trusts it there."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

# bytes of one entry, by the name of the storage
BYTES: Mapping[str, int] = {
    "ByteStorage": 1,
    "CharStorage": 1,
    "BoolStorage": 1,
    "ShortStorage": 2,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "IntStorage": 4,
    "FloatStorage": 4,
    "LongStorage": 8,
    "DoubleStorage": 8,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}
REBUILDS = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter")


def check(data: bytes, sizes: Mapping[str, int]) -> None:
    """Raise ValueError unless every tensor of a pickle lies within its entry; `sizes` are the bytes of the entries.

    Nothing that the pickle names is imported or called: stand-ins take its place.
    """
    _Reader(data, sizes).load()


@dataclass(frozen=True)
class _Storage:
    numel: int


class _Anything:
    """Stands for an object of any class, whatever is done to it."""

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        """Take the item."""

    def extend(self, items: Any) -> None:
        """Take the items."""


class _Reader(pickle._Unpickler):
    """Python's own unpickler: C++ writes an enumeration's value where a tuple of arguments belongs."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, data: bytes, sizes: Mapping[str, int]) -> None:
        super().__init__(io.BytesIO(data))
        self._sizes = sizes

    def load_reduce(self) -> None:
        """Call the stand-in, with a lone argument too."""
        stack = self.stack  # type: ignore[attr-defined]
        args = stack.pop()
        stack[-1] = stack[-1](*args) if isinstance(args, tuple) else stack[-1](args)

    dispatch[pickle.REDUCE[0]] = load_reduce

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for whatever is named."""
        if name.startswith("_rebuild"):
            if name not in REBUILDS:
                raise ValueError(f"it holds a tensor made by {name}")
            return _rebuilt
        return type(name, (_Anything,), {"named": name})

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that a tensor lies in."""
        _, kind, key, _, numel = pid
        name = getattr(kind, "named", "")
        if name not in BYTES:
            raise ValueError(f"it holds numbers of an unknown type, {name}")
        if not isinstance(numel, int) or numel < 0 or numel * BYTES[name] > self._sizes.get(str(key), 0):
            raise ValueError(f"its entry {key} is shorter than what it should hold")
        return _Storage(numel)


def _rebuilt(storage: Any, offset: Any = 0, size: Sequence[int] = (), stride: Sequence[int] = (), *_: Any) -> _Anything:
    """A tensor whose last entry must lie in its storage."""
    if isinstance(storage, _Storage):
        whole = all(isinstance(number, int) and number >= 0 for number in (offset, *size, *stride))
        if not whole or len(size) != len(stride):
            raise ValueError("a tensor's sizes are no numbers")
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if 0 not in size and last >= storage.numel:
            raise ValueError("a tensor is larger than its data")
    return _Anything()
