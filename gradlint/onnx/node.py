"""One node of a file as its handler sees it: inputs, attributes, and the calls that are to stand for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from gradlint.onnx.program import Array, Place, Symbol

Handler = Callable[["Node"], "Symbol | Sequence[Symbol | None]"]

ALIASES = {"F": "torch.nn.functional", "T": "torch", "M": "torch.Tensor", "L": "torch.linalg"}


class UnknownEntriesError(Exception):
    """A handler needs entries, or a shape, that are only known during a run."""


class UnsupportedError(Exception):
    """The node asks for something that its handler does not know."""


class Emitter(Protocol):
    """Takes the calls: writes them down, or makes them at once."""

    def emit(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Any], place: Place
    ) -> Any:
        """The symbols that the call results in; `outputs` are (shape, dtype) of each, where they are known."""

    def entries(self, symbol: Symbol) -> Array:
        """The entries of a tensor. Raises UnknownEntriesError when they are only known during a run."""


@dataclass(frozen=True)
class Spec:
    """A node as the file has it, attributes as plain Python values, names resolved by the scope it stands in."""

    op: str
    domain: str
    version: int
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Mapping[str, Any]
    proto: Any
    place: Place


@dataclass
class Node:
    """A node on its way to become calls; `results` are (shape, dtype) of its outputs where they could be inferred."""

    spec: Spec
    inputs: list[Symbol | None]
    results: list[tuple[tuple[int, ...] | None, str]]
    emitter: Emitter
    body: Callable[[Any, Sequence[Symbol]], list[Symbol]]  # lowers a graph attribute in the node's own scope
    _next: int = field(default=0)

    def __getitem__(self, position: int) -> Symbol:
        symbol = self.get(position)
        if symbol is None:
            raise UnsupportedError(f"input {position} is missing")
        return symbol

    def get(self, position: int) -> Symbol | None:
        """An input, None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    @property
    def version(self) -> int:
        """The operator set's version."""
        return self.spec.version

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value."""
        return self.spec.attrs.get(name, default)

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """An input's shape. Raises UnknownEntriesError when it is not known."""
        return shape_of(self[position])

    def rank(self, position: int = 0) -> int:
        """An input's number of dimensions."""
        return len(self.shape(position))

    def entries(self, position: int) -> Array:
        """An input's entries. Raises UnknownEntriesError when they are not known."""
        return self.emitter.entries(self[position])

    def ints(self, position: int, attribute: str = "", default: Any = None) -> list[int] | None:
        """A list of integers that is an input, in earlier operator sets an attribute."""
        if self.get(position) is not None:
            return [int(value) for value in self.entries(position).reshape(-1)]
        given = self.attr(attribute, default) if attribute else default
        return None if given is None else [int(value) for value in np.atleast_1d(given)]

    def number(self, position: int, attribute: str = "", default: Any = None) -> Any:
        """A single number that is an input, in earlier operator sets an attribute."""
        if self.get(position) is not None:
            return self.entries(position).reshape(-1)[0].item()
        return self.attr(attribute, default) if attribute else default

    def axis(self, value: int, position: int = 0) -> int:
        """An axis counted from the front."""
        rank = self.rank(position)
        return value % rank if rank else 0

    # -- calls

    def step(self, function: str, *args: Any, shape: Sequence[int] | None, dtype: str, **kwargs: Any) -> Symbol:
        """One call on the way, with the shape of what it gives."""
        described = (None if shape is None else tuple(shape), dtype)
        found: Symbol = self.emitter.emit(qualified(function), args, kwargs, [described], self.spec.place)[0]
        return found

    def like(self, function: str, x: Symbol, *args: Any, dtype: str = "", **kwargs: Any) -> Symbol:
        """One call on the way whose result has the shape of `x`."""
        return self.step(function, x, *args, shape=x.shape, dtype=dtype or x.dtype, **kwargs)

    def out(self, function: str, *args: Any, **kwargs: Any) -> Symbol:
        """The call whose result is the node's only (or first) output."""
        found: Symbol = self.emitter.emit(qualified(function), args, kwargs, self.results[:1], self.spec.place)[0]
        return found

    def outs(self, function: str, *args: Any, **kwargs: Any) -> list[Symbol]:
        """The call whose results are the node's outputs, in order."""
        found = self.emitter.emit(qualified(function), args, kwargs, list(self.results), self.spec.place)
        return list(found)

    def number_or(self, position: int, beside: Symbol) -> Symbol | float | int | bool:
        """An input as a plain number where it is a known single one that leaves the other operand's shape alone."""
        symbol = self[position]
        if (
            symbol.data is None
            or symbol.data.size != 1
            or symbol.data.ndim > (beside.rank or 0)
            or beside.data is not None
        ):
            return symbol
        value: float | int | bool = symbol.data.reshape(-1)[0].item()
        return value


def shape_of(symbol: Symbol) -> tuple[int, ...]:
    """The symbol's shape. Raises UnknownEntriesError when it is not known."""
    if symbol.shape is None:
        raise UnknownEntriesError(symbol.name)
    return symbol.shape


def qualified(function: str) -> str:
    """The full name of "F.relu", "T.add" and "M.reshape"."""
    head, _, rest = function.partition(".")
    return f"{ALIASES[head]}.{rest}" if head in ALIASES else function


def broadcast(*given: Symbol) -> tuple[int, ...] | None:
    """The shape of an elementwise result."""
    shapes = [symbol.shape for symbol in given]
    return None if None in shapes else np.broadcast_shapes(*(shape for shape in shapes if shape is not None))
