"""What gradlint says about 350 healthy architectures at their own init: the false-positive budget of the rules.

    python benchmarks/findings.py [--only PATTERN] [--timeout SECONDS] [--again] [--facts FOLDER [--judge]]

Each model is built, fed and measured as `gradlint` does it, in a process of its own, and its findings are merged into
tests/zoo/findings.json as they come: a run that was cut goes on where it stopped, and --again takes every matching
model anew. With --facts the recorded graph, the prediction and the measurement are kept in a folder, and --judge runs
the rules on what is kept there without running a model. tests/zoo/findings.md is the same as a table, with the reason
that tests/zoo/explained.json gives for each warning.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import re
import resource
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import zoo

LISTED = zoo.ZOO / "findings.json"
EXPLAINED = zoo.ZOO / "explained.json"
IMAGE = "float32[4,3,128,128]"
Row = dict[str, Any]


def main() -> None:
    """Judge the models that match, one by one, and write the list after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression on family/name")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--again", action="store_true", help="models that the list already holds as well")
    parser.add_argument("--facts", type=Path, help="keep what was measured in this folder")
    parser.add_argument("--judge", action="store_true", help="run the rules on what the folder holds, and nothing else")
    options = parser.parse_args()
    import build

    zoo.preload()
    rows = read()
    for name in build.names():
        if re.match(options.only, name) and (options.again or options.judge or "findings" not in rows.get(name, {})):
            kept = options.facts / f"{name.replace('/', '+').replace(':', '+')}.pickle" if options.facts else None
            row = judged(kept) if options.judge else isolated(name, options.timeout, kept)
            if row is None:
                continue
            rows[name] = row
            write({known: rows[known] for known in build.names() if known in rows})
            print(name, row.get("message") or summary(row), flush=True)


def read() -> dict[str, Row]:
    """The committed rows."""
    return json.loads(LISTED.read_text()) if LISTED.exists() else {}


def summary(row: Row) -> str:
    """The findings of a row in one line."""
    return ", ".join(f"{found['severity']} {found['rule']}" for found in row["findings"]) or "none"


def judged(kept: Path | None) -> Row | None:
    """The row of a model whose facts were kept, by the rules as they are now."""
    if kept is None or not kept.exists():
        return None
    return judge(pickle.loads(kept.read_bytes()))


def isolated(name: str, timeout: float, kept: Path | None) -> Row:
    """The row of one model, measured in a forked process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=measured, args=(name, sender, kept))
    started = time.monotonic()
    worker.start()
    sender.close()
    try:
        row: Row = receiver.recv() if receiver.poll(timeout) else {"message": f"not done in {timeout:.0f} s"}
    except EOFError:
        row = {"message": "the process ended without a result"}
    worker.kill()
    worker.join()
    print(f"{time.monotonic() - started:.0f} s", end=" ")
    return row


def measured(name: str, sender: Connection, kept: Path | None) -> None:
    """In the child: build, feed, measure and judge one model; the row says what any failure was."""
    import torch

    resource.setrlimit(resource.RLIMIT_AS, (zoo.MEMORY, zoo.MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        row = judge(observe(name), kept)
    except BaseException as error:  # noqa: BLE001 the row says what any failure was
        row = {"message": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    sender.send(row)
    sender.close()
    os._exit(0)


def observe(name: str) -> dict[str, Any]:
    """The facts of one model: its graph, the prediction, the measurement and the loss."""
    from build import build

    from gradlint import analysis
    from gradlint.config import Settings
    from gradlint.load.model import LoadedModel
    from gradlint.signal import predict

    model, settings = build(name), Settings(fix=False)
    given = fed(name, model)
    loaded = LoadedModel(model, given.args, given.kwargs, given.inputs, name, None, None, given.draw, given.loss)
    graph, measurement, reason = analysis.observe(loaded, settings)
    loss = measurement.loss if measurement else loaded.loss_hint or "unit"
    return {"graph": graph, "signal": predict(graph, loss), "probe": measurement, "loss": loss, "reason": reason}


def fed(name: str, model: Any) -> Any:
    """The inputs that gradlint finds; images of IMAGE for the classifiers that take them, to save time."""
    from gradlint.config import Settings
    from gradlint.error import GradlintError
    from gradlint.load.inputs import feed

    if name.startswith(("timm/", "tv/")) and not re.search(
        r"rcnn|retinanet|fcos|ssd|3d|r2plus|mc3|mvit|swin3d|s3d|raft", name
    ):
        try:
            return feed(model, Settings(inputs=(IMAGE,)))
        except GradlintError:
            pass  # a model of one size only
    return feed(model, Settings())


def judge(facts: dict[str, Any], kept: Path | None = None) -> Row:
    """The row of these facts: each finding without what depends on the machine."""
    from gradlint import engine, registry

    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps({key: facts[key] for key in ("graph", "signal", "probe", "loss", "reason")}))
    graph, signal, probe = facts["graph"], facts["signal"], facts["probe"]
    drafts = engine.draft(registry.select(), graph, signal, probe, facts["loss"])
    found = engine.judge(drafts, graph, signal, probe, facts["reason"])
    return {"loss": facts["loss"], "findings": [listed(each) for each in found if each.verdict != "refuted"]}


def listed(finding: Any) -> Row:
    """What the list holds of a finding."""
    numbers = {name: round(n, 1) if isinstance(n, float) else n for name, n in finding.measured.items()}
    named = ("code", "rule", "severity", "verdict", "module", "message")
    return {name: getattr(finding, name) for name in named} | {"measured": numbers}


def write(rows: dict[str, Row]) -> None:
    """Both forms of the list."""
    LISTED.write_text(json.dumps(rows, indent=1) + "\n")
    (zoo.ZOO / "findings.md").write_text(markdown(rows))


def markdown(rows: dict[str, Row]) -> str:
    """Counts, every error and warning with its reason, then the notes by rule."""
    explained = json.loads(EXPLAINED.read_text()) if EXPLAINED.exists() else {}
    done = {name: row["findings"] for name, row in rows.items() if "findings" in row}
    loud = {
        severity: {name for name, found in done.items() if any(each["severity"] == severity for each in found)}
        for severity in ("error", "warning", "info")
    }
    lines = ["# Findings on the zoo", "", "Made by `python benchmarks/findings.py`; do not edit.", ""]
    lines += [
        "| models | judged | not judged | with an error | with a warning | with notes |",
        "|---|---|---|---|---|---|",
    ]
    counts = [len(rows), len(done), len(rows) - len(done), *(len(loud[each]) for each in ("error", "warning", "info"))]
    lines += ["| " + " | ".join(map(str, counts)) + " |", "", "## Errors and warnings", ""]
    for name in sorted(loud["error"] | loud["warning"]):
        for each in done[name]:
            if each["severity"] != "info":
                why = explained.get(name, {}).get(each["rule"], "not explained yet")
                lines.append(
                    f"- {name}: {each['severity']} {each['rule']} ({each['verdict']}): {each['message']}. {why}"
                )
    notes: dict[str, list[str]] = {}
    for name, found in done.items():
        for each in found:
            if each["severity"] == "info":
                notes.setdefault(each["rule"], []).append(name)
    lines += ["", "## Notes by rule", "", "| rule | models |", "|---|---|"]
    lines += [
        f"| {rule} | {len(set(names))}: {', '.join(dict.fromkeys(names))} |" for rule, names in sorted(notes.items())
    ]
    failures = [f"- {name}: {row['message']}" for name, row in rows.items() if "message" in row]
    return "\n".join([*lines, "", "## Not judged", "", *(failures or ["none"])]) + "\n"


if __name__ == "__main__":
    main()
