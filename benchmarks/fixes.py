"""Where the probe says that a fix works, does training agree? Every candidate of every finding is trained for a moment.

    python benchmarks/fixes.py                    # nets of the study (research/signal.md §5)
    python benchmarks/fixes.py --corpus FOLDER    # the faulty models of a folder: labels.json and one file a model

Each model is trained as it is and with each candidate, by SGD and by Adam, on a task made for it: the input is a
mixture of noise and the prototype of one of up to ten classes, the target is the class or a vector that belongs to it.
A net trains when it makes half of the drop in loss that the best variant of the same model makes. The table counts
candidates by what the probe says (helps and leaves the model healthy, or not) and by what training says.

Measured on 8 MLPs of the study (200 steps) and 16 models of the development corpus (120 steps): of the 92 candidates
that the probe calls fixed 91 train with one of the two optimizers, 85 with Adam and 74 with SGD at these rates (deep
nets without skips are slow). Of the 24 models as they are 5 train at these sizes, none of them one whose signal dies.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "rules")]

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradlint import engine, registry
from gradlint.capture import run
from gradlint.capture.structure import flatten
from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.finding import Finding
from gradlint.fix.candidate import Candidate, Rescale
from gradlint.fix.candidates import candidates
from gradlint.fix.evidence import helped
from gradlint.fix.experiment import experiment
from gradlint.fix.interventions import apply
from gradlint.fix.proof import TRIED, _tried
from gradlint.fix.trial import Laboratory, Trial
from gradlint.graph import Graph
from gradlint.load import LoadedModel, load
from gradlint.probe import measure
from gradlint.probe.health import judge
from gradlint.signal import predict
from gradlint.source.target import parse

CLASSES = 10
OPTIMIZERS = {"adam": (1e-3, 3e-3), "sgd": (1e-2, 1e-1)}
SECONDS = 5.0  # a training: fewer steps for all variants of a model that takes longer
LEAST = 60  # steps


@dataclass
class Case:
    name: str
    loaded: LoadedModel
    settings: Settings
    file: Path = Path()  # of a corpus, and the expression that makes the model
    entry: str = ""


@dataclass
class Task:
    """Batches of a made task for one model: mixtures of noise and class prototypes, and what the loss compares with."""

    loaded: LoadedModel
    loss: str
    output: Tensor
    seed: int = 0
    kind: str = "any"  # the range of a regression's targets

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        width = self.output.shape[1] if self.output.ndim > 1 else 1
        self.classes = min(CLASSES, width if self.loss in ("ce", "nll", "nll_prob") else 4)
        self.prototypes = self.loaded.draw(10_000)[0]
        self.vectors = torch.randn(self.classes, *self.output.shape[1:], generator=self.random)
        if float(self.output.min()) >= 0 and float(self.output.max()) <= 1:
            self.vectors = self.vectors.sigmoid()

    def batch(self, step: int) -> tuple[tuple[object, ...], dict[str, object], Tensor]:
        args, kwargs = self.loaded.draw(step)
        label = torch.randint(0, self.classes, (self.output.shape[0],), generator=self.random)
        mixed = tuple(self._mix(arg, prototype, label) for arg, prototype in zip(args, self.prototypes, strict=True))
        return mixed, kwargs, label

    def _mix(self, noise: object, prototype: object, label: Tensor) -> object:
        """Half noise, half the class's prototype (an entry of another draw); tokens are taken from one or the other."""
        if not isinstance(noise, Tensor) or not isinstance(prototype, Tensor) or noise.shape[:1] != label.shape:
            return noise
        own = prototype[label % prototype.shape[0]]
        if noise.is_floating_point():
            return 0.5 * noise + 0.5 * own
        keep = torch.rand(noise.shape, generator=self.random) < 0.5
        return torch.where(keep, noise, own)

    def value(self, output: Tensor, label: Tensor) -> Tensor:
        if self.loss in ("ce", "nll", "nll_prob"):
            rows = output.movedim(1, -1) if output.ndim > 2 else output
            logs = {"ce": F.log_softmax(rows, -1), "nll": rows, "nll_prob": rows.clamp_min(1e-30).log()}[self.loss]
            index = label.reshape(-1, *[1] * (rows.ndim - 1)).expand(*rows.shape[:-1], 1)
            return -logs.gather(-1, index).mean()
        if self.loss in ("bce", "bce_logits"):
            wanted = (self.vectors[label] > self.vectors.mean()).float()
            return (
                F.binary_cross_entropy_with_logits(output, wanted)
                if self.loss == "bce_logits"
                else F.binary_cross_entropy(output.clamp(0, 1), wanted)
            )
        return F.mse_loss(output, self.vectors[label])

    @property
    def chance(self) -> float:
        """The loss of an uninformed prediction."""
        if self.loss in ("ce", "nll", "nll_prob"):
            return math.log(self.classes)
        if self.loss in ("bce", "bce_logits"):
            share = (self.vectors > self.vectors.mean()).float().mean(0)
            return float(F.binary_cross_entropy(share, share))
        return float(self.vectors.var(0, unbiased=False).mean())


