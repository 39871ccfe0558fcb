"""The rate of a short training: the best of a few by their first steps, another one where that diverges later."""

import math
from dataclasses import dataclass, field

import pytest

from gradlint.fix.rates import FEWEST, SPREAD, TIME, at_best_rate
from gradlint.probe.trace import RATES, Training
from gradlint.profile import Trace

USUAL = RATES["adam"]
ASKED = Training(100, "adam", seconds=10.0)


@dataclass
class Runs:
    """Runs whose loss falls by a factor of the rate each step, up to a step at which it is not finite."""

    fall: dict[float, float]
    breaks: dict[float, int] = field(default_factory=dict)  # by rate
    duration: float = 0.0  # seconds a step
    asked: list[Training] = field(default_factory=list)

    def __call__(self, training):
        self.asked.append(training)
        rate = training.rate
        steps = min(training.steps, int(training.seconds / self.duration) + 1 if self.duration else training.steps)
        end = min(steps, self.breaks.get(rate, steps))
        losses = [self.fall[rate] ** step for step in range(end)] + [math.nan] * (end < steps)
        return Trace("adam", rate, "made up", "ce", tuple(losses), seconds=self.duration * len(losses))


def falls(**of):
    """How fast the loss falls at a tenth of the usual rate, at that, and at ten times that."""
    return {0.1 * USUAL: of["low"], USUAL: of["usual"], 10 * USUAL: of["high"]}


@pytest.mark.parametrize("best", ["low", "usual", "high"])
def test_the_rate_whose_first_steps_come_lowest_is_trained_at(best):
    runs = Runs(falls(**{"low": 0.99, "usual": 0.99, "high": 0.99, best: 0.9}))
    found = at_best_rate(ASKED, runs)
    assert found.rate == pytest.approx({"low": 0.1, "usual": 1.0, "high": 10.0}[best] * USUAL)
    assert len(found.losses) == 100
    assert [asked.steps for asked in runs.asked] == [20, 20, 20, 100]


def test_a_rate_that_is_asked_for_is_kept():
    runs = Runs({0.5: 0.9})
    assert at_best_rate(Training(100, "adam", 0.5), runs).rate == 0.5
    assert len(runs.asked) == 1


def test_one_that_diverges_at_first_is_not_taken():
    runs = Runs(falls(low=0.99, usual=0.95, high=0.5), {10 * USUAL: 3})
    assert at_best_rate(ASKED, runs).rate == USUAL


def test_one_that_diverges_later_gives_way_to_the_next_best():
    runs = Runs(falls(low=0.99, usual=0.95, high=0.5), {10 * USUAL: 50})
    found = at_best_rate(ASKED, runs)
    assert found.rate == USUAL and found.finite
    assert [asked.rate for asked in runs.asked[len(SPREAD) :]] == [10 * USUAL, USUAL]


def test_where_all_diverge_the_best_start_is_shown():
    runs = Runs(falls(low=0.99, usual=0.9, high=0.95), dict.fromkeys(falls(low=0, usual=0, high=0), 50))
    found = at_best_rate(ASKED, runs)
    assert found.rate == USUAL and not found.finite


def test_without_time_for_a_few_steps_the_usual_rate_is_run():
    runs = Runs(falls(low=0.5, usual=0.99, high=0.5), duration=0.4)
    found = at_best_rate(ASKED, runs)
    assert found.rate == USUAL
    assert all(len(runs(asked).losses) < FEWEST for asked in runs.asked[:3])


def test_the_time_is_shared_between_the_first_runs_and_the_last():
    runs = Runs(falls(low=0.99, usual=0.9, high=0.95), duration=0.05)
    at_best_rate(ASKED, runs)
    *first, last = runs.asked
    assert all(asked.seconds == TIME * ASKED.seconds for asked in first)
    assert last.seconds == pytest.approx((1 - len(SPREAD) * TIME) * ASKED.seconds)


def test_runs_that_diverge_share_the_time_of_the_last():
    runs = Runs(falls(low=0.99, usual=0.9, high=0.95), dict.fromkeys(falls(low=0, usual=0, high=0), 50), duration=0.02)
    at_best_rate(ASKED, runs)
    seconds = [asked.seconds for asked in runs.asked[len(SPREAD) :]]
    assert seconds == pytest.approx([7.0 - i * 51 * 0.02 for i in range(3)])
