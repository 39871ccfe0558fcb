"""Statistics of parameters: float64, in pieces, so that nothing overflows and no tensor is copied whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch

from gradlint.capture.arguments import dtype_name
from gradlint.capture.moments import weight_moments
from gradlint.graph.ir import Param

_PIECE = 1 << 20  # entries that are converted to float64 at a time


@dataclass(frozen=True)
class Numbers:
    """Statistics of the finite entries of one tensor; all None on meta and for an empty tensor."""

    mean: float | None = None
    std: float | None = None
    rms: float | None = None
    abs_max: float | None = None
    zero_share: float | None = None
    finite: bool = True


def statistics(path: str, tensor: torch.Tensor, fans: tuple[int, int] | None = None) -> Param:
    """The parameter's entry of the graph, with the second moments that the signal reads.

    `fans` overrides what the shape says of (fan_in, fan_out).
    """
    numbers = measure(tensor)
    fan_in, fan_out = fans or fan(tuple(tensor.shape))
    return Param(
        path=path,
        shape=tuple(tensor.shape),
        dtype=dtype_name(tensor.dtype),
        requires_grad=tensor.requires_grad,
        fan_in=fan_in,
        fan_out=fan_out,
        mean=numbers.mean,
        std=numbers.std,
        rms=numbers.rms,
        abs_max=numbers.abs_max,
        zero_share=numbers.zero_share,
        finite=numbers.finite,
        moments=weight_moments(tensor),
    )


def measure(tensor: torch.Tensor) -> Numbers:
    """Mean, standard deviation, RMS, largest magnitude and share of zeros, of the finite entries."""
    if tensor.is_meta or tensor.numel() == 0:
        return Numbers()
    sums = _sums(tensor, 1.0)
    if math.isinf(sums.square) or (sums.square == 0.0 and sums.largest > 0.0):
        sums = _sums(tensor, sums.largest)  # float64 entries whose squares over- or underflow
    finite = sums.count == tensor.numel()
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


def _sums(tensor: torch.Tensor, scale: float) -> _Sums:
    sums = _Sums(scale)
    for piece in _pieces(tensor):
        least, most = (float(extreme) for extreme in torch.aminmax(piece))
        kept = piece if math.isfinite(least) and math.isfinite(most) else piece[torch.isfinite(piece)]
        if kept.numel() == 0:
            continue
        if kept is not piece:
            least, most = (float(extreme) for extreme in torch.aminmax(kept))
        kept = kept if scale == 1.0 else kept / scale
        sums.total += float(kept.sum())
        sums.square += float(torch.dot(kept, kept))
        sums.count += kept.numel()
        sums.zeros += kept.numel() - int(torch.count_nonzero(kept))
        sums.least, sums.most = min(sums.least, least / scale), max(sums.most, most / scale)
    return sums


def fan(shape: Sequence[int]) -> tuple[int, int]:
    """Fan-in and fan-out as torch.nn.init counts them; the number of entries for a vector."""
    if len(shape) < 2:
        return prod(shape), prod(shape)
    field = prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = flat.abs()
    for start in range(0, flat.numel(), _PIECE):
        yield flat[start : start + _PIECE].double()