def train(task: Task, graph: Graph, candidate: Candidate | None, name: str, rate: float, steps: int) -> float:
    """The mean loss of the last tenth of the steps, inf when it is not finite."""
    torch.manual_seed(0)
    model = copy.deepcopy(task.loaded.model).train()
    planned = candidate.steps if candidate else ()
    applied = apply(graph, planned, 0)
    for edit in applied.edits:
        edit.function(model.get_parameter(edit.path))
    kinds = {"adam": torch.optim.Adam, "sgd": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)}
    optimizer = kinds[name]([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses: list[float] = []
    for step in range(steps):
        args, kwargs, label = task.batch(step)
        recording = run(model, args, kwargs, record=False, interventions=applied.interventions)
        if step == 0 and any(isinstance(s, Rescale) for s in planned):  # lsuv rescales once
            applied = apply(graph, [s for s in planned if not isinstance(s, Rescale)], 0)
        loss = task.value(main_output(recording.output), label)
        if not math.isfinite(float(loss.detach())):
            return math.inf
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    tail = losses[-max(1, steps // 10) :]
    return sum(tail) / len(tail)


def best(task: Task, graph: Graph, candidate: Candidate | None, steps: int) -> dict[str, float]:
    """The lowest loss by optimizer, over its learning rates."""
    return {
        name: min(train(task, graph, candidate, name, rate, steps) for rate in rates)
        for name, rates in OPTIMIZERS.items()
    }


def main_output(output: object) -> Tensor:
    return next(tensor for _, tensor in flatten(output) if tensor.is_floating_point())


@dataclass
class Row:
    case: str
    title: str
    rule: str
    said: str  # "healthy", "printed" (helps, but is not healthy) or "rejected"
    state: str
    losses: dict[str, float]
    chance: float
    trains: dict[str, bool] | None = None


def rows_of(case: Case, steps: int) -> list[Row]:
    """The model as it is and every candidate of its findings, with what the probe says and what training says."""
    graph, measurement = measure(case.loaded, settings=case.settings)
    before = Trial(measurement, judge(graph, measurement))
    signal = predict(graph, measurement.loss)
    drafts = engine.draft(registry.select(), graph, signal, measurement, measurement.loss)
    findings = [f for f in engine.judge(drafts, graph, signal, measurement) if f.severity != "info"]
    laboratory = Laboratory(case.loaded, graph, case.settings, before)
    output = main_output(run(copy.deepcopy(case.loaded.model), case.loaded.args, case.loaded.kwargs).output).detach()
    task = Task(case.loaded, measurement.loss, output)
    steps = affordable(task, graph, steps)
    base = Row(case.name, "as it is", "", "rejected", before.health.state, best(task, graph, None, steps), task.chance)
    return graded([base, *(row for row in tried(laboratory, findings, task, case.name, steps))])


def tried(laboratory: Laboratory, findings: list[Finding], task: Task, name: str, steps: int) -> Iterator[Row]:
    graph, seen = laboratory.graph, set()
    for finding in findings:
        setup = experiment(finding)
        for candidate in candidates(graph, finding, task.loss)[:TRIED]:
            if candidate.steps in seen:
                continue
            seen.add(candidate.steps)
            pair = _tried(laboratory, setup, candidate)
            if pair is None:
                continue
            good = helped(graph, finding, pair)
            said = ("healthy" if pair.after.rank == 0 else "printed") if good else "rejected"
            losses = best(task, graph, candidate, steps)
            yield Row(name, candidate.title, finding.rule, said, pair.after.health.state, losses, task.chance)


def graded(rows: list[Row]) -> list[Row]:
    floor = min(min(row.losses.values()) for row in rows)
    for row in rows:
        row.trains = {
            name: math.isfinite(loss) and (row.chance - loss) >= 0.5 * (row.chance - floor) > 1e-3
            for name, loss in row.losses.items()
        }
    return rows


def affordable(task: Task, graph: Graph, steps: int) -> int:
    started = time.perf_counter()
    train(task, graph, None, "sgd", 1e-4, 3)
    return max(LEAST, min(steps, int(3 * SECONDS / (time.perf_counter() - started))))


def corpus(folder: Path, only: set[str]) -> Iterator[Case]:
    sys.path.insert(0, str(folder.parent))
    from score import LOSSES, VALUES  # how a label's inputs and loss are written on the command line

    for name, label in sorted(json.loads((folder / "labels.json").read_text()).items()):
        if (only and name not in only) or label["severity"] in (None, "advice"):
            continue
        specs = []
        for spec in label["inputs"]:
            shape = ([label["B"]] if spec.get("batch") else []) + list(spec["shape"])
            kind, _, high = spec["gen"].partition(":")
            values = f"<{high}" if kind == "tokens" else VALUES.get(kind, "")
            specs.append(f"{spec['dtype']}{json.dumps(shape).replace(' ', '')}{values}")
        settings = Settings(inputs=tuple(specs), loss=LOSSES.get(label["loss"]), device="cpu")
        try:
            yield Case(name, load(parse(f"{folder / name}.py:{label['entry']}"), settings)[0], settings)
        except GradlintError as error:
            print(f"{name}: {error}", flush=True)


ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
STUDY = [
    *[("mlp", d, a, i) for d in (10, 25) for a, i in [("sigmoid", None), ("sigmoid", "xavier"), ("relu", 1.0)]],
    *[("mlp", 25, a, i) for a, i in [("relu", None), ("relu", 0.01), ("tanh", 1.0), ("tanh", None), ("gelu", None)]],
    *[("mlp", d, "relu", i) for d, i in [(5, 0.01), (25, 0.1), (25, 0.25)]],
    *[("cnn", 12, a, i) for a, i in [("relu", None), ("sigmoid", None), ("tanh", None), ("relu", 0.01), ("relu", 1.0)]],
    ("cnn", 5, "sigmoid", None),
]


def study(only: set[str]) -> Iterator[Case]:
    for family, depth, activation, init in STUDY:
        name = f"{family}-{depth}-{activation}-{init or 'default'}"
        if only and name not in only:
            continue
        model = network(family, depth, activation, init)
        shape = (64, 64) if family == "mlp" else (32, 1, 8, 8)

        def draw(seed: int, shape: tuple[int, ...] = shape) -> tuple[tuple[object, ...], dict[str, object]]:
            return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)),), {}

        loaded = LoadedModel(model, draw(0)[0], {}, (), name, None, None, draw)
        yield Case(name, loaded, Settings(device="cpu", loss="ce"))


def network(family: str, depth: int, activation: str, init: str | float | None) -> nn.Module:
    torch.manual_seed(0)
    act = ACTIVATIONS[activation]
    if family == "mlp":
        body = [m for _ in range(depth - 1) for m in (nn.Linear(64, 64), act())]
        model = nn.Sequential(*body, nn.Linear(64, 10))
    else:
        body = [m for i in range(depth - 1) for m in (nn.Conv2d(16 if i else 1, 16, 3, padding=1), act())]
        model = nn.Sequential(*body, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 10))
    for parameter in model.parameters():
        if init == "xavier" and parameter.ndim > 1:
            nn.init.xavier_normal_(parameter)
        elif isinstance(init, float) and parameter.ndim > 1:
            nn.init.normal_(parameter, 0, init)
    return model


