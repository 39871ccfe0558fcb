"""Numbers measured on the device, kept there as tensors and brought over in one transfer."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

Keys = Sequence[Hashable]
K = TypeVar("K", bound=Hashable)

# A float32 sum of squares is exact enough between these norms: 1e-15² is far above the smallest float32 even when it is
# spread over 10⁸ entries, and 1e18² is below the largest. Beyond them the norm is taken again in float64.
SAFE = (1e-15, 1e18)
HALF = (torch.float16, torch.bfloat16)


@dataclass
class Ledger:
    """Tables of numbers by key. `put` takes a tensor with one number a key; `read` returns every table as floats."""

    _waiting: list[tuple[str, Keys, Tensor]] = field(default_factory=list)
    _known: dict[str, dict[Hashable, float]] = field(default_factory=dict)

    def put(self, table: str, keys: Keys, numbers: Tensor) -> None:
        """Note one number a key; they stay on the device until `read`, except on the CPU, where reading is free."""
        if numbers.device.type == "cpu":
            self._known.setdefault(table, {}).update(zip(keys, numbers.tolist(), strict=True))
        else:
            self._waiting.append((table, keys, numbers))

    def note(self, table: str, key: Hashable, number: float) -> None:
        """Note a number that is already here."""
        self._known.setdefault(table, {})[key] = number

    def read(self) -> dict[str, dict[Hashable, float]]:
        """Every table. All that waits on one device comes over in one transfer."""
        devices: dict[torch.device, list[tuple[str, Keys, Tensor]]] = {}
        for entry in self._waiting:
            devices.setdefault(entry[2].device, []).append(entry)
        for entries in devices.values():
            numbers = torch.cat([wide(numbers).reshape(-1) for _, _, numbers in entries]).tolist()
            start = 0
            for table, keys, _ in entries:
                self._known.setdefault(table, {}).update(zip(keys, numbers[start : start + len(keys)], strict=True))
                start += len(keys)
        self._waiting.clear()
        return self._known


def log_rms(ledger: Ledger, table: str, key: Hashable, tensor: Tensor) -> None:
    """Note log10 RMS of one tensor; never overflows on finite entries.

    On the CPU, where reading a number is free, the float32 norm is taken and only out of SAFE a float64 one. On CUDA
    the sum runs in float64, as it is bound by memory anyway. Without float64 (MPS) the entries are scaled first.
    """
    size = 0.5 * math.log10(tensor.numel())
    if tensor.device.type == "cpu":
        norm = float(_fast_norm(tensor))
        if not SAFE[0] < norm < SAFE[1]:
            norm = _exact_norm(tensor)
        ledger.note(table, key, log10(norm) - size)
    else:
        log_rms_of(ledger, table, [key], tensor.unsqueeze(0))


def alike(kept: Iterable[tuple[K, Tensor]]) -> list[tuple[list[K], Tensor]]:
    """Tensors of one shape, dtype and device stacked along a new first axis, with their keys."""
    groups: dict[object, tuple[list[K], list[Tensor]]] = {}
    for key, tensor in kept:
        keys, tensors = groups.setdefault((tensor.shape, tensor.dtype, tensor.device), ([], []))
        keys.append(key)
        tensors.append(tensor)
    return [(keys, torch.stack(tensors)) for keys, tensors in groups.values()]


def log_rms_of(ledger: Ledger, table: str, keys: Keys, stacked: Tensor) -> None:
    """Note log10 RMS of each of the tensors stacked along the first axis.

    On the CPU from float32 norms where all of them are SAFE; else in float64 (MPS: scaled float32).
    """
    flat = stacked.reshape(len(keys), -1)
    if flat.device.type == "cpu" and flat.dtype is torch.float32:
        norms = torch.linalg.vector_norm(flat, dim=1).tolist()
        if min(norms) > SAFE[0] and max(norms) < SAFE[1]:
            size = 0.5 * math.log10(max(1, flat.shape[1]))
            for key, norm in zip(keys, norms, strict=True):
                ledger.note(table, key, math.log10(norm) - size)
            return
    if flat.device.type == "mps":
        scale = flat.abs().amax(1, keepdim=True).float()
        norm = torch.linalg.vector_norm(flat / torch.where(scale > 0, scale, 1.0), dim=1).log10() + scale[:, 0].log10()
    else:
        norm = torch.linalg.vector_norm(flat, dim=1, dtype=_double(flat)).abs().log10()
    ledger.put(table, keys, norm - 0.5 * math.log10(max(1, flat.shape[1])))


def log10(value: float) -> float:
    """log10 of a number that is not negative: -inf for 0, NaN for NaN."""
    return math.log10(value) if value > 0 else -math.inf if value == 0 else math.nan


def wide(tensor: Tensor) -> Tensor:
    """The tensor in double precision, or in single where there is no double (MPS)."""
    if tensor.device.type == "mps":
        return tensor.float()
    return tensor.to(_double(tensor))


def _fast_norm(tensor: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, dtype=torch.float32 if tensor.dtype in HALF else None)
    return norm


def _exact_norm(tensor: Tensor) -> float:
    return abs(complex(torch.linalg.vector_norm(tensor, dtype=_double(tensor))))


def _double(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64
