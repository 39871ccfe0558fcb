"""The second moments of one parameter that the static signal reads: sums over axes, kept as JSON."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Iterator

import torch

MAX_AXES = 5
VALUES_UP_TO = 16384  # entries: the tensors whose exact values are kept (norm gains, biases, narrow layers)
SMALL_FAN_IN = 64  # entries a row: a depthwise or stem filter, whose rows differ too much to be averaged
CHUNK = 1 << 18  # entries converted to float64 at a time, so that a large weight is read once and stays in cache


def weight_moments(tensor: torch.Tensor) -> dict[str, object]:
    """Sums of a weight over every subset of its axes, in float64; {} for a tensor on `meta` or of more than five axes.

    `sums[S]` is Σ over the axes in S of (Σ over the others of W)², S written as digits: for a matrix "01" is ‖W‖²,
    "0" the squared row sums, "1" the squared column sums and "" the squared total. `rows` and `columns` hold, for each
    index of axis 0 and 1, the `sum` and the `square` of its entries; `filters[S]` is `sums[S]` for each index of axis 0
    when a row has at most 64 entries; `values` the entries themselves up to 16,384 of them. Vectors are base64.
    """
    if tensor.is_meta or tensor.ndim > MAX_AXES or tensor.numel() == 0 or not tensor.dtype.is_floating_point:
        return {}
    weight = tensor.detach()
    if weight.ndim < 2:
        return _vector(weight.double())
    sums, vectors = _matrix(weight)
    moments: dict[str, object] = {"total": float(vectors["rows"]["sum"].sum()), "sums": sums}
    moments |= {name: {key: encode(vector) for key, vector in part.items()} for name, part in vectors.items()}
    if weight.ndim >= 3 and weight[0].numel() <= SMALL_FAN_IN:
        moments["filters"] = _filters(weight.double())
    if weight.numel() <= VALUES_UP_TO:
        moments["values"] = encode(weight.reshape(-1))
    return moments


def encode(vector: torch.Tensor) -> str:
    """A vector as base64 of little-endian float32."""
    return base64.b64encode(vector.to("cpu", torch.float32).numpy().astype("<f4").tobytes()).decode("ascii")


def _vector(vector: torch.Tensor) -> dict[str, object]:
    total = float(vector.sum())
    sums = {"": total**2} | ({"0": float((vector**2).sum())} if vector.ndim else {})
    moments: dict[str, object] = {"total": total, "sums": sums}
    if vector.numel() <= VALUES_UP_TO:
        moments["values"] = encode(vector.reshape(-1))
    return moments


def _matrix(weight: torch.Tensor) -> tuple[dict[str, float], dict[str, dict[str, torch.Tensor]]]:
    """`sums`, and the vectors along axes 0 and 1, in one pass over the rows."""
    sums = {"".join(map(str, kept)): 0.0 for kept in _subsets(range(weight.ndim))}
    summed = torch.zeros(weight.shape[1:], dtype=torch.float64, device=weight.device)
    squared = torch.zeros(weight.shape[1], dtype=torch.float64, device=weight.device)
    row_sums, row_squares = [], []
    for chunk in torch.split(weight, max(CHUNK // max(weight[0].numel(), 1), 1)):
        double = chunk.double()
        parts = _partial_sums(double, keep=(0,))
        squares = double**2
        row_sums.append(parts[(0,)])
        row_squares.append(squares.flatten(1).sum(1))
        summed += double.sum(0)
        squared += squares.sum(0).flatten(1).sum(1) if weight.ndim > 2 else squares.sum(0)
        for kept, part in parts.items():
            sums["".join(map(str, kept))] += float((part**2).sum())
    for kept, part in _partial_sums(summed, keep=()).items():
        sums["".join(str(axis + 1) for axis in kept)] = float((part**2).sum())
    columns = {"sum": summed.flatten(1).sum(1) if weight.ndim > 2 else summed, "square": squared}
    return sums, {"rows": {"sum": torch.cat(row_sums), "square": torch.cat(row_squares)}, "columns": columns}


def _partial_sums(tensor: torch.Tensor, *, keep: tuple[int, ...]) -> dict[tuple[int, ...], torch.Tensor]:
    """The sums over every set of axes outside `keep`, by the axes kept; each is summed from the smallest larger one."""
    partial = {tuple(range(tensor.ndim)): tensor}
    for kept in _subsets(range(tensor.ndim)):
        if kept not in partial and set(keep) <= set(kept):
            larger = min((s for s in partial if set(kept) < set(s)), key=lambda s: partial[s].numel())
            partial[kept] = partial[larger].sum(dim=[i for i, axis in enumerate(larger) if axis not in kept])
    return partial


def _subsets(axes: range) -> Iterator[tuple[int, ...]]:
    return (kept for size in range(len(axes), -1, -1) for kept in itertools.combinations(axes, size))


def _filters(weight: torch.Tensor) -> dict[str, str]:
    parts = _partial_sums(weight, keep=(0,))
    return {
        "".join(map(str, kept[1:])): encode((part**2).flatten(1).sum(1) if part.ndim > 1 else part**2)
        for kept, part in parts.items()
    }
