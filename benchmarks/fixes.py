"""Where the probe says that a fix works, does training agree? Every candidate of every finding is trained for a moment.

    python benchmarks/fixes.py                     # nets of the study (research/signal.md §5)
    python benchmarks/fixes.py --corpus FOLDER     # the faulty models of a folder: labels.json and one file a model

Each model is trained as it is and with each candidate that `--prove` could offer, by SGD and by Adam, as `--prove`
trains: `--steps` of them, at the best of three rates each, on the batches of `exercise.Task`. A net trains when it
makes half of the drop in loss that the best variant of the same model makes. The table counts candidates by what the
probe says (helps and leaves the model healthy, or not) and by what training says. `fixes.json` keeps the rows.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "rules")]

import torch
from exercise import Case, Task, corpus, main_output
from torch import nn

from gradlint import engine, registry
from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.finding import Finding, settled
from gradlint.fix.candidates import candidates
from gradlint.fix.evidence import helped
from gradlint.fix.experiment import experiments
from gradlint.fix.proof import TRIED, _tried
from gradlint.fix.training import OPTIMIZERS, STEPS, School
from gradlint.fix.trial import Laboratory, Trial
from gradlint.load import LoadedModel
from gradlint.probe import measure
from gradlint.probe.health import judge
from gradlint.signal import predict

ROWS = Path(__file__).with_suffix(".json")
PATIENCE = 3600.0  # seconds a model: the steps are what bounds a training here
HALF, SOME = 0.5, 1e-3  # of the best variant's drop in loss, and what that drop must be


@dataclass
class Row:
    """A variant of a model: what the probe says of it, and what loss it comes to by optimiser (None: not finite)."""

    case: str
    title: str
    rule: str
    said: str  # "healthy", "printed" (helps, but is not healthy) or "rejected"
    state: str
    losses: dict[str, float | None]
    chance: float
    trains: dict[str, bool] = field(default_factory=dict)


def rows_of(case: Case, steps: int) -> list[Row]:
    """The model as it is and every candidate of its findings, with what the probe says and what training says."""
    settings = replace(case.settings, steps=steps, timeout=PATIENCE)
    graph, measurement = measure(case.loaded, settings=settings)
    before = Trial(measurement, judge(graph, measurement))
    signal = predict(graph, measurement.loss)
    drafts = engine.draft(registry.select(), graph, signal, measurement, measurement.loss)
    findings = [f for f in engine.judge(drafts, graph, signal, measurement) if f.severity != "info"]
    laboratory = Laboratory(case.loaded, graph, settings, before)
    task = Task(case.label, main_output(case.loaded))
    school = School(replace(case.loaded, batches=task.batch), graph, settings, measurement.loss)
    base = Row(case.name, "as it is", "", "rejected", before.health.state, losses(school, ()), task.chance)
    return graded([base, *tried(laboratory, findings, school, base)])


def losses(school: School, steps: tuple[object, ...]) -> dict[str, float | None]:
    """What the variant comes to; None where it cannot be trained or diverges."""
    found = {}
    for name in OPTIMIZERS:
        trace = school.trained(name, steps)
        loss = math.inf if trace is None else settled(trace.losses)
        found[name] = loss if math.isfinite(loss) else None
    return found


def tried(laboratory: Laboratory, findings: list[Finding], school: School, base: Row) -> Iterator[Row]:
    """A row for each candidate that could be measured, each change once."""
    graph, seen = laboratory.graph, set()
    for finding in findings:
        for candidate in candidates(graph, finding, school.loss)[:TRIED]:
            pair = (
                None if candidate.steps in seen else _tried(laboratory, experiments(finding, candidate)[0], candidate)
            )
            seen.add(candidate.steps)
            if pair is None:
                continue
            good = helped(graph, finding, pair)
            said = ("healthy" if pair.after.rank == 0 else "printed") if good else "rejected"
            found = losses(school, candidate.steps)
            yield Row(base.case, candidate.title, finding.rule, said, pair.after.health.state, found, base.chance)


def graded(rows: list[Row]) -> list[Row]:
    """The rows with what trains: half of the best variant's drop below the loss of a constant."""
    floor = min((loss for row in rows for loss in row.losses.values() if loss is not None), default=math.inf)
    for row in rows:
        drop = row.chance - floor
        row.trains = {
            name: loss is not None and row.chance - loss >= HALF * drop > SOME for name, loss in row.losses.items()
        }
    return rows


ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
STUDY = [
    *[("mlp", d, a, i) for d in (10, 25) for a, i in [("sigmoid", None), ("sigmoid", "xavier"), ("relu", 1.0)]],
    *[("mlp", 25, a, i) for a, i in [("relu", None), ("relu", 0.01), ("tanh", 1.0), ("tanh", None), ("gelu", None)]],
    *[("mlp", d, "relu", i) for d, i in [(5, 0.01), (25, 0.1), (25, 0.25)]],
    *[("cnn", 12, a, i) for a, i in [("relu", None), ("sigmoid", None), ("tanh", None), ("relu", 0.01), ("relu", 1.0)]],
    ("cnn", 5, "sigmoid", None),
]


