"""How many faulty models get a fix, how many of those are proven, and how many can be written into the source?

    python benchmarks/proven.py FOLDER [--only m010,m018] [--parts train,write]    # labels.json and one file a model
    python benchmarks/proven.py                                                    # the table of the rows that are kept

Rows are kept in `proven.json`, so that a part can be run again; the table of all is `proven.md`. FOLDER is a corpus,
or `benchmarks/repairs`: fifteen models written for this test alone. Of those one was not proven at first
(`loud_recurrence`: an exploding recurrence was not offered an orthogonal one); it is no unseen case any more.

A fix is *proven* when the probe calls the model with it healthy, and `--prove` reaches half of the loss reduction of
the healthy control with one of the optimisers. The control is the same model with the repair that its label names, as
`controls.json` beside it or here spells it out. All versions are trained by the same function, as `--prove` trains:
STEPS steps, each at the best of its three rates, on the same fresh batches of a task made for the model
(`exercise.py`); by SGD only where Adam does not show every fix of the model to work. The reduction is counted from the
loss of the best constant prediction, so that neither a loss that starts at 1e20 nor learning the mean of the targets
counts. Where the control itself does not get LEARNS of the way from there to 0, the case is *undecided*: what it was
to be compared with is not known.

A case is *written* when `--fix --unsafe-fixes` on a copy of its file ends with an edit that stood: the file was linted
again, the finding was gone and none was new.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "rules"), str(Path(__file__).parent)]

import torch
from exercise import Case, Task, corpus, main_output

from gradlint import analysis, engine, fix, registry
from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.finding import Finding, settled
from gradlint.fix import rounds, training
from gradlint.fix.training import OPTIMIZERS, STEPS, School
from gradlint.load import LoadedModel, load
from gradlint.probe import measure
from gradlint.result import Report, TargetReport
from gradlint.serialise import from_data, to_data
from gradlint.signal import predict
from gradlint.source.target import parse

TABLE, ROWS = Path(__file__).with_suffix(".md"), Path(__file__).with_suffix(".json")
CONTROLS = Path(__file__).with_name("controls.json")  # case → texts of its file, and what repairs them
HALF = 0.5  # of the control's loss reduction
LEARNS = 0.1  # of the loss of a constant prediction: what a control takes off it
PATIENCE = 3600.0  # seconds a model: the steps are what bounds a training here
WIRING = "no change of the definition that a candidate makes"

Losses = dict[str, float | None]  # by optimiser; None: not finite


@dataclass
class Put:
    """A fix that was put to the test: the loss with it, and at which rates."""

    rule: str
    title: str
    health: str
    losses: Losses
    rates: dict[str, float]


@dataclass
class Row:
    """One case: its fixes, the losses they are compared by, and the edit that was written."""

    group: str
    case: str
    commit: str = ""
    batch: int = 0
    chance: float | None = None
    control: Losses = field(default_factory=dict)
    as_it_is: Losses = field(default_factory=dict)
    fixes: list[Put] = field(default_factory=list)
    written: str = ""
    refused: str = ""
    written_at: str = ""  # the commit of that, where the part was run by itself
    note: str = ""
    seconds: float = 0.0

    @property
    def decided(self) -> list[str]:
        """The optimisers with which the control learns."""
        if self.chance is None:
            return []
        found = {name: loss for name, loss in self.control.items() if loss is not None}
        return [name for name, loss in found.items() if self.chance - loss >= LEARNS * abs(self.chance)]

    def shares(self, losses: Losses) -> dict[str, float]:
        """The loss reduction as a share of the control's, at least 0, by optimiser with which that learns."""
        return {name: self._share(losses.get(name), self.control[name]) for name in self.decided}

    def _share(self, loss: float | None, control: float | None) -> float:
        assert self.chance is not None and control is not None
        return 0.0 if loss is None else max(0.0, (self.chance - loss) / (self.chance - control))

    def trains(self, losses: Losses) -> bool:
        """Whether half of the control's reduction is reached."""
        return max(self.shares(losses).values(), default=0.0) >= HALF

    @property
    def best(self) -> Put | None:
        """The fix that a user sees proven: the first that is healthy and trains, else the first."""
        good = [put for put in self.fixes if put.health == "healthy" and self.trains(put.losses)]
        return next(iter([*good, *self.fixes]), None)

    @property
    def state(self) -> str:
        """Proven: yes, no, or undecided; empty without a fix."""
        if self.best is None:
            return ""
        if not self.decided:
            return "undecided"
        return "yes" if self.best.health == "healthy" and self.trains(self.best.losses) else "no"


