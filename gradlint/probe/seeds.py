"""Several seeds: when one pass is not enough to tell, and what several passes say together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from gradlint.probe.health import LIMITS, Health
from gradlint.profile import Measurement, ParamMeasure, Profile, Units

K = TypeVar("K")

# How far from a limit one seed settles the matter: two standard deviations between seeds of the statistic, as found on
# the models of benchmarks/calibration.py.
MARGIN: Mapping[str, float] = {"m": 1.0, "c": 0.5, "s": 0.5, "r": 0.0}  # r is the graph's: no seed changes it
SIGMAS = 2.0  # and several seeds: so many standard errors of their mean


def decided(healths: Sequence[Health], optimizer: str = "any") -> bool:
    """Whether further seeds could not change the verdict: every statistic keeps its distance from every limit."""
    return all(
        _clear([number for health in healths if (number := getattr(health, name)) is not None], limits, MARGIN[name])
        for name, limits in LIMITS[optimizer].items()
    )


def combine(measurements: Sequence[Measurement]) -> Measurement:
    """One measurement from those of several seeds on one graph: means of logarithms, and the deviation as `spread`.

    What is not a number (statuses, names, ops that were not finite) is that of the first seed that has it.
    """
    first = measurements[0]
    if len(measurements) == 1:
        return first
    unblocked = [m.unblocked for m in measurements if m.unblocked is not None]
    return replace(
        first,
        profile=_profile([m.profile for m in measurements]),
        params={path: _param(_present(m.params.get(path) for m in measurements)) for path in first.params},
        units={op: _units(_present(m.units.get(op) for m in measurements)) for op in first.units},
        loss_value=_mean([m.loss_value for m in measurements]),
        output_rms=_mean([m.output_rms for m in measurements]),
        output_spread=_mean([m.output_spread for m in measurements]),
        nonfinite_op=_first(m.nonfinite_op for m in measurements),
        nonfinite_gradient_op=_first(m.nonfinite_gradient_op for m in measurements),
        extremes=_extremes([m.extremes for m in measurements]),
        through_time=_through_time([m.through_time for m in measurements]),
        seeds=tuple(seed for m in measurements for seed in m.seeds),
        unblocked=combine(unblocked) if len(unblocked) == len(measurements) else first.unblocked,
    )


def _clear(numbers: list[float], limits: tuple[float, float], margin: float) -> bool:
    finite = [number for number in numbers if math.isfinite(number)]
    if len(finite) < len(numbers) or not finite:
        return True  # a statistic beyond any limit, or none at all
    if len(finite) > 1:
        margin = SIGMAS * statistics.stdev(finite) / math.sqrt(len(finite))
    return all(abs(statistics.fmean(finite) - limit) > margin for limit in limits)


def _profile(profiles: Sequence[Profile]) -> Profile:
    gradient, params = [p.gradient for p in profiles], [p.params for p in profiles]
    spread: dict[int | str, float] = {}
    for value, deviation in _merged(gradient, _deviation).items():
        spread[value] = deviation
    for path, deviation in _merged(params, _deviation).items():
        spread[path] = deviation
    return replace(
        profiles[0],
        activation=_merged([p.activation for p in profiles], _mean),
        gradient=_merged(gradient, _mean),
        params=_merged(params, _mean),
        correlation=_merged([p.correlation for p in profiles], _mean),
        spread=spread,
    )


def _param(measures: Sequence[ParamMeasure]) -> ParamMeasure:
    known = [m.elasticity for m in measures if m.elasticity is not None]
    return replace(
        measures[0],
        grad=_mean([m.grad for m in measures]),
        weight=_mean([m.weight for m in measures]),
        zero_share=_mean([m.zero_share for m in measures]),
        elasticity=_mean(known) if known else None,
    )


def _units(shares: Sequence[Units]) -> Units:
    return replace(
        shares[0],
        dead=_mean([u.dead for u in shares]),
        saturated=_mean([u.saturated for u in shares]),
        constant=_mean([u.constant for u in shares]),
    )


def _merged(tables: Sequence[Mapping[K, float]], how: Callable[[list[float]], float]) -> dict[K, float]:
    return {key: how([table[key] for table in tables if key in table]) for key in tables[0]}


def _extremes(tables: Sequence[Mapping[int, tuple[float, float]]]) -> dict[int, tuple[float, float]]:
    found = {value: [table[value] for table in tables if value in table] for value in tables[0]}
    return {value: (min(low for low, _ in bounds), max(high for _, high in bounds)) for value, bounds in found.items()}


def _through_time(tables: Sequence[Mapping[int, tuple[float, ...]]]) -> dict[int, tuple[float, ...]]:
    found = {op: [table[op] for table in tables if op in table] for op in tables[0]}
    return {op: tuple(_mean(list(step)) for step in zip(*runs, strict=False)) for op, runs in found.items()}


def _mean(numbers: Sequence[float]) -> float:
    """The mean, or the median when one of them is not finite (a seed on which a unit died does not stand for all)."""
    if all(math.isfinite(number) for number in numbers):
        return statistics.fmean(numbers)
    known = [number for number in numbers if not math.isnan(number)]
    return statistics.median_low(known) if known else math.nan


def _deviation(numbers: Sequence[float]) -> float:
    finite = [number for number in numbers if math.isfinite(number)]
    return statistics.stdev(finite) if len(finite) > 1 else 0.0


def _present(found: Iterable[K | None]) -> list[K]:
    return [item for item in found if item is not None]


def _first(found: Iterable[int | None]) -> int | None:
    return next((item for item in found if item is not None), None)
