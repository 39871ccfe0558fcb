"""Numbers measured on the device, kept there as tensors and brought over in one transfer."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor

Keys = Sequence[Hashable]
K = TypeVar("K", bound=Hashable)
Then = Callable[[float], float]

# A float32 sum of squares is exact enough where the mean square lies in here: single squares are normal float32 numbers
# (above 1e-38) as far as they count, and the sum of 10⁸ of them is below the largest. Beyond, it is that of the entries
# times a power of two, which is exact: it makes of an RMS below 1e-18 one below 1e13, and of one above 1e14 one above
# 1e-17, and the least and the greatest float32 numbers become 1e-15 and 3e8, so that none of their squares is lost.
SAFE = (1e-36, 1e28)
FACTOR = 2.0**100
HALF = (torch.float16, torch.bfloat16)
TINY = 1 << 13  # entries up to which copying a tensor costs less than a call for it
STACKED = 1 << 17  # entries that are copied at a time: they stay in the cache
PIECE = 1 << 16  # entries that a tensor is taken in at a time where its norm needs a copy
MANY = 1 << 13  # entries from which BLAS's dot product is the faster norm, and the more exact one


@dataclass
class Ledger:
    """Tables of numbers by key. `put` takes a tensor with one number a key; `read` returns every table as floats."""

    _waiting: list[tuple[str, Keys, Tensor, Then | None]] = field(default_factory=list)
    _known: dict[str, dict[Hashable, float]] = field(default_factory=dict)

    def put(self, table: str, keys: Keys, numbers: Tensor, then: Then | None = None) -> list[float] | None:
        """Note one number a key, passed through `then` when it is read.

        They stay on the device until `read`, except on the CPU, where reading is free: from there they are given back.
        """
        if not numbers.is_cpu:
            self._waiting.append((table, keys, numbers, then))
            return None
        here: list[float] = numbers.tolist()
        self.take(table, keys, here, then)
        return here

    def note(self, table: str, key: Hashable, number: float) -> None:
        """Note a number that is already here."""
        self._known.setdefault(table, {})[key] = number

    def fill(self, table: str, keys: Keys, number: float) -> None:
        """Note the same number for every key."""
        self._known.setdefault(table, {}).update(dict.fromkeys(keys, number))

    def forget(self, *tables: str) -> None:
        """Drop what was noted in these tables so far."""
        for table in tables:
            self._known.pop(table, None)
        self._waiting = [entry for entry in self._waiting if entry[0] not in tables]

    def read(self) -> dict[str, dict[Hashable, float]]:
        """Every table. All that waits on one device comes over in one transfer."""
        devices: dict[torch.device, list[tuple[str, Keys, Tensor, Then | None]]] = {}
        for entry in self._waiting:
            devices.setdefault(entry[2].device, []).append(entry)
        for entries in devices.values():
            numbers = torch.cat([wide(numbers).reshape(-1) for _, _, numbers, _ in entries]).tolist()
            start = 0
            for table, keys, _, then in entries:
                self.take(table, keys, numbers[start : start + len(keys)], then)
                start += len(keys)
        self._waiting.clear()
        return self._known

    def take(self, table: str, keys: Iterable[Hashable], numbers: Iterable[float], then: Then | None = None) -> None:
        """Note numbers that are already here, passed through `then`."""
        known = self._known.setdefault(table, {})
        known.update(zip(keys, numbers if then is None else map(then, numbers), strict=True))


def log_rms(ledger: Ledger, table: str, key: Hashable, tensor: Tensor) -> None:
    """Note log10 RMS of one tensor; never overflows on finite entries.

    On the CPU, where reading a number is free, the float32 norm is taken, and out of SAFE that of scaled entries. On
    CUDA the sum runs in float64, as it is bound by memory anyway. Without float64 (MPS) the entries are scaled first.
    """
    if tensor.is_cpu:
        ledger.note(table, key, log10(_norm(tensor)) - 0.5 * math.log10(tensor.numel()))
    else:
        log_rms_of(ledger, table, [key], tensor.unsqueeze(0))


def log_spread(ledger: Ledger, table: str, key: Hashable, tensor: Tensor) -> None:
    """Note log10 RMS of the difference of each sample from the mean over the samples, on the CPU a piece at a time."""
    rows = tensor.flatten(1) if tensor.ndim > 1 else tensor.unsqueeze(1)
    width = max(1, PIECE // len(rows)) if rows.is_cpu else rows.shape[1]
    if rows.shape[1] <= width:
        log_rms(ledger, table, key, rows - rows.mean(0))
        return
    parts = [_norm(part - part.mean(0)) for part in torch.split(rows, width, 1)]
    ledger.note(table, key, log10(math.hypot(*parts)) - 0.5 * math.log10(rows.numel()))


def log_rms_alike(ledger: Ledger, table: str, keys: list[K], tensors: list[Tensor]) -> None:
    """Note log10 RMS of each of several tensors of one shape: of small ones together, in copies of STACKED entries."""
    size = tensors[0].numel()
    if len(keys) == 1 or (tensors[0].is_cpu and size > TINY):
        for key, tensor in zip(keys, tensors, strict=True):
            log_rms(ledger, table, key, tensor)
        return
    several = max(1, STACKED // size)
    for start in range(0, len(keys), several):
        part = slice(start, start + several)
        log_rms_of(ledger, table, keys[part], torch.stack(tensors[part]))


def alike(kept: Iterable[tuple[K, Tensor]]) -> list[tuple[list[K], list[Tensor]]]:
    """Tensors of one shape, dtype, layout and device, with their keys."""
    groups: dict[object, tuple[list[K], list[Tensor]]] = {}
    for key, tensor in kept:
        kind = (tensor.shape, tensor.dtype, tensor.layout, tensor.device)
        group = groups.get(kind)
        if group is None:
            group = groups[kind] = ([], [])
        group[0].append(key)
        group[1].append(tensor)
    return list(groups.values())


def log_rms_of(ledger: Ledger, table: str, keys: Keys, stacked: Tensor) -> None:
    """Note log10 RMS of each of the tensors stacked along the first axis.

    On the CPU from float32 norms, of scaled entries where they are not SAFE; else in float64 (MPS: scaled float32).
    """
    flat = stacked.reshape(len(keys), -1)
    if flat.is_cpu:
        note_norms(ledger, table, keys, torch.linalg.vector_norm(flat, dim=1, dtype=_single(flat)), flat)
        return
    if flat.device.type == "mps":
        scale = flat.abs().amax(1, keepdim=True).float()
        norm = torch.linalg.vector_norm(flat / torch.where(scale > 0, scale, 1.0), dim=1).log10() + scale[:, 0].log10()
    else:
        norm = torch.linalg.vector_norm(flat, dim=1, dtype=_double(flat)).abs().log10()
    ledger.put(table, keys, norm - 0.5 * math.log10(max(1, flat.shape[1])))


def note_norms(ledger: Ledger, table: str, keys: Keys, norms: Tensor, rows: Tensor) -> None:
    """Note log10 RMS of each row on the CPU from its norm, which is taken again where it is not SAFE."""
    count, found = rows[0].numel(), norms.tolist()
    low, high, less = _limits(count)
    if low < min(found) and max(found) < high:  # NaN is told by neither, and stays what it is
        ledger.take(table, keys, [math.log10(norm) - less for norm in found])
        return
    unsafe = [place for place, norm in enumerate(found) if not low < norm < high]
    again = slice(unsafe[0], unsafe[-1] + 1)
    found[again] = _rescaled(rows[again] if rows.ndim == 2 else rows[again].flatten(1), found[again])
    ledger.take(table, keys, [log10(norm) - less for norm in found])


@lru_cache
def _limits(count: int) -> tuple[float, float, float]:
    """Between which norms of so many entries are SAFE, and the decades from a norm to the RMS."""
    return math.sqrt(SAFE[0] * count), math.sqrt(SAFE[1] * count), 0.5 * math.log10(count)


def log10(value: float) -> float:
    """log10 of a number that is not negative: -inf for 0, NaN for NaN."""
    return math.log10(value) if value > 0 else -math.inf if value == 0 else math.nan


def wide(tensor: Tensor) -> Tensor:
    """The tensor in double precision, or in single where there is no double (MPS)."""
    if tensor.device.type == "mps":
        return tensor.float()
    return tensor.to(_double(tensor))


def _norm(tensor: Tensor) -> float:
    """The norm of a tensor on the CPU, a piece at a time where it is not SAFE, as scaling makes a copy."""
    norm = _fast_norm(tensor)
    if SAFE[0] < norm * norm / tensor.numel() < SAFE[1]:
        return norm
    count = tensor.numel() // PIECE + 1
    pieces = [tensor] if count == 1 else tensor.chunk(count, max(range(tensor.ndim), key=tensor.size))
    return math.hypot(*(_rescaled(piece.reshape(1, -1), [_fast_norm(piece)])[0] for piece in pieces))


def _rescaled(rows: Tensor, norms: list[float]) -> list[float]:
    """The norms of rows, taken again where the float32 ones are not SAFE."""
    if rows.dtype in (torch.float64, torch.complex128):
        return norms
    entries = rows.float() if rows.dtype in HALF else rows
    low, high, _ = _limits(rows.shape[1])
    found = norms
    if any(norm < low for norm in norms):
        found = [new if norm < low else norm for norm, new in zip(norms, _scaled(entries, FACTOR), strict=True)]
    if any(norm > high for norm in norms):
        found = [new if norm > high else norm for norm, new in zip(found, _scaled(entries, 1 / FACTOR), strict=True)]
    return found


def _scaled(rows: Tensor, factor: float) -> list[float]:
    norms: list[float] = torch.linalg.vector_norm(rows * factor, dim=1).tolist()
    return [norm / factor for norm in norms]


def _fast_norm(tensor: Tensor) -> float:
    """The norm from float32 sums."""
    if tensor.dtype is torch.float32 and tensor.numel() >= MANY and tensor.is_contiguous():
        flat = tensor.view(-1)
        return math.sqrt(torch.dot(flat, flat).item())
    return float(torch.linalg.vector_norm(tensor, dtype=_single(tensor)).item())


def _single(tensor: Tensor) -> torch.dtype | None:
    """At least single precision."""
    return torch.float32 if tensor.dtype in HALF else None


def _double(tensor: Tensor) -> torch.dtype:
    return torch.complex128 if tensor.is_complex() else torch.float64
