"""Refit the verdict: train a grid of small nets with SGD and Adam, and compare with what was said of them before.

    python benchmarks/calibration.py [--steps 250] [--jobs N] [--trained FILE] [--write benchmarks/calibration.csv]

Two say it: the probe, from one measured pass, and the static signal, from the graph and the weights alone. `--trained`
takes the training outcomes that stand in a written table and trains the other nets only.

The nets are those of `grid.py`: the grid of the trainability study, and one that fills it up around the limits. All
learn one ten-class task (a mixture of forty Gaussians in 64 dimensions). A net fails with an optimiser when none of
three learning rates takes the loss half of the way from chance to what the best net reaches.
A net within NEAR of that limit falls on either side of it by the draw: it is trained with MORE further seeds, and the
median over all of them counts. The AUC by the first seed alone stands beside it.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from grid import CLASSES, Case, cases
from torch import Tensor
from torch.nn import functional as F

from gradlint.probe import measure
from gradlint.probe.health import LIMITS, Health, grade, judge
from gradlint.signal import predict

RATES = {"sgd": (0.1, 0.01, 0.001), "adam": (3e-3, 1e-3, 1e-4)}
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params, rate: torch.optim.SGD(params, rate, momentum=0.9),
    "adam": torch.optim.Adam,
}
HALF = 0.5
NEAR, MORE = 0.15, 4  # how near to HALF a net is trained again, and with how many other weights and orders of batches
BATCH = 64
STATISTICS = ("m", "c", "s", "r")
BINS = (-math.inf, -8.0, -7.0, -6.0, -5.0, -4.5, -4.0, -3.5, -3.0, -2.0, math.inf)


@cache
def task(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Samples and labels: four clusters a class, so that no linear map separates them."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(4 * CLASSES, 64, generator=random)
    cluster = torch.randint(4 * CLASSES, (4096,), generator=random)
    samples = centres[cluster] + 0.7 * torch.randn(4096, 64, generator=random)
    return (samples - samples.mean(0)) / samples.std(0), cluster % CLASSES


@dataclass(frozen=True)
class Trained:
    """The least loss over the learning rates, by optimiser."""

    first: dict[str, float]  # with the first seed
    losses: dict[str, float]  # as a median over the seeds


@dataclass
class Row:
    name: str
    grids: frozenset[str]
    health: Health
    static: Health
    first: dict[str, float]
    losses: dict[str, float]

    def fails(self, optimiser: str, floor: float) -> bool:
        return progress(self.losses[optimiser], floor) < HALF


def progress(loss: float, floor: float) -> float:
    """The share of the way from chance to the loss of the best net."""
    return (math.log(CLASSES) - loss) / (math.log(CLASSES) - floor)


def statistics(case: Case, samples: Tensor) -> tuple[Health, Health]:
    """What one pass over one batch says, with random labels, as the probe has no others; and what the signal says."""
    held = SimpleNamespace(model=case.build(), args=(samples[:BATCH],), kwargs={}, loss="ce", loss_hint=None)
    graph, measurement = measure(held)
    return judge(graph, measurement), judge(graph, predict(graph, "ce"))


def train(case: Case, optimiser: str, rate: float, steps: int, seed: int) -> float:
    """The mean loss over the last tenth of the steps; infinite for a run that diverges."""
    samples, labels = task()
    model = case.build(seed).train()
    update = OPTIMISERS[optimiser](model.parameters(), rate)
    random = torch.Generator().manual_seed(1 + seed)
    losses: list[float] = []
    for _ in range(steps):
        pick = torch.randint(len(samples), (BATCH,), generator=random)
        loss = F.cross_entropy(model(samples[pick]), labels[pick])
        if not math.isfinite(loss.item()):
            return math.inf
        update.zero_grad()
        loss.backward()
        update.step()
        losses.append(loss.item())
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def outcomes(known: dict[str, Trained], steps: int, jobs: int) -> dict[str, Trained]:
    """The nets by name with what their training reached; those that are known already are not trained."""
    todo = [(name, optimiser) for name in cases() if name not in known for optimiser in RATES]
    with ProcessPoolExecutor(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        found = dict(zip(todo, pool.map(partial(first_of, steps=steps), todo), strict=True))
        floor = min([*found.values(), *(loss for trained in known.values() for loss in trained.first.values())])
        medians = dict(zip(todo, pool.map(partial(settled, floor=floor, steps=steps), found.items()), strict=True))
    new = {
        name: Trained(*({optimiser: losses[name, optimiser] for optimiser in RATES} for losses in (found, medians)))
        for name, _ in todo
    }
    return {name: known.get(name) or new[name] for name in cases()}


def first_of(key: tuple[str, str], steps: int) -> float:
    """The loss of a net, by name and optimiser, with the first seed."""
    name, optimiser = key
    return outcome(cases()[name][0], optimiser, steps, 0)


def settled(found: tuple[tuple[str, str], float], floor: float, steps: int) -> float:
    """The loss; the median over further seeds where it is near the limit."""
    (name, optimiser), loss = found
    if abs(progress(loss, floor) - HALF) > NEAR:
        return loss
    return median([loss, *(outcome(cases()[name][0], optimiser, steps, seed) for seed in range(1, MORE + 1))])


def outcome(case: Case, optimiser: str, steps: int, seed: int) -> float:
    """The least loss over the learning rates."""
    best = math.inf
    for rate in RATES[optimiser]:
        best = min(best, train(case, optimiser, rate, steps, seed))
        if best < 0.35 * math.log(CLASSES):  # trains: the other rates would not change that
            break
    return best


def auc(scores: list[float], fails: list[bool]) -> float:
    """The chance that a failing net has the higher score."""
    bad = [score for score, failed in zip(scores, fails, strict=True) if failed]
    good = [score for score, failed in zip(scores, fails, strict=True) if not failed]
    wins = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    return wins / max(1, len(bad) * len(good))


def error(scores: list[float], fails: list[bool]) -> float:
    """The standard error of the area (Hanley & McNeil 1982, Radiology 143: 29-36)."""
    area, bad = auc(scores, fails), sum(fails)
    good = len(fails) - bad
    two_bad, two_good = area / (2 - area), 2 * area**2 / (1 + area)  # chances that one beats two of the other kind
    spread = (bad - 1) * (two_bad - area**2) + (good - 1) * (two_good - area**2)
    return math.sqrt((area * (1 - area) + spread) / max(1, bad * good))


def report(rows: list[Row]) -> Iterable[str]:
    floor = min(loss for row in rows for loss in row.losses.values())
    yield f"{len(rows)} nets; the best one reaches a loss of {floor:.2f}"
    yield f"{'grid':7} {'nets':>4}  {'':5} {'fails':>5}  AUC probe         static            by the first seed alone"
    for grid in ("study", "limits", ""):
        inside = [row for row in rows if not grid or grid in row.grids]
        for optimiser in RATES:
            fails = [row.fails(optimiser, floor) for row in inside]
            alone = [progress(row.first[optimiser], floor) < HALF for row in inside]
            scores = [
                [health.score(optimiser) for health in healths]
                for healths in zip(*((r.health, r.static) for r in inside), strict=True)
            ]
            found = " ".join(f"{auc(each, fails):.3f} ± {error(each, fails):.3f}    " for each in scores)
            first = " ".join(f"{auc(each, alone):.3f}" for each in scores)
            yield f"{grid or 'both':7} {len(inside):4}  {optimiser:5} {sum(fails):5}  {found} {first}"
    yield from agreement(rows)
    yield "\nnets whose c, s and r are within their limits"
    yield f"{'m from':>8} {'to':>6} {'nets':>5} {'SGD fails':>10} {'Adam fails':>11}"
    others = {name: low for name, (low, _) in LIMITS["any"].items() if name != "m"}
    calm = [row for row in rows if all((getattr(row.health, name) or 0) < low for name, low in others.items())]
    for low, high in pairwise(BINS):
        inside = [row for row in calm if row.health.m is not None and low <= row.health.m < high]
        if inside:
            shares = [sum(row.fails(optimiser, floor) for row in inside) / len(inside) for optimiser in RATES]
            yield f"{low:8.1f} {high:6.1f} {len(inside):5} {shares[0]:10.0%} {shares[1]:11.0%}"
    yield f"\n{'limits':7} {'state':8} {'nets':>5} {'SGD fails':>10} {'Adam fails':>11} {'both fail':>10}"
    for limits in LIMITS:
        for state in ("error", "warning", "healthy"):
            inside = [row for row in rows if verdict(row.health, limits) == state]
            if inside:
                sgd, adam = ([row.fails(optimiser, floor) for row in inside] for optimiser in RATES)
                both = [a and b for a, b in zip(sgd, adam, strict=True)]
                shares = [sum(found) / len(inside) for found in (sgd, adam, both)]
                yield f"{limits:7} {state:8} {len(inside):5} {shares[0]:10.0%} {shares[1]:11.0%} {shares[2]:10.0%}"


def probe_of(row: Row) -> Health:
    return row.health


def static_of(row: Row) -> Health:
    return row.static


def agreement(rows: list[Row]) -> Iterable[str]:
    """How often both name the same state: by the best estimate, and where the signal commits itself."""
    for limits in LIMITS:
        same = [verdict(row.health, limits) == verdict(row.static, limits) for row in rows]
        yield f"static and probe agree ({limits:4}): {sum(same)} of {len(rows)} ({sum(same) / len(rows):.1%})"
    sure = [row for row in rows if row.static.state != "unknown"]
    same = [row.static.state == row.health.state for row in sure]
    yield f"of {len(sure)} that the static interval decides: {sum(same)} ({sum(same) / max(1, len(sure)):.1%})"
    for row in rows:
        states = verdict(row.health, "any"), verdict(row.static, "any")
        if states[0] != states[1]:
            yield f"  {row.name}: probe {states[0]}, static {states[1]} (m {row.health.m:.2f}, {row.static.m:.2f})"


def verdict(health: Health, limits: str) -> str:
    """The state under another optimiser's limits."""
    states = [grade(value, LIMITS[limits][n]) for n in STATISTICS if (value := getattr(health, n)) is not None]
    finite = "forward" not in "".join(health.reasons)
    return max(states, key=["healthy", "warning", "error"].index) if states and finite else "error"