def trained(case: Case, row: Row) -> None:
    """Fill in what the probe and the training say of the case's fixes."""
    loaded, settings = case.loaded, replace(case.settings, steps=STEPS, timeout=PATIENCE)
    task = Task(case.label, main_output(loaded))
    row.batch, row.chance = case.label["B"], task.chance
    loaded.target = suited(settings, task)
    graph, measurement = measure(loaded, settings=settings)
    signal = predict(graph, measurement.loss)
    drafts = engine.draft(registry.select(), graph, signal, measurement, measurement.loss)
    findings = [f for f in engine.judge(drafts, graph, signal, measurement) if f.severity != "info"]
    loaded.batches = task.batch
    for name in ("adam", "sgd"):
        with patch.object(training, "OPTIMIZERS", (name,)):
            found = fix.prove(loaded, graph, findings, measurement, replace(settings, prove=True))
        row.fixes = list(_joined(row.fixes, list(_put(found))))
        row.as_it_is |= _as_it_is(found)
        if not row.fixes:
            row.note = WIRING
            return
        row.control |= controlled(case, task, replace(settings, loss=case.settings.loss or measurement.loss), name)
        if all(row.trains(put.losses) for put in row.fixes):
            return


def suited(settings: Settings, task: Task) -> object:
    """A target for a loss of the label's own, as its user's data would hold; gradlint draws those of the others."""
    return task.batch(0).target if ":" in (settings.loss or "") else None


def _put(found: list[Finding]) -> Iterator[Put]:
    """The first fix of every finding that has one which was trained, each change once."""
    seen = set[str]()
    for finding in found:
        for each in finding.fixes[:1]:
            if each.trained and not each.symptomatic and each.title not in seen:
                seen.add(each.title)
                losses = {run.optimizer: _finite(settled(run.after)) for run in each.trained}
                rates = {run.optimizer: run.rate for run in each.trained}
                yield Put(finding.rule, each.title, str(each.measured_after.get("health")), losses, rates)


def _joined(first: list[Put], second: list[Put]) -> Iterator[Put]:
    """The fixes with what both optimisers make of them."""
    known = {put.title: put for put in first}
    for put in second:
        old = known.get(put.title, put)
        yield replace(put, losses=old.losses | put.losses, rates=old.rates | put.rates)


def _as_it_is(found: list[Finding]) -> Losses:
    runs = [run for finding in found for each in finding.fixes[:1] for run in each.trained]
    return {run.optimizer: _finite(settled(run.before)) for run in runs}


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None


def controlled(case: Case, task: Task, settings: Settings, name: str) -> Losses:
    """The loss that the healthy control comes to with an optimiser."""
    healthy = control(case, settings)
    healthy.target = suited(settings, task)
    graph, measured = measure(healthy, settings=settings)
    healthy.batches = task.batch
    trace = School(healthy, graph, settings, measured.loss).trained(name, ())
    return {} if trace is None else {name: _finite(settled(trace.losses))}


def control(case: Case, settings: Settings) -> LoadedModel:
    """The model with the repair that its label names."""
    text, beside = case.file.read_text(encoding="utf-8"), case.file.with_name(CONTROLS.name)
    for old, new in json.loads((beside if beside.exists() else CONTROLS).read_text())[case.name]:
        if old not in text:
            raise ValueError(f"{case.name} has no {old!r}")
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"{case.name}_repaired.py"
        path.write_text(text, encoding="utf-8")
        return load(parse(f"{path}:{case.label['entry']}"), settings)[0]


def written(case: Case, row: Row) -> None:
    """Write fixes into a copy of the file, and note what stood."""
    with tempfile.TemporaryDirectory() as place:
        path = Path(shutil.copyfile(case.file, Path(place) / case.file.name))
        lint = partial(linted, f"{path}:{case.label['entry']}", case.settings)
        outcome = rounds.apply(lint(), lint, time.time(), unsafe=True)
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


def run(folder: Path, only: set[str], parts: set[str], known: dict[str, Row]) -> Iterator[Row]:
    """The rows of the cases, the parts that are not asked for as they were known."""
    for case in corpus(folder, only):
        started, old = time.perf_counter(), known.get(f"{folder.name}/{case.name}", Row(folder.name, case.name))
        row = replace(old) if "train" not in parts else Row(folder.name, case.name, commit())
        row.written, row.refused, row.written_at = old.written, old.refused, old.written_at or old.commit
        if "write" in parts:
            written(case, row)
            row.written_at = commit()
        if "train" in parts:
            try:
                trained(case, row)
            except (GradlintError, RuntimeError, IndexError) as error:
                row.note = f"no task for it: {type(error).__name__}: {str(error)[:80]}"
            row.seconds = round(time.perf_counter() - started, 1)
        yield row


