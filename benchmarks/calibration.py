"""Refit the verdict: train a grid of small nets with SGD and Adam, and compare with what was said of them before.

    python benchmarks/calibration.py [--steps 150] [--trained FILE] [--write benchmarks/calibration.csv]

Two say it: the probe, from one measured pass, and the static signal, from the graph and the weights alone. `--trained`
takes the training outcomes from a written table instead of training anew.

The grid is the one of the trainability study, thinned to run in minutes on one core and filled up around the limits:
MLPs, convolutions and transformers of many depths, activations, initialisations, norms and skips, on one ten-class task
(a mixture of forty Gaussians in 64 dimensions, seen as an 8×8 image where that is asked for). A net fails with an
optimiser when none of three learning rates takes the loss half of the way from chance to what the best net reaches.
A net within NEAR of that limit falls on either side of it by the draw: it is trained with MORE further seeds, and the
median over all of them counts. The AUC by the first seed alone stands beside it.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.probe import measure
from gradlint.probe.health import LIMITS, Health, grade, judge
from gradlint.signal import predict

RATES = {"sgd": (0.1, 0.01, 0.001), "adam": (3e-3, 1e-3, 1e-4)}
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params, rate: torch.optim.SGD(params, rate, momentum=0.9),
    "adam": torch.optim.Adam,
}
ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}
HALF = 0.5
NEAR, MORE = 0.15, 4  # how near to HALF a net is trained again, and with how many other weights and orders of batches
BATCH, WIDTH, CLASSES = 64, 64, 10
STATISTICS = ("m", "c", "s", "score")
BINS = (-math.inf, -8.0, -7.0, -6.0, -5.0, -4.5, -4.0, -3.5, -3.0, -2.0, math.inf)


def task(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Samples and labels: four clusters a class, so that no linear map separates them."""
    random = torch.Generator().manual_seed(seed)
    centres = torch.randn(4 * CLASSES, 64, generator=random)
    cluster = torch.randint(4 * CLASSES, (4096,), generator=random)
    samples = centres[cluster] + 0.7 * torch.randn(4096, 64, generator=random)
    return (samples - samples.mean(0)) / samples.std(0), cluster % CLASSES


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def initialise(model: nn.Module, init: str) -> nn.Module:
    gains = {"he": math.sqrt(2), "lecun": 1.0, "tanh": 5 / 3, "x2": 2.0, "x3": 3.0}
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and init != "default":
            fan_in = module.weight[0].numel()
            std = gains[init] / math.sqrt(fan_in) if init in gains else float(init)
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return model


def mlp(depth: int, activation: str, *, init: str = "default", norm: str = "", skip: bool = False) -> nn.Module:
    def layer(inside: int) -> list[nn.Module]:
        norms = {"bn": nn.BatchNorm1d, "ln": nn.LayerNorm}
        return [nn.Linear(inside, WIDTH), *([norms[norm](WIDTH)] if norm else []), ACTIVATIONS[activation]()]

    hidden = [nn.Sequential(*layer(WIDTH)) for _ in range(depth - 2)]
    blocks = [Residual(block) for block in hidden] if skip else hidden
    return initialise(nn.Sequential(*layer(64), *blocks, nn.Linear(WIDTH, CLASSES)), init)


def cnn(depth: int, activation: str, *, init: str = "default", norm: str = "", skip: bool = False) -> nn.Module:
    def layer(inside: int) -> list[nn.Module]:
        norms = [nn.BatchNorm2d(16)] if norm else []
        return [nn.Conv2d(inside, 16, 3, padding=1), *norms, ACTIVATIONS[activation]()]

    hidden = [nn.Sequential(*layer(16)) for _ in range(depth - 2)]
    blocks = [Residual(block) for block in hidden] if skip else hidden
    head = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, CLASSES)]
    return initialise(nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *layer(1), *blocks, *head), init)


def transformer(depth: int, activation: str, *, init: str = "default", norm: str = "", skip: bool = False) -> nn.Module:
    layers = [
        nn.TransformerEncoderLayer(32, 4, 64, 0.0, activation, batch_first=True, norm_first=norm == "pre")
        for _ in range(depth)
    ]
    tail = [nn.LayerNorm(32)] if norm == "pre" else []
    return nn.Sequential(
        nn.Unflatten(1, (8, 8)), nn.Linear(8, 32), *layers, *tail, nn.Flatten(), nn.Linear(256, CLASSES)
    )


@dataclass(frozen=True)
class Case:
    make: Callable[..., nn.Module]
    depth: int
    activation: str
    options: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        parts = [self.make.__name__, str(self.depth), self.activation]
        return " ".join(parts + [key if value is True else str(value) for key, value in self.options.items()])

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.make(self.depth, self.activation, **self.options)


def cases() -> Iterator[Case]:
    for depth in (2, 3, 4, 5, 6, 8, 16):
        yield Case(mlp, depth, "sigmoid")
    for activation, depths in {
        "tanh": (3, 8, 12, 16, 24),
        "relu": (4, 6, 8, 10, 12, 16, 24),
        "gelu": (4, 8, 12, 16),
    }.items():
        yield from (Case(mlp, depth, activation) for depth in depths)
    for depth in (10, 24):
        yield Case(mlp, depth, "relu", {"init": "he"})
        yield Case(mlp, depth, "tanh", {"init": "lecun"})
        yield Case(mlp, depth, "sigmoid", {"init": "lecun"})
        for init in ("0.01", "0.1", "1.0", "x2"):
            yield Case(mlp, depth, "relu", {"init": init})
        yield Case(mlp, depth, "tanh", {"init": "1.0"})
        yield Case(mlp, depth, "tanh", {"init": "x3"})
        for activation in ("sigmoid", "relu"):
            yield Case(mlp, depth, activation, {"norm": "bn"})
            yield Case(mlp, depth, activation, {"norm": "ln"})
            yield Case(mlp, depth, activation, {"skip": True})
            yield Case(mlp, depth, activation, {"norm": "bn", "skip": True})
    for init, depths in {"0.01": (3, 4, 5), "0.03": (5, 7), "1.0": (3, 5)}.items():
        yield from (Case(mlp, depth, "relu", {"init": init}) for depth in depths)
    for depth in (4, 6, 9, 14):
        yield Case(cnn, depth, "relu")
    for depth in (4, 9):
        yield Case(cnn, depth, "sigmoid")
        yield Case(cnn, depth, "relu", {"norm": "bn", "skip": True})
        yield Case(cnn, depth, "relu", {"init": "he"})
        yield Case(transformer, depth, "relu", {"norm": "pre"})
        yield Case(transformer, depth, "relu")


