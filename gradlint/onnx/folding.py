"""Entries that are the same in every run, computed once by the onnx library's reference implementation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from gradlint.onnx.node import Spec
from gradlint.onnx.program import Array, Bundle, Symbol, dtype_name
from gradlint.onnx.shapes import Described

MOST = 1 << 22  # entries of a result that is computed beforehand
DRAWN = re.compile(r"Random|Bernoulli|Multinomial|Dropout|Constant$|If$|Loop$|Scan$|Sequence|Optional|String")


def folded(spec: Spec, inputs: Sequence[Symbol | Bundle | None], results: Sequence[Described]) -> list[Symbol] | None:
    """The node's outputs as known tensors, when all of its inputs are known and the outputs are small; else None."""
    data = [symbol.data if isinstance(symbol, Symbol) else None for symbol in inputs if symbol is not None]
    if not data or any(array is None for array in data) or spec.domain not in ("", "ai.onnx") or DRAWN.search(spec.op):
        return None
    if any(shape is None or prod(shape) > MOST for shape, _ in results):
        return None
    arrays = _evaluated(spec, [symbol.data if isinstance(symbol, Symbol) else None for symbol in inputs])
    if arrays is None or len(arrays) != len(spec.outputs):
        return None
    return [
        Symbol(name, "buffer", tuple(array.shape), dtype_name(array), data=array)
        for name, array in zip(spec.outputs, arrays, strict=True)
    ]


def moved(spec: Spec, inputs: Sequence[Symbol | Bundle | None]) -> Callable[[], Array | None] | None:
    """How to get the entries of a tensor that is made of stored weights by moving their entries; None for any other."""
    given = [symbol for symbol in inputs if isinstance(symbol, Symbol)]
    if spec.op not in MOVES or not given or len(given) < len(inputs):
        return None
    if any(symbol.array is None and symbol.data is None and symbol.recipe is None for symbol in given):
        return None

    def recipe() -> Array | None:
        arrays = [symbol.stored for symbol in given]
        if any(array is None for array in arrays):
            return None
        found = _evaluated(spec, arrays)
        return found[0] if found else None

    return recipe


MOVES = frozenset({"Transpose", "Slice", "Concat", "Unsqueeze", "Squeeze", "Reshape", "Identity", "Flatten"})


def _evaluated(spec: Spec, arrays: Sequence[Array | None]) -> list[Array] | None:
    import onnx

    proto = onnx.NodeProto()
    proto.op_type = spec.op
    proto.input.extend(f"x{i}" if array is not None else "" for i, array in enumerate(arrays))
    proto.output.extend(f"y{i}" if name else "" for i, name in enumerate(spec.outputs))
    proto.attribute.extend(spec.proto.attribute)
    feeds = {f"x{i}": array for i, array in enumerate(arrays) if array is not None}
    try:
        with np.errstate(all="ignore"):
            found = _evaluator(proto.SerializeToString(), spec.version).run(None, feeds)
    except Exception:  # noqa: BLE001  the reference refuses some operators: they are left to the run
        return None
    return [np.asarray(array) for array in found]


@lru_cache(maxsize=512)
def _evaluator(node: bytes, version: int) -> Any:
    import onnx
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.NodeProto.FromString(node), opsets={"": version})
