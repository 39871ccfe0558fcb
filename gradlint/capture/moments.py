"""The second moments of one parameter that the static signal reads: sums over axes, kept as JSON."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

Weight = Any  # a torch tensor or a numpy array: both reduce alike

MAX_AXES = 5
VALUES_UP_TO = 16384  # entries: the tensors whose exact values are kept (norm gains, biases, narrow layers)
FOLLOWED_UP_TO = 1 << 20  # the same in a model without norms, whose signal is followed unit by unit
SMALL_FAN_IN = 64  # entries a row: a depthwise or stem filter, whose rows differ too much to be averaged
CHUNK = 1 << 18  # entries converted to float64 at a time, so that a large weight is read once and stays in cache


Sums = tuple[dict[str, float], dict[str, dict[str, Any]]]


def weight_moments(
    tensor: Weight, summed: Callable[[Weight], Sums] | None = None, values: int = VALUES_UP_TO
) -> dict[str, object]:
    """Sums of a weight over every subset of its axes, in float64; {} for a tensor on `meta` or of more than five axes.

    `summed` takes the sums of a matrix or kernel in another way.

    `sums[S]` is Σ over the axes in S of (Σ over the others of W)², S written as digits: for a matrix "01" is ‖W‖²,
    "0" the squared row sums, "1" the squared column sums and "" the squared total. `rows` and `columns` hold, for each
    index of axis 0 and 1, the `sum` and the `square` of its entries; `filters[S]` is `sums[S]` for each index of axis 0
    when a row has at most 64 entries; `values` the entries themselves, up to that many. Vectors are base64.
    """
    if not _is_counted(tensor):
        return {}
    weight = tensor if isinstance(tensor, np.ndarray) else tensor.detach()
    if weight.ndim < 2:
        return _vector(_double(weight), values)
    sums, vectors = (summed or _matrix)(weight)
    moments: dict[str, object] = {"total": float(vectors["rows"]["sum"].sum()), "sums": sums}
    moments |= {name: {key: encode(vector) for key, vector in part.items()} for name, part in vectors.items()}
    if weight.ndim >= 3 and prod(weight.shape[1:]) <= SMALL_FAN_IN:
        moments["filters"] = _filters(_double(weight))
    if prod(weight.shape) <= values:
        moments["values"] = encode(weight.reshape(-1))
    return moments


def encode(vector: Weight) -> str:
    """A vector as base64 of little-endian float32."""
    with np.errstate(over="ignore"):  # beyond float32 it is infinite, as torch's conversion has it
        return base64.b64encode(_array(vector).astype("<f4").tobytes()).decode("ascii")


def _is_counted(tensor: Weight) -> bool:
    if isinstance(tensor, np.ndarray):
        return tensor.ndim <= MAX_AXES and tensor.size > 0
    return (
        not tensor.is_meta and tensor.ndim <= MAX_AXES and tensor.numel() > 0 and bool(tensor.dtype.is_floating_point)
    )


def _double(piece: Weight) -> Weight:
    return piece.astype(np.float64) if isinstance(piece, np.ndarray) else piece.double()


def _array(vector: Weight) -> Any:
    """The entries in numpy; torch's bfloat16, which numpy lacks, as float32."""
    return vector if isinstance(vector, np.ndarray) else vector.to("cpu").float().numpy()


def _vector(vector: Weight, values: int) -> dict[str, object]:
    total = float(vector.sum())
    sums = {"": total**2} | ({"0": float((vector**2).sum())} if vector.ndim else {})
    moments: dict[str, object] = {"total": total, "sums": sums}
    if prod(vector.shape) <= values:
        moments["values"] = encode(vector.reshape(-1))
    return moments


def _matrix(weight: Weight) -> Sums:
    """`sums`, and the vectors along axes 0 and 1, in one pass over the rows."""
    sums = {"".join(map(str, kept)): 0.0 for kept in subsets(range(weight.ndim))}
    summed: Weight = 0.0
    squared: Weight = 0.0
    row_sums, row_squares = [], []
    rows = max(CHUNK // max(prod(weight.shape[1:]), 1), 1)
    for start in range(0, weight.shape[0], rows):
        double = _double(weight[start : start + rows])
        parts = partial_sums(double, keep=(0,))
        squares = double**2
        row_sums.append(parts[(0,)])
        row_squares.append(_by_row(squares))
        summed = summed + double.sum(0)
        squared = squared + (_by_row(squares.sum(0)) if weight.ndim > 2 else squares.sum(0))
        for kept, part in parts.items():
            sums["".join(map(str, kept))] += float((part**2).sum())
    for kept, part in partial_sums(summed, keep=()).items():
        sums["".join(str(axis + 1) for axis in kept)] = float((part**2).sum())
    columns = {"sum": _by_row(summed) if weight.ndim > 2 else summed, "square": squared}
    return sums, {"rows": {"sum": _joined(row_sums), "square": _joined(row_squares)}, "columns": columns}


def _by_row(tensor: Weight) -> Weight:
    """The sum over all axes but the first."""
    return tensor.reshape(tensor.shape[0], -1).sum(1)


def _joined(pieces: list[Weight]) -> Any:
    """Float64 pieces of one vector."""
    return np.concatenate([piece if isinstance(piece, np.ndarray) else piece.cpu().numpy() for piece in pieces])


def partial_sums(tensor: Weight, *, keep: tuple[int, ...]) -> dict[tuple[int, ...], Weight]:
    """The sums over every set of axes outside `keep`, by the axes kept; each is summed from the smallest larger one."""
    partial = {tuple(range(tensor.ndim)): tensor}
    for kept in subsets(range(tensor.ndim)):
        if kept not in partial and set(keep) <= set(kept):
            larger = min((s for s in partial if set(kept) < set(s)), key=lambda s: prod(partial[s].shape))
            gone = tuple(i for i, axis in enumerate(larger) if axis not in kept)
            partial[kept] = partial[larger].sum(axis=gone)
    return partial


def subsets(axes: range) -> Iterator[tuple[int, ...]]:
    """Every subset, the largest first."""
    return (kept for size in range(len(axes), -1, -1) for kept in itertools.combinations(axes, size))


def _filters(weight: Weight) -> dict[str, str]:
    parts = partial_sums(weight, keep=(0,))
    return {
        "".join(map(str, kept[1:])): encode(_by_row(part**2) if part.ndim > 1 else part**2)
        for kept, part in parts.items()
    }
