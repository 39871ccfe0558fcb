"""Statistics of parameters: float64, in pieces, so that nothing overflows and no tensor is copied whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from gradlint.capture.arguments import dtype_name
from gradlint.capture.moments import VALUES_UP_TO, weight_moments
from gradlint.graph.ir import Param

Weight = Any  # a torch tensor or a numpy array

_PIECE = 1 << 16  # entries that are converted to float64 at a time: they stay in the cache


@dataclass(frozen=True)
class Numbers:
    """Statistics of the finite entries of one tensor; all None on meta and for an empty tensor."""

    mean: float | None = None
    std: float | None = None
    rms: float | None = None
    abs_max: float | None = None
    zero_share: float | None = None
    finite: bool = True


def statistics(path: str, tensor: Weight, fans: tuple[int, int] | None = None, values: int = VALUES_UP_TO) -> Param:
    """The parameter's entry of the graph, with the second moments that the signal reads.

    `fans` overrides what the shape says of (fan_in, fan_out); the entries of a tensor of up to `values` are kept.
    """
    numbers, moments = _quick(tensor, values) or (measure(tensor), weight_moments(tensor, values=values))
    fan_in, fan_out = fans or fan(tuple(tensor.shape))
    return Param(
        path=path,
        shape=tuple(tensor.shape),
        dtype=dtype_name(tensor.dtype),
        requires_grad=getattr(tensor, "requires_grad", True),
        fan_in=fan_in,
        fan_out=fan_out,
        mean=numbers.mean,
        std=numbers.std,
        rms=numbers.rms,
        abs_max=numbers.abs_max,
        zero_share=numbers.zero_share,
        finite=numbers.finite,
        moments=moments,
    )


def _quick(tensor: Weight, values: int) -> tuple[Numbers, dict[str, object]] | None:
    """What float32 sums say of a large float32 tensor of torch, to five digits; None where they would not."""
    if isinstance(tensor, np.ndarray):
        return None
    from gradlint.capture import quick  # needs torch, which a graph from a file does without

    numbers = quick.numbers(tensor.detach()) if quick.is_large(tensor) else None
    return None if numbers is None else (numbers, weight_moments(tensor, quick.products, values))


def measure(tensor: Weight) -> Numbers:
    """Mean, standard deviation, RMS, largest magnitude and share of zeros, of the finite entries."""
    entries = prod(tensor.shape)
    if getattr(tensor, "is_meta", False) or entries == 0:
        return Numbers()
    sums = _sums(tensor, 1.0)
    if math.isinf(sums.square) or (sums.square == 0.0 and sums.largest > 0.0):
        sums = _sums(tensor, sums.largest)  # float64 entries whose squares over- or underflow
    finite = sums.count == entries
    if sums.count == 0:
        return Numbers(finite=finite)
    mean, second, scale = sums.total / sums.count, sums.square / sums.count, sums.scale
    std = math.sqrt(max(second - mean * mean, 0.0)) if sums.least != sums.most else 0.0
    return Numbers(mean * scale, std * scale, math.sqrt(second) * scale, sums.largest, sums.zeros / sums.count, finite)


@dataclass(slots=True)
class _Sums:
    """Sums over the finite entries, divided by `scale`; `largest` is the greatest magnitude as it is."""

    scale: float
    total: float = 0.0
    square: float = 0.0
    count: int = 0
    zeros: int = 0
    least: float = math.inf
    most: float = -math.inf

    @property
    def largest(self) -> float:
        return max(abs(self.least), abs(self.most)) * self.scale


def _sums(tensor: Weight, scale: float) -> _Sums:
    sums = _Sums(scale)
    for piece in _pieces(tensor):
        least, most = float(piece.min()), float(piece.max())
        kept = piece if math.isfinite(least) and math.isfinite(most) else piece[np.isfinite(piece)]
        if kept.size == 0:
            continue
        if kept is not piece:
            least, most = float(kept.min()), float(kept.max())
        kept = kept if scale == 1.0 else kept / scale
        sums.total += float(kept.sum())
        sums.square += float((kept * kept).sum())  # no BLAS: its threads would spin
        sums.count += kept.size
        sums.zeros += kept.size - int(np.count_nonzero(kept != 0))
        sums.least, sums.most = min(sums.least, least / scale), max(sums.most, most / scale)
    return sums


def fan(shape: Sequence[int]) -> tuple[int, int]:
    """Fan-in and fan-out as torch.nn.init counts them; the number of entries for a vector."""
    if len(shape) < 2:
        return prod(shape), prod(shape)
    field = prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _pieces(tensor: Weight) -> Iterator[Any]:
    """The entries in float64, some at a time; the magnitudes of complex ones."""
    flat = tensor.reshape(-1) if isinstance(tensor, np.ndarray) else tensor.detach().reshape(-1)
    for start in range(0, flat.shape[0], _PIECE):
        piece = flat[start : start + _PIECE]
        if isinstance(piece, np.ndarray):
            yield (abs(piece) if piece.dtype.kind == "c" else piece).astype(np.float64)
        else:
            yield (piece.abs() if piece.is_complex() else piece).double().cpu().numpy()