def commit() -> str:
    """The commit that last touched what decides a row, with a + where files differ from it."""
    paths = ["--", "gradlint", "rules", *(f"benchmarks/{name}.py" for name in ("exercise", "labelled", "proven"))]
    told = [
        subprocess.run(["git", *command, *paths], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        for command in (["log", "-1", "--format=%h"], ["status", "--porcelain"])
    ]
    return told[0] + ("+" if told[1] else "")


def read() -> dict[str, Row]:
    """The rows that are kept, by group and case."""
    data = json.loads(ROWS.read_text()) if ROWS.exists() else []
    rows = [Row(**{**each, "fixes": [Put(**put) for put in each["fixes"]]}) for each in data]
    return {f"{row.group}/{row.case}": row for row in rows}


def keep(row: Row) -> None:
    """Put the row in the place of an older one."""
    rows = read() | {f"{row.group}/{row.case}": row}
    text = ",\n".join(json.dumps(asdict(rows[key])) for key in sorted(rows))
    ROWS.write_text(f"[\n{text}\n]\n", encoding="utf-8")


def main() -> None:
    """Run what is asked for, and write the table of everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--only", default="", help="comma-separated names")
    parser.add_argument("--parts", default="write,train")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.folder:
        for row in run(args.folder, set(args.only.split(",")) - {""}, set(args.parts.split(",")), read()):
            keep(row)
            print(shown(row), flush=True)

    TABLE.write_text(table(list(read().values())), encoding="utf-8")


HEAD = """# Fixes on faulty models: proposed, proven and written

`python benchmarks/proven.py FOLDER` makes the rows of a folder, and this table of all that are kept in `proven.json`;
its docstring says what the words mean. Every training is of {steps} steps, none ended by the clock. Two columns say at
which commit a case was trained and its edit written, + where files differed from it; trained: {commits}.
"""
COLUMNS = ("case", "batch", "finding", "fix", "probe", "as it is", "with the fix", "proven", "at", "written", "at")


def table(rows: list[Row]) -> str:
    """What is claimed of each folder, then a line a case."""
    groups = {row.group: [each for each in rows if each.group == row.group] for row in rows}
    made = ", ".join(
        f"{commit} ({count})" for commit, count in Counter(row.commit for row in rows if row.commit).most_common()
    )
    lines = [HEAD.format(steps=STEPS, commits=made)]
    lines += [f"| | {' | '.join(groups)} |", f"|---|{'---|' * len(groups)}"]
    totals = [claims(group) for group in groups.values()]
    lines += [f"| {name} | {' | '.join(each[name] for each in totals)} |" for name in totals[0]] if totals else []
    lines += [
        "",
        "Shares of the control's loss reduction, by SGD / Adam; – where not tried, or the control does not learn.",
        "",
    ]
    for name, group in groups.items():
        lines += [f"## {name}", "", f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}", *map(line, group), ""]
    return "\n".join(lines)


def claims(rows: list[Row]) -> dict[str, str]:
    """The shares that are asked for, in words, with the counts that they are of."""
    tried = [row for row in rows if row.commit]
    proposed = [row for row in tried if row.fixes]
    decided = [row for row in proposed if row.decided]
    first = [row for row in decided if row.fixes[0].health == "healthy"]
    telling = [row for row in first if not row.trains(row.as_it_is)]
    every = [(row, put) for row in decided for put in row.fixes if put.health == "healthy"]
    return {
        "put to a training": f"{len(tried)} of {len(rows)}",
        "of those, a fix is proposed": _of(len(proposed), len(tried)),
        "undecided: the control does not learn": f"{len(proposed) - len(decided)} of {len(proposed)}",
        "of those decided, the model as it is reaches half": _of(
            sum(r.trains(r.as_it_is) for r in decided), len(decided)
        ),
        "of those decided, proven": _of(sum(row.state == "yes" for row in decided), len(decided)),
        "the probe calls the first fix healthy, and training agrees": _of(
            sum(row.trains(row.fixes[0].losses) for row in first), len(first)
        ),
        "the same of those where the model as it is does not reach half": _of(
            sum(row.trains(row.fixes[0].losses) for row in telling), len(telling)
        ),
        "the probe calls a fix healthy, of every one that is trained, and training agrees": _of(
            sum(row.trains(put.losses) for row, put in every), len(every)
        ),
        "the edit was written and stood": _of(sum(bool(row.written) for row in rows), len(rows)),
    }


def line(row: Row) -> str:
    """A line of the table."""
    best = row.best
    cells = [
        row.case,
        str(row.batch or "–"),
        best.rule if best else "",
        best.title if best else row.note,
        best.health if best else "–",
        _shares(row, row.as_it_is) if best else "–",
        _shares(row, best.losses) if best else "–",
        row.state or ("no" if row.commit else "not trained"),
        row.commit,
        "yes" if row.written else f"no{': ' + row.refused if row.refused else ''}",
        row.written_at,
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _shares(row: Row, losses: Losses) -> str:
    shares = row.shares(losses)
    return " / ".join(f"{shares[name]:.2f}" if name in shares else "–" for name in OPTIMIZERS)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / max(1, whole):.0%})"


def shown(row: Row) -> str:
    """A row on a few lines, to follow a run by."""
    lines = [f"{row.seconds:4.0f} s  {row.case}: {row.state or row.note}  chance {row.chance}  control {row.control}"]
    lines.append(f"         as it is {row.shares(row.as_it_is)} {row.as_it_is}")
    lines += [f"         {p.health} {row.shares(p.losses)} {p.losses} {p.rates} {p.title}" for p in row.fixes]
    return "\n".join([*lines, f"         {row.written} | {row.refused}"])


if __name__ == "__main__":
    main()
