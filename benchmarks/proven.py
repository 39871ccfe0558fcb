"""How many faulty models get a fix, how many of those are proven, and how many can be written into the source?

    python benchmarks/proven.py FOLDER [--only m010,m018]    # labels.json and one file a model; benchmarks/proven.md

A case is *proven* when the probe calls the model with the fix healthy, and `--prove` (the same function, at its own
rates) reaches half of the loss reduction of a healthy control with one of the optimisers. The batches are of a task
made for the model (see `fixes.Task`; maps get a smoothed image to predict); the reduction is counted from the loss of
an uninformed prediction, so that a model that starts at 1e20 gains nothing by that. The *general* control is one for
all: what goes in, flattened, through a layer of 64 normalised ReLU units to an output of the model's shape. The
*labelled* control is the model with the repair that its label names, as `controls.json` writes it out for the cases
that miss the general one; there it decides. A case is *written* when `--fix --unsafe-fixes` on a copy of
its file ends with an edit that stood: the file was linted again, the finding was gone and none was new.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "rules"), str(Path(__file__).parent)]

import torch
from fixes import Case, Task, corpus, main_output
from torch import Tensor, nn

from gradlint import analysis, engine, fix, registry
from gradlint.capture import run
from gradlint.capture.structure import flatten
from gradlint.config import LOSSES, Settings
from gradlint.error import GradlintError
from gradlint.finding import Finding, settled
from gradlint.fix import rounds
from gradlint.load import LoadedModel, load
from gradlint.load.model import Batch
from gradlint.probe import Training, measure, train
from gradlint.probe.isolation import copy_model
from gradlint.result import Report, TargetReport
from gradlint.serialise import from_data, to_data
from gradlint.signal import predict
from gradlint.source.target import parse

TABLE = Path(__file__).with_suffix(".md")
CONTROLS = Path(__file__).with_name("controls.json")  # case → texts of its file, and what repairs them
WIDTH = 64  # of the control's hidden layer
HALF = 0.5  # of the control's loss reduction
STEPS = (40, 250)  # at least and at most; between them as the labels' author took
WIRING = "no change of the definition that a candidate makes: a list to register, an argmax, a layer to add"

# What targets of a regression are drawn from.
RANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "any": lambda x: x,
    "unit": torch.sigmoid,
    "tanh": torch.tanh,
    "pos": torch.abs,
    "abs": torch.abs,
    "direction": lambda x: nn.functional.normalize(x, dim=-1),
}


@dataclass
class Row:
    """One case: the rule of its first fix, what was reached (share of the control's reduction), and the edit."""

    case: str
    rule: str = ""
    fix: str = ""
    healthy: bool = False
    reached: dict[str, float] | None = None  # by optimiser; the model with the fix, against the general control …
    labelled: dict[str, float] | None = None  # … and against the labelled one
    as_it_is: dict[str, float] | None = None
    written: str = ""
    refused: str = ""
    note: str = ""

    @property
    def proven(self) -> bool:
        shares = self.labelled or self.reached or {}
        return self.healthy and max(shares.values(), default=0.0) >= HALF


class Control(nn.Module):
    """What goes in, flattened, through one layer of normalised ReLU units to the model's output shape."""

    def __init__(self, inputs: list[Tensor], output: Tensor, loss: str) -> None:
        super().__init__()
        tokens = [x for x in inputs if not x.is_floating_point()]
        self.embed = nn.Embedding(max([int(x.max()) + 1 for x in tokens], default=1) + 1000, 16)
        width = sum(x[0].numel() * (1 if x.is_floating_point() else 16) for x in inputs)
        self.shape, self.loss = output.shape[1:], loss
        self.body = nn.Sequential(
            nn.Linear(width, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, math.prod(self.shape))
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        flat = [x if x.is_floating_point() else self.embed(x) for x in inputs]
        y = self.body(torch.cat([x.flatten(1) for x in flat], 1)).reshape(-1, *self.shape)
        if self.loss == "nll":
            return y.log_softmax(1)
        return y.sigmoid() if self.loss in ("bce", "nll_prob") else y


def batches(task: Task, step: int) -> Batch:
    """The step's batch: the same one for every variant."""
    task.random.manual_seed(step)
    args, kwargs, label = task.batch(step)
    return Batch(args, kwargs, target(task, label, args))


def target(task: Task, label: Tensor, args: Sequence[object]) -> Tensor:
    """What the loss compares the output with: something of the class or, for a map of the input, of the place."""
    image, shape = args[0], task.output.shape
    regressed = task.loss not in ("ce", "nll", "nll_prob")
    if regressed and isinstance(image, Tensor) and image.ndim == len(shape) == 4 and image.shape[2:] == shape[2:]:
        local = nn.functional.avg_pool2d(image.float().mean(1, keepdim=True), 3, 1, 1)
        local = ((local - local.mean()) / local.std()).expand(shape)
        return (local > 0).float() if task.loss in ("bce", "bce_logits") else RANGES[task.kind](local)
    if task.loss in ("ce", "nll", "nll_prob"):
        rest = task.output.shape[2:]
        return label.reshape(-1, *[1] * len(rest)).expand(-1, *rest)
    if task.loss in ("bce", "bce_logits"):
        return (task.vectors[label] > task.vectors.mean()).float()
    return task.vectors[label]


def trained(case: Case, row: Row, steps: int, kind: str) -> None:
    """Fill in what the probe and the training say of the case's fixes."""
    loaded, settings = case.loaded, replace(case.settings, prove=True, steps=steps, timeout=180.0)
    graph, measurement = measure(loaded, settings=settings)
    signal = predict(graph, measurement.loss)
    drafts = engine.draft(registry.select(), graph, signal, measurement, measurement.loss)
    findings = [f for f in engine.judge(drafts, graph, signal, measurement) if f.severity != "info"]
    output = main_output(run(copy_model(loaded.model, torch.device("cpu"), None), loaded.args, loaded.kwargs).output)
    task = Task(loaded, measurement.loss, output.detach())
    task.kind = kind
    task.vectors = RANGES[kind](torch.randn(task.vectors.shape, generator=task.random))
    loaded.batches = partial(batches, task)
    found = fix.prove(loaded, graph, findings, measurement, settings)
    with_fix = [f for f in found if any(not each.symptomatic for each in f.fixes)]
    if not with_fix:
        row.note = WIRING
        return
    control, label = controlled(loaded, task, settings), repaired(case, settings)
    best = max(with_fix, key=lambda f: _reach(f, task.chance, control))
    first = best.fixes[0]
    row.rule, row.fix, row.healthy = best.rule, first.title, first.measured_after.get("health") == "healthy"
    row.reached = {r.optimizer: _share(settled(r.after), task.chance, control[r.optimizer]) for r in first.trained}
    row.labelled = label and {
        r.optimizer: _share(settled(r.after), task.chance, label[r.optimizer]) for r in first.trained
    }
    row.as_it_is = {r.optimizer: _share(settled(r.before), task.chance, control[r.optimizer]) for r in first.trained}


def wanted(label: dict[str, Any]) -> str:
    """The range of the targets, which a faulty output need not have."""
    if "01" in label["loss"] or label["target"] in ("unit", "image2d", "circle"):
        return "unit"
    if label["loss"].endswith("dir"):
        return "direction"
    return label["target"] if label["target"] in RANGES else "any"


def controlled(loaded: LoadedModel, task: Task, settings: Settings) -> dict[str, float]:
    """The loss that the control comes to, by optimiser."""
    torch.manual_seed(0)
    inputs = [tensor for _, tensor in flatten((loaded.args, loaded.kwargs))]
    model = Control(inputs, task.output, task.loss)
    told = None if task.loss in ("nll_prob", "own") else task.loss
    healthy = LoadedModel(model, tuple(inputs), {}, (), "control", None, None, loaded.draw, batches=loaded.batches)
    graph, _ = measure(replace(healthy, batches=None), settings=replace(settings, loss=told))
    runs = [train(healthy, graph, Training(settings.steps, name, device="cpu", loss=told)) for name in ("sgd", "adam")]
    return {run.optimizer: settled(run.losses) for run in runs}


def repaired(case: Case, settings: Settings) -> dict[str, float] | None:
    """The loss that the model comes to with the repair that its label names; None for a case without one."""
    changes = json.loads(CONTROLS.read_text()).get(case.name)
    if changes is None:
        return None
    text = case.file.read_text(encoding="utf-8")
    for old, new in changes:
        if old not in text:
            raise ValueError(f"{case.name} has no {old!r}")
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{case.name}_repaired.py"
        path.write_text(text, encoding="utf-8")
        healthy = load(parse(f"{path}:{case.entry}"), replace(settings, prove=False))[0]
    healthy.batches = case.loaded.batches
    graph, measured = measure(replace(healthy, batches=None), settings=settings)
    told = measured.loss if measured.loss in LOSSES else None
    runs = [train(healthy, graph, Training(settings.steps, name, device="cpu", loss=told)) for name in ("sgd", "adam")]
    return {run.optimizer: settled(run.losses) for run in runs}


def _share(loss: float, chance: float, control: float) -> float:
    """The loss reduction as a share of the control's, at least 0."""
    return max(0.0, (chance - loss) / (chance - control)) if math.isfinite(loss) and control < chance else 0.0


def _reach(finding: Finding, chance: float, control: dict[str, float]) -> tuple[bool, float]:
    fix = finding.fixes[0]
    shares = [_share(settled(run.after), chance, control[run.optimizer]) for run in fix.trained]
    return fix.measured_after.get("health") == "healthy", max(shares, default=0.0)


def written(folder: Path, entry: str, case: Case, row: Row) -> None:
    """Write fixes into a copy of the file, and note what stood."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(shutil.copyfile(folder / f"{case.name}.py", Path(place) / f"{case.name}.py"))
        lint = partial(linted, f"{path}:{entry}", case.settings)
        started = time.time()
        outcome = rounds.apply(lint(), lint, started, unsafe=True)
        row.written = "; ".join(line.partition(": ")[2] for line in outcome.written)
        row.refused = "; ".join(line.partition(": ")[2] for line in outcome.refused)


def linted(text: str, settings: Settings) -> Report:
    """The report on the file as it is now, from a process of its own, as the module would stay imported."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(text, settings, theirs))
    process.start()
    data = ours.recv() if ours.poll(settings.timeout) else []
    process.join(1)
    process.kill()
    return rounds.annotate(Report(tuple(from_data(TargetReport, each) for each in data), "0"))


def _work(text: str, settings: Settings, pipe: Any) -> None:
    try:
        pipe.send([to_data(report) for report in analysis.analyse(parse(text), settings)])
    except GradlintError as error:
        print(f"   {text}: {error}", flush=True)
        pipe.send([])


def rows(folder: Path, only: set[str], parts: set[str]) -> Iterator[Row]:
    labels = json.loads((folder / "labels.json").read_text())
    for case in corpus(folder, only):
        started, row, label = time.perf_counter(), Row(case.name), labels[case.name]
        case.file, case.entry = folder / f"{case.name}.py", label["entry"]
        if "write" in parts:
            written(folder, label["entry"], case, row)
        if "train" in parts:
            try:
                trained(case, row, max(STEPS[0], min(STEPS[1], label["steps"])), wanted(label))
            except (GradlintError, RuntimeError, IndexError, ValueError, StopIteration) as error:
                row.note = f"no task for it: {type(error).__name__}: {str(error)[:80]}"
        print(f"{time.perf_counter() - started:4.0f} s  {row}", flush=True)
        yield row


def table(found: list[Row]) -> str:
    """The three shares, and a line a case."""
    total = len(found)
    proposed = [row for row in found if row.fix]
    proven, edited = [row for row in proposed if row.proven], [row for row in found if row.written]
    healthy = [row for row in proposed if row.healthy and row.reached]
    lines = [
        "# Fixes on the faulty models of the development corpus",
        "",
        "`python benchmarks/proven.py FOLDER` makes this table; its docstring says what the words mean.",
        "",
        "| | of | share |",
        "|---|---|---|",
        f"| a fix is proposed | {len(proposed)} of {total} | {_percent(len(proposed), total)} |",
        f"| of those, proven | {len(proven)} of {len(proposed)} | {_percent(len(proven), len(proposed))} |",
        f"| the edit was written and stood | {len(edited)} of {total} | {_percent(len(edited), total)} |",
        f"| the probe says healthy, and training agrees | {len(proven)} of {len(healthy)} "
        f"| {_percent(len(proven), len(healthy))} |",
        "",
        "Shares of the control's loss reduction, SGD / Adam, of the model as it is and with its best fix.",
        "The labelled control was tried for some of the cases that miss the general one, not yet for all.",
        "A training ends after 15 s of wall clock. This table was made with about fifteen processes on two cores, so",
        "that convolutions and long loops saw few of their steps. Cases with a labelled control, and m017,",
        "m075 and m146, were run again by themselves, after changes that their first run led to.",
        "",
        "| case | finding | fix | probe | as it is | with the fix | of the labelled control | proven | written |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found:
        cells = [
            row.case,
            row.rule,
            row.fix.replace("|", "\\|") or row.note,
            "healthy" if row.healthy else "–",
            _shares(row.as_it_is),
            _shares(row.reached),
            _shares(row.labelled),
            "yes" if row.proven else "no",
            "yes" if row.written else f"no{': ' + row.refused if row.refused else ''}".replace("|", "\\|"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.0%}"


def _shares(shares: dict[str, float] | None) -> str:
    return " / ".join(f"{value:.2f}" for value in shares.values()) if shares else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="comma-separated names")
    parser.add_argument("--parts", default="write,train")
    parser.add_argument("--json", type=Path, help="also append one line a row, or read them where --parts is empty")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.parts:
        found = []
        for row in rows(args.folder, set(args.only.split(",")) - {""}, set(args.parts.split(","))):
            found.append(row)
            if args.json:
                with args.json.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
    else:
        merged: dict[str, dict[str, Any]] = {}
        for line in args.json.read_text().splitlines():
            data = json.loads(line)
            known = merged.setdefault(data["case"], {})
            known.update({k: v for k, v in data.items() if v or k not in known})
        found = [Row(**data) for _, data in sorted(merged.items())]
    text = table(found)
    print(text)
    if not args.only:
        TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
