"""Statistics of small tensors of one shape, taken together: a call of torch costs more than their arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from gradlint.probe import units
from gradlint.probe.ledger import HALF, Ledger, log_rms_of, note_norms
from gradlint.probe.units import Function, Key


def measure(ledger: Ledger, keys: list[Key], tensors: list[Tensor], batch: int, made: Mapping[Key, Function]) -> None:
    """Note size, bounds, correlation between samples and shares of units of activations of one shape."""
    stacked = torch.stack(tensors) if len(tensors) > 1 else tensors[0].unsqueeze(0)
    several = stacked.ndim > 1 and 1 < batch == stacked.shape[1]
    rows = stacked if several and stacked.ndim == 3 else stacked.reshape(len(keys), batch if several else 1, -1)
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=2, dtype=torch.float32 if rows.dtype in HALF else None)
    entries = rows.shape[1] * rows.shape[2]
    if rows.is_cpu:
        note_norms(ledger, "activation", keys, torch.linalg.vector_norm(lengths, dim=1), rows)
    else:
        log_rms_of(ledger, "activation", keys, rows)
    if stacked.is_complex():
        return
    if several:
        ledger.put("correlation", keys, *directions(rows, lengths))
    functions = _groups(keys, made, stacked.ndim - 1)
    low, high = (stacked.amin(1), stacked.amax(1)) if functions else (stacked, stacked)
    extremes = bounds(ledger, keys, low, high)
    for function, places in functions.items():
        known, these = [keys[place] for place in places], _selection(places)
        least, most = units.gather(low[these], high[these], function)
        units.measure(ledger, known, function.name, least, most, entries)
        within = extremes and _within(extremes, places)
        units.saturation(ledger, known, partial(stacked.__getitem__, these), function, within)


def bounds(ledger: Ledger, keys: list[Key], low: Tensor, high: Tensor) -> tuple[list[float], list[float]] | None:
    """Note the least and the greatest entry of each, from those of parts of it; gives them where they are here."""
    parts = tuple(range(1, low.ndim))
    least = ledger.put("low", keys, low.amin(parts) if parts else low)
    most = ledger.put("high", keys, high.amax(parts) if parts else high)
    return None if least is None or most is None else (least, most)


def correlation(ledger: Ledger, keys: list[Key], tensors: list[Tensor]) -> None:
    """Note the mean cosine between different samples of each tensor (samples, …)."""
    stacked = torch.stack(tensors).flatten(2)
    rows = stacked.float() if stacked.dtype in HALF else stacked
    ledger.put("correlation", keys, *directions(rows, torch.linalg.vector_norm(rows, dim=2)))


def directions(rows: Tensor, lengths: Tensor) -> tuple[Tensor, Callable[[float], float]]:
    """The length of the sum of the samples' directions, and how the mean cosine between them follows from it.

    `rows` is (tensors, samples, features), `lengths` (tensors, samples). ‖Σu‖² = n + Σ over pairs of cosines, for n
    unit vectors. NaN where a sample is zero.
    """
    count = rows.shape[1]
    exact = rows if rows.dtype == lengths.dtype else rows.to(lengths.dtype)
    total = torch.bmm(lengths.reciprocal().unsqueeze(1), exact)
    length: Tensor = torch.linalg.vector_norm(total, dim=(1, 2))
    return length, lambda found: (found * found - count) / (count * (count - 1))


def _within(extremes: tuple[list[float], list[float]], places: list[int]) -> tuple[float, float]:
    """The least and the greatest entry of all these tensors."""
    least, most = extremes
    return min(least[place] for place in places), max(most[place] for place in places)


def _groups(keys: list[Key], made: Mapping[Key, Function], dims: int) -> dict[Function, list[int]]:
    """The places in `keys` of the outputs of each activation, where they have the axes that the graph says."""
    found: dict[Function, list[int]] = {}
    for place, key in enumerate(keys):
        function = made.get(key)
        if function is not None and function.dims == dims:
            found.setdefault(function, []).append(place)
    return found


def _selection(places: list[int]) -> slice | list[int]:
    """These rows; without a copy where they are equally far apart, as those of alternating layers are."""
    step = places[1] - places[0] if len(places) > 1 else 1
    if places == list(range(places[0], places[-1] + 1, step)):
        return slice(places[0], places[-1] + 1, step)
    return places