def kept(table: Path) -> dict[str, Trained]:
    """The losses that stand in a written table."""
    with table.open(newline="") as file:
        return {
            row["net"]: Trained(*({name: float(row[prefix + name]) for name in RATES} for prefix in ("first ", "")))
            for row in csv.DictReader(file)
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=250, help="of each training; 250 as in the study")
    parser.add_argument("--jobs", type=int, default=1, help="processes that train")
    parser.add_argument("--trained", type=Path, help="a table to take training outcomes from")
    parser.add_argument("--write", type=Path, help="the table, one line a net")
    options = parser.parse_args()
    torch.set_num_threads(1)
    trained = outcomes(kept(options.trained) if options.trained else {}, options.steps, options.jobs)
    rows = [
        Row(name, grids, *statistics(case, task()[0]), trained[name].first, trained[name].losses)
        for name, (case, grids) in cases().items()
    ]
    print("\n".join(report(rows)))
    if options.write:
        write(rows, options.write)


def write(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        columns = (*RATES, *(f"first {name}" for name in RATES), *(f"static {name}" for name in STATISTICS))
        table.writerow(["net", "grid", *STATISTICS, *columns])
        for row in rows:
            probed, static = ([getattr(health, name) for name in STATISTICS] for health in (row.health, row.static))
            numbers = (*probed, *row.losses.values(), *row.first.values(), *static)
            table.writerow([row.name, " ".join(sorted(row.grids)), *("" if n is None else f"{n:.3f}" for n in numbers)])


if __name__ == "__main__":
    main()
