"""Statistics of parameters: float64, in pieces, so that nothing overflows and no tensor is copied whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import torch

from gradlint.capture.arguments import dtype_name
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
    """The parameter's entry of the graph; `fans` overrides what its shape says of (fan_in, fan_out)."""
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
    )


def measure(tensor: torch.Tensor) -> Numbers:
    """Mean, standard deviation, RMS, largest magnitude and share of zeros, of the finite entries."""
    if tensor.is_meta or tensor.numel() == 0:
        return Numbers()
    scale = _largest(tensor)
    if scale == 0.0:
        return Numbers(0.0, 0.0, 0.0, 0.0, 1.0, _all_finite(tensor))
    total = square = 0.0
    count = zeros = 0
    for piece in _pieces(tensor):
        kept = piece[torch.isfinite(piece)] / scale
        total, square = total + float(kept.sum()), square + float(kept.square().sum())
        count, zeros = count + kept.numel(), zeros + int((kept == 0).sum())
    mean, second = total / count, square / count
    std = math.sqrt(max(second - mean * mean, 0.0))
    finite = count == tensor.numel()
    return Numbers(mean * scale, std * scale, math.sqrt(second) * scale, scale, zeros / count, finite)


def fan(shape: Sequence[int]) -> tuple[int, int]:
    """Fan-in and fan-out as torch.nn.init counts them; the number of entries for a vector."""
    if len(shape) < 2:
        return prod(shape), prod(shape)
    field = prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _largest(tensor: torch.Tensor) -> float:
    largest = 0.0
    for piece in _pieces(tensor):
        kept = piece[torch.isfinite(piece)]
        largest = max(largest, float(kept.abs().max()) if kept.numel() else 0.0)
    return largest


def _all_finite(tensor: torch.Tensor) -> bool:
    return all(bool(torch.isfinite(piece).all()) for piece in _pieces(tensor))


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = flat.abs()
    for start in range(0, flat.numel(), _PIECE):
        yield flat[start : start + _PIECE].double()
