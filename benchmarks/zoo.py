"""How many of 350 real architectures are built, fed, captured and probed with no hint at all.

    python benchmarks/zoo.py [--only PATTERN] [--timeout SECONDS] [--missing]

Each is built from its own registry, configuration or class in a process of its own and given the inputs that gradlint
finds. The outcome is merged into tests/zoo/table.json, and written as tests/zoo/table.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import re
import resource
import sys
import time
import types
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "tests" / "zoo"
STEPS = ("built", "fed", "right", "captured", "probed")
MEMORY = 12 * 2**30
sys.path[:0] = [str(ROOT), str(ROOT / "rules"), str(ZOO)]


def main() -> None:
    """Run the models that match and merge their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression on family/name")
    parser.add_argument("--timeout", type=float, default=150.0)
    parser.add_argument("--missing", action="store_true", help="only models with a step not yet passed")
    options = parser.parse_args()
    import build

    preload()
    rows = read()
    for name in build.names():
        done = all(rows.get(name, {}).get(step) is True for step in STEPS)
        if re.match(options.only, name) and not (options.missing and done):
            rows[name] = isolated(name, options.timeout)
            write({known: rows[known] for known in build.names() if known in rows})
            print(name, *(f"{step}={rows[name].get(step)}" for step in STEPS), f"{rows[name]['seconds']} s", flush=True)


def preload() -> None:
    """Import once what every child needs."""
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("stand-in")
    for name in ("timm", "transformers", "gradlint.load.inputs", "gradlint.capture", "gradlint.probe.measurement"):
        importlib.import_module(name)


def read() -> dict[str, dict[str, Any]]:
    """The committed rows."""
    path = ZOO / "table.json"
    return json.loads(path.read_text()) if path.exists() else {}


def isolated(name: str, timeout: float) -> dict[str, Any]:
    """The row of one model, measured in a forked process; what it reached before a timeout counts."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=measured, args=(name, sender))
    started = time.monotonic()
    worker.start()
    sender.close()
    row: dict[str, Any] = {}
    while receiver.poll(max(0.0, started + timeout - time.monotonic())):
        try:
            row |= receiver.recv()
        except EOFError:
            break
    else:
        worker.kill()
        row = {"message": f"not done in {timeout:.0f} s"} | row
    worker.join()
    if "message" not in row and not all(step in row for step in STEPS):
        row["message"] = f"the process ended with {worker.exitcode}"
    return row | {"seconds": round(time.monotonic() - started, 1)}


def measured(name: str, sender: Connection) -> None:
    """In the child: take the steps, send what each gives, stop at the first that fails."""
    import torch

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    state: dict[str, Any] = {"name": name}
    for step in (built, fed, captured, probed):
        try:
            sender.send(step(state))
        except BaseException as error:  # noqa: BLE001 the row says what any failure was
            sender.send({step.__name__: False, "message": " ".join(f"{type(error).__name__}: {error}".split())[:300]})
            break
    sender.close()
    os._exit(0)


def built(state: dict[str, Any]) -> dict[str, Any]:
    from build import build

    state["model"] = build(state["name"])
    return {"built": True, "parameters": sum(p.numel() for p in state["model"].parameters())}


def fed(state: dict[str, Any]) -> dict[str, Any]:
    from expected import agrees

    from gradlint.config import Settings
    from gradlint.load.inputs import feed

    state["feed"] = given = feed(state["model"], Settings())
    forms = {used.name: f"{used.dtype}:{len(used.shape)}" for used in given.inputs}
    shown = [f"{used.name}={used.dtype}[{','.join(map(str, used.shape))}]" for used in given.inputs]
    return {
        "fed": True,
        "right": agrees(state["name"], forms),
        "inputs": " ".join(shown),
        "source": given.inputs[0].source,
    }


def captured(state: dict[str, Any]) -> dict[str, Any]:
    from gradlint.capture import capture

    given = state["feed"]
    state["graph"], _ = capture(state["model"], given.args, given.kwargs)
    return {"captured": True, "ops": len(state["graph"].ops)}


def probed(state: dict[str, Any]) -> dict[str, Any]:
    from gradlint.load.model import LoadedModel
    from gradlint.probe import measure

    given = state["feed"]
    loaded = LoadedModel(
        state["model"], given.args, given.kwargs, given.inputs, state["name"], None, None, given.draw, given.loss
    )
    measure(loaded)
    return {"probed": True}


def write(rows: dict[str, dict[str, Any]]) -> None:
    """Both forms of the table."""
    kept = {name: {k: v for k, v in row.items() if k != "seconds"} for name, row in rows.items()}
    (ZOO / "table.json").write_text(json.dumps(kept, indent=1) + "\n")
    (ZOO / "table.md").write_text(markdown(kept))


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Counts a family, the failures with their messages, then every model."""
    lines = ["# The zoo: built, fed, captured, probed", "", "Made by `python benchmarks/zoo.py`; do not edit.", ""]
    lines += ["| family | models | " + " | ".join(STEPS) + " |", "|---|---|" + "---|" * len(STEPS)]
    families = sorted({name.partition("/")[0] for name in rows})
    lines += [
        _counts(family, [row for name, row in rows.items() if name.startswith(f"{family}/")]) for family in families
    ]
    lines += [_counts("all", list(rows.values())), "", "## Failures", ""]
    failures = [f"- {name}: {_reason(row)}" for name, row in rows.items() if _reason(row)]
    lines += [*(failures or ["none"]), "", "## Inputs", "", "| model | ops | inputs | source |", "|---|---|---|---|"]
    lines += [f"| {n} | {r.get('ops', '')} | {r.get('inputs', '')} | {r.get('source', '')} |" for n, r in rows.items()]
    return "\n".join(lines) + "\n"


def _counts(family: str, rows: list[dict[str, Any]]) -> str:
    passed = [sum(row.get(step) is True for row in rows) for step in STEPS]
    return f"| {family} | {len(rows)} | " + " | ".join(map(str, passed)) + " |"


def _reason(row: dict[str, Any]) -> str:
    step = next((step for step in STEPS if row.get(step) is not True), "")
    if not step:
        return ""
    return f"not {step}: {row.get('message') or row.get('inputs', '')}"


if __name__ == "__main__":
    main()
