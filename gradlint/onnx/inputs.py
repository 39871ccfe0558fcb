"""What the file says of its inputs, and the sizes that a program is made for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gradlint.error import InputError
from gradlint.onnx.file import File
from gradlint.onnx.shapes import TYPES


@dataclass(frozen=True)
class Declared:
    """One input as the file declares it: a size, or a name ("" for none), for each dimension."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class Sized:
    """The input's shape; `guessed` when the file leaves some of it open and nobody gave it."""

    shape: tuple[int, ...]
    dtype: str
    guessed: bool = False
    values: Any = None  # the law of the entries (`gradlint.load.spec.Values`)
    source: str = "example"


def declared(file: File) -> tuple[Declared, ...]:
    """Every input that is no initializer. Raises InputError for one that is no tensor, or of no known rank."""
    stored = {tensor.name for tensor in file.model.graph.initializer}
    return tuple(_declared(value) for value in file.model.graph.input if value.name not in stored)


def _declared(value: Any) -> Declared:
    if value.type.WhichOneof("value") != "tensor_type":
        raise InputError(f"the input {value.name!r} is not a tensor")
    tensor = value.type.tensor_type
    dtype = TYPES.get(tensor.elem_type, "")
    if not dtype or dtype == "string" or dtype.endswith("int4"):
        raise InputError(
            f"the input {value.name!r} holds {dtype or 'entries of an unknown type'}, which no network takes"
        )
    dims = tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else dim.dim_param for dim in tensor.shape.dim
    )
    return Declared(value.name, dtype, dims)