def study(only: set[str]) -> Iterator[Case]:
    """The study's nets, each with batches of ten classes."""
    for family, depth, activation, init in STUDY:
        name = f"{family}-{depth}-{activation}-{init or 'default'}"
        if only and name not in only:
            continue
        shape = (64, 64) if family == "mlp" else (32, 1, 8, 8)

        def draw(seed: int, shape: tuple[int, ...] = shape) -> tuple[tuple[object, ...], dict[str, object]]:
            return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)),), {}

        loaded = LoadedModel(network(family, depth, activation, init), draw(0)[0], {}, (), name, None, None, draw)
        inputs = [{"gen": "randn", "shape": list(shape[1:]), "dtype": "float32", "batch": True}]
        label = {"loss": "ce", "target": None, "B": shape[0], "inputs": inputs}
        yield Case(name, Path(), label, loaded, Settings(device="cpu", loss="ce"))


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
        trains = [(row, any(row.trains.values()) if name == "either" else row.trains[name]) for row in rows]
        counts = Counter((row.said == "healthy", does) for row, does in trains)
        fixed, rest = counts[True, True] + counts[True, False], counts[False, True] + counts[False, False]
        agree = (counts[True, True] + counts[False, False]) / max(1, fixed + rest)
        said = f"said fixed: {counts[True, True]} of {fixed} train ({counts[True, True] / max(1, fixed):.0%})"
        other = f"else: {counts[False, False]} of {rest} do not ({counts[False, False] / max(1, rest):.0%})"
        lines.append(f"{name:6}  {said}   {other}   agree {agree:.0%}")
    return "\n".join(lines)


def main() -> None:
    """Train what is asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--only", default="", help="comma-separated names")
    parser.add_argument("--kept", action="store_true", help="print the table of the rows that are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    only = set(args.only.split(",")) - {""}
    for case in () if args.kept else corpus(args.corpus, only) if args.corpus else study(only):
        started = time.perf_counter()
        try:
            rows = rows_of(case, args.steps)
        except (GradlintError, RuntimeError, IndexError) as error:
            print(f"## {case.name}: no task for it ({type(error).__name__}: {str(error)[:100]})", flush=True)
            continue
        print(f"## {case.name}  chance {rows[0].chance:.3f}  {time.perf_counter() - started:.0f} s", flush=True)
        for row in rows:
            does = " ".join(f"{n} {_text(loss)}{'+' if row.trains[n] else '-'}" for n, loss in row.losses.items())
            print(f"   {row.said:8} {row.state:8} {does}   {row.title}", flush=True)
        keep(rows)
    print(table([row for row in read() if row.title != "as it is"]))


def read() -> list[Row]:
    """The rows that are kept."""
    return [Row(**row) for row in json.loads(ROWS.read_text())] if ROWS.exists() else []


def keep(rows: list[Row]) -> None:
    """Put a model's rows in the place of older ones."""
    others = [row for row in read() if row.case != rows[0].case]
    text = ",\n".join(json.dumps(asdict(row)) for row in [*others, *rows])
    ROWS.write_text(f"[\n{text}\n]\n", encoding="utf-8")


def _text(loss: float | None) -> str:
    return "–" if loss is None else f"{loss:.3f}"


if __name__ == "__main__":
    main()