@dataclass
class Row:
    name: str
    health: Health
    static: Health
    first: dict[str, float]  # the least loss over the learning rates, with the first seed
    losses: dict[str, float]  # the same as a median over the seeds

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


def train(case: Case, optimiser: str, rate: float, data: tuple[Tensor, Tensor], steps: int, seed: int) -> float:
    """The mean loss over the last tenth of the steps; infinite for a run that diverges."""
    samples, labels = data
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


def outcomes(data: tuple[Tensor, Tensor], steps: int) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Of every net the losses with the first seed, and their medians over the seeds."""
    found = [{name: outcome(case, name, data, steps, 0) for name in RATES} for case in cases()]
    floor = min(loss for losses in found for loss in losses.values())
    for case, first in zip(cases(), found, strict=True):
        yield first, {name: settled(case, name, loss, floor, data, steps) for name, loss in first.items()}


def settled(case: Case, optimiser: str, loss: float, floor: float, data: tuple[Tensor, Tensor], steps: int) -> float:
    """The loss; the median over further seeds where it is near the limit."""
    if abs(progress(loss, floor) - HALF) > NEAR:
        return loss
    return median([loss, *(outcome(case, optimiser, data, steps, seed) for seed in range(1, MORE + 1))])


def outcome(case: Case, optimiser: str, data: tuple[Tensor, Tensor], steps: int, seed: int) -> float:
    """The least loss over the learning rates."""
    best = math.inf
    for rate in RATES[optimiser]:
        best = min(best, train(case, optimiser, rate, data, steps, seed))
        if best < 0.35 * math.log(CLASSES):  # trains: the other rates would not change that
            break
    return best


def auc(scores: list[float], fails: list[bool]) -> float:
    """The chance that a failing net has the higher score."""
    bad = [score for score, failed in zip(scores, fails, strict=True) if failed]
    good = [score for score, failed in zip(scores, fails, strict=True) if not failed]
    wins = sum((b > g) + 0.5 * (b == g) for b in bad for g in good)
    return wins / max(1, len(bad) * len(good))


def report(rows: list[Row]) -> Iterable[str]:
    floor = min(loss for row in rows for loss in row.losses.values())
    yield f"{len(rows)} nets; the best one reaches a loss of {floor:.2f}"
    for optimiser in RATES:
        fails = [row.fails(optimiser, floor) for row in rows]
        probed, static = (auc([each(row).score for row in rows], fails) for each in (probe_of, static_of))
        yield f"{optimiser:5} fails {sum(fails):3}   AUC probe {probed:.3f}   static {static:.3f}"
        alone = [progress(row.first[optimiser], floor) < HALF for row in rows]
        probed, static = (auc([each(row).score for row in rows], alone) for each in (probe_of, static_of))
        yield f"      fails {sum(alone):3}   AUC probe {probed:.3f}   static {static:.3f}   by the first seed alone"
    yield from agreement(rows)
    yield "\nnets whose c and s are within their limits"
    yield f"{'m from':>8} {'to':>6} {'nets':>5} {'SGD fails':>10} {'Adam fails':>11}"
    calm = [row for row in rows if (row.health.c or 0) < 2 and (row.health.s or 0) < 1.5 and row.health.m is not None]
    for low, high in pairwise(BINS):
        inside = [row for row in calm if low <= row.health.m < high]
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
    states = [grade(value, LIMITS[limits][n]) for n in ("m", "c", "s") if (value := getattr(health, n)) is not None]
    finite = "forward" not in "".join(health.reasons)
    return max(states, key=["healthy", "warning", "error"].index) if states and finite else "error"


def kept(table: Path) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """The losses that stand in a written table, as `outcomes` gives them."""
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            losses = ({name: float(row[prefix + name]) for name in OPTIMISERS} for prefix in ("first ", ""))
            yield next(losses), next(losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--trained", type=Path, help="a table to take the training outcomes from")
    parser.add_argument("--write", type=Path, help="the table, one line a net")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = task()
    losses = kept(options.trained) if options.trained else outcomes(data, options.steps)
    rows = [Row(case.name, *statistics(case, data[0]), *found) for case, found in zip(cases(), losses, strict=True)]
    print("\n".join(report(rows)))
    if options.write:
        with options.write.open("w", newline="") as file:
            table = csv.writer(file)
            trained = (*OPTIMISERS, *(f"first {name}" for name in OPTIMISERS))
            table.writerow(["net", *STATISTICS, *trained, *(f"static {name}" for name in STATISTICS)])
            for row in rows:
                probed, static = ([getattr(h, name) for name in STATISTICS] for h in (row.health, row.static))
                numbers = (*probed, *row.losses.values(), *row.first.values(), *static)
                table.writerow([row.name, *("" if n is None else f"{n:.3f}" for n in numbers)])


if __name__ == "__main__":
    main()
