"""A model file as a list of torch-level calls: plain data that can be understood without torch, or run with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradlint.graph.ir import Span

Array = NDArray[Any]
Kind = Literal["input", "param", "buffer", "op"]


@dataclass(eq=False, slots=True)
class Symbol:
    """One tensor of the file. `shape` is None where it cannot be told before a run.

    `data` holds the entries where they are the same in every run (shapes, constants); `array` those of a stored weight,
    which training changes; `recipe` gives those of a tensor that is made of weights alone, by moving their entries.
    `tensor` is the tensor itself while a part of the file is interpreted during a run.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...] | None
    dtype: str  # torch's name: "float32", "int64", "bool"
    data: Array | None = None
    array: Array | None = None
    recipe: Callable[[], Array | None] | None = None
    tensor: Any = None

    @property
    def rank(self) -> int | None:
        """The number of dimensions, where it is known."""
        return None if self.shape is None else len(self.shape)

    @property
    def stored(self) -> Array | None:
        """The entries that the file holds, where it holds any."""
        found = self.array if self.array is not None else self.data
        return self.recipe() if found is None and self.recipe is not None else found


@dataclass(frozen=True)
class Place:
    """Where in the model a call stands: module path and class, the node's own name, and the line that wrote it."""

    path: str = ""
    type: str = ""
    span: Span | None = None
    node: str = ""


class Training:
    """Stands in a call's arguments for whether the model is in train mode."""

    def __repr__(self) -> str:
        return "TRAINING"


TRAINING = Training()


@dataclass(frozen=True, eq=False)
class Step:
    """One call: a torch function by its qualified name, arguments that hold a `Symbol` for each tensor, its results.

    A step whose function is "onnx.…" is a node that can only be understood while it runs (`late` interprets it then),
    or one that is not known at all (`late` is None).
    """

    function: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Symbol | None, ...]
    place: Place = Place()
    late: Any = None

    @property
    def reads(self) -> Iterator[Symbol]:
        """Every tensor that the call takes."""
        yield from symbols(self.args)
        yield from symbols(tuple(self.kwargs.values()))

    @property
    def known(self) -> bool:
        """Whether the call can be run."""
        return not self.function.startswith("onnx.") or self.late is not None


@dataclass(frozen=True)
class Program:
    """The whole file: its calls in order, inputs and outputs, and what must be said of it."""

    name: str
    steps: tuple[Step, ...]
    inputs: tuple[Symbol, ...]
    outputs: tuple[Symbol, ...]
    types: Mapping[str, str] = field(default_factory=dict)  # module path → qualified class name
    notes: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()  # kinds of ops that the exporter took out: "norm"

    @property
    def leaves(self) -> dict[str, Symbol]:
        """Parameters, buffers and constants that a call or the output reads, by name, in order of use."""
        read = (symbol for step in self.steps for symbol in step.reads)
        every = (*read, *self.outputs)
        return {s.name: s for s in every if s.kind in ("param", "buffer")}

    @property
    def unknown(self) -> tuple[str, ...]:
        """The operators that no call stands for, each once."""
        return tuple(dict.fromkeys(step.function.partition(".")[2] for step in self.steps if not step.known))


def symbols(value: Any) -> Iterator[Symbol]:
    """Every tensor in an argument."""
    if isinstance(value, Symbol):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from symbols(item)
    elif isinstance(value, slice):
        yield from symbols((value.start, value.stop, value.step))


def substituted(value: Any, change: Any) -> Any:
    """The argument with every tensor replaced by what `change` makes of it."""
    if isinstance(value, Symbol):
        return change(value)
    if isinstance(value, (tuple, list)):
        return type(value)(substituted(item, change) for item in value)
    if isinstance(value, slice):
        return slice(*(substituted(part, change) for part in (value.start, value.stop, value.step)))
    return value


def dtype_name(array: Array) -> str:
    """The name of the array's dtype, which is torch's too where torch has one."""
    return str(array.dtype.name)


def known(name: str, entries: Any) -> Symbol:
    """A constant whose entries are the same in every run."""
    data = np.asarray(entries)
    return Symbol(name, "buffer", tuple(data.shape), dtype_name(data), data=data)


@dataclass(frozen=True)
class DType:
    """Stands in a call's arguments for torch's dtype of this name."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(eq=False)
class Bundle:
    """A sequence of tensors, which exists only while the file is interpreted."""

    items: list[Symbol]