def table(rows: list[Row]) -> str:
    """Candidates by what the probe says and by what training says."""
    lines = []
    for name in (*OPTIMIZERS, "either"):
        trains = [
            (row, any(row.trains.values()) if name == "either" else row.trains[name]) for row in rows if row.trains
        ]
        counts = Counter((row.said == "healthy", does) for row, does in trains)
        fixed, rest = counts[True, True] + counts[True, False], counts[False, True] + counts[False, False]
        agree = (counts[True, True] + counts[False, False]) / max(1, fixed + rest)
        said = f"said fixed: {counts[True, True]} of {fixed} train ({counts[True, True] / max(1, fixed):.0%})"
        other = f"else: {counts[False, False]} of {rest} do not ({counts[False, False] / max(1, rest):.0%})"
        lines.append(f"{name:6}  {said}   {other}   agree {agree:.0%}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", default="", help="comma-separated names")
    parser.add_argument("--json", type=Path, help="also write one line a row")
    args = parser.parse_args()
    only = set(args.only.split(",")) - {""}
    found: list[Row] = []
    for case in corpus(args.corpus, only) if args.corpus else study(only):
        started = time.perf_counter()
        try:
            rows = rows_of(case, args.steps)
        except (GradlintError, RuntimeError, IndexError, ValueError, StopIteration) as error:
            print(f"## {case.name}: no task for it ({type(error).__name__}: {str(error)[:100]})", flush=True)
            continue
        found += rows
        print(f"## {case.name}  chance {rows[0].chance:.3f}  {time.perf_counter() - started:.0f} s", flush=True)
        for row in rows:
            does = " ".join(
                f"{n} {row.losses[n]:.3f}{'+' if row.trains and row.trains[n] else '-'}" for n in row.losses
            )
            print(f"   {row.said:8} {row.state:8} {does}   {row.title}", flush=True)
        if args.json:
            with args.json.open("a") as file:
                file.writelines(json.dumps(vars(row)) + "\n" for row in rows)
    print(table([row for row in found if row.title != "as it is"]))


if __name__ == "__main__":
    main()
