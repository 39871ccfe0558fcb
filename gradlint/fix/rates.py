"""The learning rate at which a version of a model is trained: the best of a few, over the first part of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from gradlint.probe.trace import RATES, Training
from gradlint.profile import Trace

# Multiples of the usual rate. What suits a net differs by decades (Bengio 2012, arXiv:1206.5533, section 3.1.1), so a
# comparison of two nets at one rate is one of how that rate suits them (Choi et al. 2019, arXiv:1910.05446).
SPREAD = (1.0, 0.1, 10.0)
PART = 0.2  # of the steps, for each of them …
TIME = 0.1  # … and of the time
FEWEST = 5  # steps that a rate is judged by


def at_best_rate(training: Training, run: Callable[[Training], Trace]) -> Trace:
    """The run at the rate whose first steps come to the lowest loss, or at the one that is asked for.

    What is compared is the mean loss over the second half of the steps that all finite first runs made. Where the run
    itself diverges later on, the next best rate is taken. The usual rate alone is run where there was time for fewer
    than FEWEST steps.
    """
    if training.rate is not None:
        return run(training)
    short = replace(training, steps=max(FEWEST, round(PART * training.steps)), seconds=TIME * training.seconds)
    tried = [run(replace(short, rate=RATES[training.optimizer] * times)) for times in SPREAD]
    left, found = (1.0 - TIME * len(SPREAD)) * training.seconds, list[Trace]()
    for rate in _ranked(tried):
        found.append(run(replace(training, rate=rate, seconds=max(0.0, left))))
        left -= found[-1].seconds
        if found[-1].finite:
            return found[-1]
    return found[0]


def _ranked(tried: Sequence[Trace]) -> list[float]:
    """The rates of the runs that stayed finite, best first; the first rate alone where that cannot be told."""
    finite = [trace for trace in tried if trace.finite]
    length = min((len(trace.losses) for trace in finite), default=0)
    if length < FEWEST:
        return [tried[0].rate]
    return [trace.rate for trace in sorted(finite, key=lambda trace: _mean(trace.losses[length // 2 : length]))]


def _mean(losses: Sequence[float]) -> float:
    return math.fsum(losses) / len(losses)
