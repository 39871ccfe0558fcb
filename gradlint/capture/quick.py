"""Statistics and moments of a large float32 weight from float32 sums, in a tenth of the time of exact ones."""

from __future__ import annotations

import math
from typing import Any

import torch

from gradlint.capture.moments import VALUES_UP_TO, partial_sums, subsets
from gradlint.capture.statistics import Numbers

PIECE = 1 << 17  # entries multiplied at a time
MODERATE = (1e-12, 1e12)  # largest magnitudes whose squares, and sums of 10⁸ of them, are ordinary float32 numbers
KERNEL_UP_TO = 1 << 10  # places of a kernel: the matrices that sum it over its axes have as many rows
SPREAD = 0.03  # least variance over the mean square that float32 sums still resolve to five digits


def is_large(tensor: object) -> bool:
    """Whether this is a weight for this module: a float32 tensor of torch, with numbers, of many entries.

    What has more places after its second axis than kernels have, such as the logits of attention, is none.
    """
    if not isinstance(tensor, torch.Tensor) or tensor.dtype is not torch.float32 or tensor.is_meta:
        return False
    return tensor.numel() > VALUES_UP_TO and math.prod(tensor.shape[2:]) <= KERNEL_UP_TO


def numbers(tensor: torch.Tensor) -> Numbers | None:
    """The statistics; None where entries are not finite, extreme, or all but the same."""
    least, most = (float(extreme) for extreme in torch.aminmax(tensor))
    largest = max(abs(least), abs(most))
    if not MODERATE[0] < largest < MODERATE[1]:
        return None
    count = tensor.numel()
    mean, second = float(tensor.sum()) / count, float(torch.linalg.vector_norm(tensor)) ** 2 / count
    variance = second - mean * mean
    if variance < SPREAD * second:
        return None
    zeros = count - int(torch.count_nonzero(tensor)) if float(tensor.abs().amin()) == 0.0 else 0
    return Numbers(mean, math.sqrt(variance), math.sqrt(second), largest, zeros / count)


def products(weight: torch.Tensor) -> tuple[dict[str, float], dict[str, dict[str, Any]]]:
    """What `_matrix` gives, from float32 products with vectors of ones, a piece that stays in cache at a time."""
    kernel = tuple(weight.shape[2:])
    inside, field = weight.shape[1], math.prod(kernel)
    full = "".join(str(axis + 2) for axis in range(len(kernel)))
    picks = _selections(kernel, weight)
    together = torch.cat(list(picks.values()), 1) if field > 1 else None
    sums = dict.fromkeys((head + tail for head in ("01", "0") for tail in (full, *picks)), 0.0)
    by_column = torch.zeros(2, inside * field, dtype=torch.float64, device=weight.device)
    row_sums, row_squares = [], []
    for chunk in torch.split(weight, max(PIECE // max(inside * field, 1), 1)):
        rows = chunk.reshape(len(chunk), -1)
        by_column += torch.stack([rows.sum(0), (rows.new_ones(1, len(rows)) @ (rows * rows))[0]])
        row_squares.append(torch.linalg.vector_norm(rows, dim=1).double() ** 2)
        over_columns = rows.reshape(len(rows), inside, field).sum(1)
        row_sums.append(over_columns.double().sum(1))
        sums["01" + full] += float(row_squares[-1].sum())
        sums["0" + full] += _square(over_columns)
        if together is not None:
            widths = [pick.shape[1] for pick in picks.values()]
            for head, part in (("01", rows.reshape(-1, field)), ("0", over_columns)):
                for tail, piece in zip(picks, torch.split(part @ together, widths, dim=1), strict=True):
                    sums[head + tail] += _square(piece)
    if together is None:  # over one place there is nothing to sum
        sums |= {head + tail: sums[head + full] for head in ("01", "0") for tail in picks}
    for kept, part in partial_sums(by_column[0].reshape(inside, *kernel), keep=()).items():
        sums["".join(str(axis + 1) for axis in kept)] = float((part**2).sum())
    columns = by_column.reshape(2, inside, field).sum(2)
    rows_found = {"sum": torch.cat(row_sums), "square": torch.cat(row_squares)}
    return sums, {"rows": rows_found, "columns": {"sum": columns[0], "square": columns[1]}}


def _selections(kernel: tuple[int, ...], like: torch.Tensor) -> dict[str, torch.Tensor]:
    """By the axes kept, for every proper subset of a kernel's: a matrix of 0 and 1 that sums the flat kernel over the
    other ones.
    """
    places = torch.arange(math.prod(kernel), device=like.device).reshape(kernel)
    picks = {}
    for kept in subsets(range(len(kernel))):
        if len(kept) < len(kernel):
            width = math.prod(kernel[axis] for axis in kept)
            moved = places.permute(*kept, *(axis for axis in range(len(kernel)) if axis not in kept)).reshape(width, -1)
            pick = like.new_zeros(places.numel(), width).scatter_(0, moved.T, 1.0)
            picks["".join(str(axis + 2) for axis in kept)] = pick
    return picks


def _square(part: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(part)) ** 2
