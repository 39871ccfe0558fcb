"""Read an ONNX file as data: nothing in it is executed, no path in it leaves its folder, sizes are checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradlint.error import LoadError
from gradlint.onnx import INSTALL
from gradlint.onnx.program import Array

SUFFIXES = (".onnx",)
MOST_NODES = 500_000  # after functions are expanded; the largest exported language models have some 20,000
OLDEST = 7  # opset; 9 and later are tested, 7 and 8 differ in few operators


@dataclass(frozen=True)
class File:
    """A parsed ONNX file: the protobuf, and the place its external data lie beside."""

    model: Any  # onnx.ModelProto
    path: Path

    def array(self, tensor: Any) -> Array:
        """The entries of a stored tensor; external ones are mapped, not read.

        Raises LoadError for sizes that do not fit, and for external data outside the file's folder.
        """
        return _external(tensor, self.path) if tensor.data_location == 1 else _inside(tensor)


def read(path: Path, shown: str | None = None) -> File:
    """The file, parsed and checked. Raises LoadError when it is no well-formed ONNX model."""
    name = shown or str(path)
    onnx = _library()
    if not path.is_file():
        raise LoadError(f"no such file: {name}")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except Exception as error:  # the protobuf runtimes raise different classes for a damaged message
        raise LoadError(f"{name} is not an ONNX model: {_first(error)}", "is the file complete?") from error
    file = File(model, path)
    for problem in _problems(model):
        raise LoadError(f"{name}: {problem}")
    for tensor in _tensors(model.graph, 0):
        check(tensor, path)
    return file


def check(tensor: Any, path: Path) -> None:
    """Raise LoadError unless the tensor's dimensions, its data and their place make sense."""
    if any(dim < 0 for dim in tensor.dims):
        raise LoadError(f"{path.name}: the tensor {tensor.name!r} has a negative dimension: {list(tensor.dims)}")
    if tensor.data_location == 1:
        _located(tensor, path)
        return
    if tensor.HasField("raw_data"):
        bits, held = bits_of(tensor.data_type), len(tensor.raw_data)
        wanted = (math.prod(tensor.dims) * bits + 7) // 8
        if bits and wanted != held:
            raise LoadError(f"{path.name}: the tensor {tensor.name!r} needs {wanted} bytes and has {held}")
    elif math.prod(tensor.dims) > 0:
        held = sum(len(getattr(tensor, name)) for name in _FIELDS)
        if held == 0 or math.prod(tensor.dims) > held * 8:
            raise LoadError(f"{path.name}: the tensor {tensor.name!r} of {list(tensor.dims)} has {held} entries")


def bits_of(data_type: int) -> int:
    """The size of an entry; 0 for strings and types that are not known."""
    return _BITS.get(data_type, 0)


_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 14: 64, 15: 128, 16: 16}
_BITS |= {17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8, 25: 2, 26: 2}


def _library() -> Any:
    try:
        import onnx
    except ImportError:
        raise LoadError("reading .onnx files needs the onnx package", INSTALL) from None
    return onnx


def _problems(model: Any) -> Iterator[str]:
    """What is wrong with the model as a whole."""
    import onnx

    if not model.HasField("graph") or not model.graph.output:
        yield "it holds no graph with an output"
    opset = version(model)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        yield f"its operator set {opset} is not between {OLDEST} and {newest} (the newest of onnx {onnx.__version__})"
    count = _expanded(model)
    if count > MOST_NODES:
        yield f"its functions expand to more than {MOST_NODES} nodes"


def version(model: Any, domain: str = "") -> int:
    """The version of an operator set that the model imports, 1 where it imports none of that domain."""
    alike = ("", "ai.onnx") if domain in ("", "ai.onnx") else (domain,)
    return next((o.version for o in model.opset_import if o.domain in alike), 1)


def _expanded(model: Any) -> int:
    """How many nodes there are once functions are expanded; raises LoadError when one calls itself."""
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}
    active: set[tuple[str, str]] = set()

    def size(key: tuple[str, str]) -> int:
        if key in active:
            raise LoadError(f"the function {key[1]} calls itself")
        if key not in sizes:
            active.add(key)
            sizes[key] = counted(bodies[key], 0)
            active.discard(key)
        return sizes[key]

    def counted(nodes: Any, depth: int) -> int:
        if depth > DEEPEST:
            raise LoadError(f"graphs are nested more than {DEEPEST} deep")
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += 1 + (size(key) if key in bodies else 0)
            total += sum(counted(graph.node, depth + 1) for graph in graphs(node))
        return min(total, 2 * MOST_NODES)

    return counted(model.graph.node, 0)


DEEPEST = 30  # of graphs within graphs, and of functions that call functions


def graphs(node: Any) -> Iterator[Any]:
    """The graphs among a node's attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _tensors(graph: Any, depth: int) -> Iterator[Any]:
    """Every stored tensor of a graph and of those inside it."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for inner in graphs(node):
            yield from _tensors(inner, depth + 1)


# -- external data -----------------------------------------------------------------------------------------------------


def _located(tensor: Any, path: Path) -> tuple[Path, int, int]:
    """The file, offset and length of a tensor's external data."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    location = told.get("location", "")
    given = Path(location.replace("\\", "/"))
    outside = not location or "\0" in location or given.is_absolute() or ".." in given.parts
    found = path.parent if outside else (path.parent / given).resolve()
    # a model in a cache of links to blobs keeps its data among the blobs
    if outside or not any(found.is_relative_to(f) for f in (path.parent.resolve(), path.resolve().parent)):
        raise LoadError(
            f"{path.name}: the data of {tensor.name!r} are said to lie at {location!r}, outside the model's folder",
            "external data must lie beside the .onnx file",
        )
    if not found.is_file():
        raise LoadError(f"{path.name}: the data of {tensor.name!r} are in {location}, which is not there")
    bits = bits_of(tensor.data_type)
    length = (math.prod(tensor.dims) * bits + 7) // 8
    try:
        offset, stated = int(told.get("offset") or 0), int(told.get("length") or length)
    except ValueError:
        raise LoadError(f"{path.name}: the data of {tensor.name!r} have no readable offset and length") from None
    if offset < 0 or stated != length or offset + length > found.stat().st_size:
        raise LoadError(
            f"{path.name}: the tensor {tensor.name!r} needs {length} bytes at {offset} of {location}, "
            f"which has {found.stat().st_size}"
        )
    return found, offset, length


def _external(tensor: Any, path: Path) -> Array:
    found, offset, length = _located(tensor, path)
    if length == 0:
        return np.zeros(tuple(tensor.dims), _numpy_dtype(tensor.data_type))
    if bits_of(tensor.data_type) < 8:
        raise LoadError(f"{path.name}: the tensor {tensor.name!r} packs several entries into a byte, which is not read")
    mapped = np.memmap(found, mode="r", dtype=np.uint8, offset=offset, shape=(length,))
    array: Array = mapped.view(_numpy_dtype(tensor.data_type)).reshape(tuple(tensor.dims))
    return array


def _inside(tensor: Any) -> Array:
    from onnx import numpy_helper

    try:
        return numpy_helper.to_array(tensor)
    except Exception as error:  # what a hostile tensor makes the library raise is of many classes
        raise LoadError(f"the tensor {tensor.name!r} cannot be read: {_first(error)}") from error


def _numpy_dtype(data_type: int) -> Any:
    from onnx import helper

    return np.dtype(helper.tensor_dtype_to_np_dtype(data_type))


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
