"""What a node's outputs look like, by the onnx library's own inference, one node at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from gradlint.onnx.node import Spec
from gradlint.onnx.program import Bundle, Symbol

Described = tuple[tuple[int, ...] | None, str]
SMALL = 4096  # entries of a known tensor that are handed to the inference: shapes, axes, scales
TYPES = {
    **dict(enumerate(("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool"), 1)),
    **dict(enumerate(("float16", "float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"), 10)),
    **dict(enumerate(("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "uint4", "int4"), 17)),
}
NUMBERS = {name: number for number, name in TYPES.items()}


class MisfitError(Exception):
    """A node does not accept tensors of these shapes."""


def schema(spec: Spec) -> Any | None:
    """The operator's definition in the operator set that the file imports; None for one that onnx does not know."""
    return _schema(spec.op, spec.version, "" if spec.domain == "ai.onnx" else spec.domain)


@cache
def _schema(op: str, version: int, domain: str) -> Any | None:
    import onnx

    try:
        return onnx.defs.get_schema(op, version, domain)
    except onnx.defs.SchemaError:
        return None


def infer(spec: Spec, inputs: Sequence[Symbol | Bundle | None], imports: Sequence[Any]) -> list[Described]:
    """(shape, dtype) of each output, as far as they can be told. Raises MisfitError when the inputs do not fit."""
    from onnx import shape_inference

    known = schema(spec)
    nothing: list[Described] = [(None, "") for _ in spec.outputs]
    if known is None or any(isinstance(symbol, Bundle) for symbol in inputs):
        return nothing
    named = {n: s for n, s in zip(spec.inputs, inputs, strict=True) if n and isinstance(s, Symbol)}
    data = {
        n: _tensor(s) for n, s in named.items() if s.data is not None and s.data.size <= SMALL and s.dtype in NUMBERS
    }
    types = {name: _type(symbol) for name, symbol in named.items()}
    try:
        found = shape_inference.infer_node_outputs(known, spec.proto, types, data, opset_imports=list(imports))
    except shape_inference.InferenceError as error:
        raise MisfitError(str(error).strip().splitlines()[0]) from error
    except Exception as error:  # malformed nodes make the native code raise several classes
        raise MisfitError(f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return [described(found[name]) if name in found else nothing[i] for i, name in enumerate(spec.outputs)]


def described(type_proto: Any) -> Described:
    """A type of the file as (shape, dtype)."""
    if type_proto.WhichOneof("value") != "tensor_type":
        return None, ""
    tensor = type_proto.tensor_type
    dtype = TYPES.get(tensor.elem_type, "")
    if not tensor.HasField("shape"):
        return None, dtype
    sizes = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    return (tuple(sizes) if all(size >= 0 for size in sizes) else None), dtype


def _type(symbol: Symbol) -> Any:
    from onnx import helper

    return helper.make_tensor_type_proto(
        NUMBERS.get(symbol.dtype, 0), None if symbol.shape is None else list(symbol.shape)
    )


def _tensor(symbol: Symbol) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(symbol.data, symbol.name)  # type: ignore[arg-type]
