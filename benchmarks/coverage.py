"""How much of the architectures of the zoo the static signal predicts: ops with a transfer function, whole networks.

    python benchmarks/coverage.py [--only PATTERN] [--timeout SECONDS] [--every N] [--passes N] [--rows FILE] [--write]

Each network is built, fed and recorded in a process of its own, as `benchmarks/zoo.py` does, and predicted under the
unit loss. An op counts as answered unless the signal says why it has no answer; a network counts as predicted end to
end when every parameter on a way to its output has a prediction. `--passes` holds the predictions to that many float64
backward passes of the network itself, with fresh inputs of the kind that it was fed and a fresh cotangent each.
`--write` writes the table to coverage.md.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import multiprocessing
import os
import re
import resource
import sys
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ZOO = ROOT / "tests" / "zoo"
TABLE = Path(__file__).with_name("coverage.md")
MEMORY = 12 * 2**30
sys.path[:0] = [str(ROOT), str(ROOT / "rules"), str(ZOO), str(ROOT / "benchmarks")]


def main() -> None:
    """Predict the architectures that match."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression on family/name")
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--every", type=int, default=1, help="take every N-th architecture")
    parser.add_argument("--passes", type=int, default=0, help="real backward passes to hold the predictions to")
    parser.add_argument("--rows", type=Path, help="keep rows in this file, and do not run what it holds already")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    options = parser.parse_args()
    import build
    from zoo import preload

    preload()
    rows: dict[str, dict[str, Any]] = {}
    if options.rows is not None and options.rows.exists():
        rows = json.loads(options.rows.read_text())
    for name in build.names()[:: options.every]:
        if name in rows or not re.match(options.only, name):
            continue
        rows[name] = isolated(name, options.timeout, options.passes)
        print(name, json.dumps(rows[name]), flush=True)
        if options.rows is not None:
            options.rows.write_text(json.dumps(rows))
    text = markdown(rows)
    print(text)
    if options.write:
        TABLE.write_text(text)


def isolated(name: str, timeout: float, passes: int = 0) -> dict[str, Any]:
    """The row of one network, from a forked process."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=predicted, args=(name, passes, sender))
    started = time.monotonic()
    worker.start()
    sender.close()
    row: dict[str, Any] = {}
    try:
        if receiver.poll(max(0.0, started + timeout - time.monotonic())):
            row = receiver.recv()
        else:
            row = {"message": f"not done in {timeout:.0f} s"}
    except EOFError:
        row = {"message": "the process ended early"}
    worker.kill()
    worker.join()
    return row


def predicted(name: str, passes: int, sender: Connection) -> None:
    """In the child: build, feed, record, predict, and send the counts."""
    import torch

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        sender.send(row_of(name, passes))
    except BaseException as error:  # noqa: BLE001 the row says what any failure was
        sender.send({"message": " ".join(f"{type(error).__name__}: {error}".split())[:300]})
    sender.close()
    os._exit(0)


def row_of(name: str, passes: int = 0) -> dict[str, Any]:
    """Counts of one network: its ops, those without an answer by reason, its parameters, those without a prediction."""
    from build import build

    from gradlint.capture import capture
    from gradlint.config import Settings
    from gradlint.load.inputs import feed
    from gradlint.signal import predict

    model = build(name)
    given = feed(model, Settings())
    graph, _ = capture(model, given.args, given.kwargs)
    signal = predict(graph, loss_of(graph))
    reasons = collections.Counter(
        f"{graph.ops[index].kind} {graph.ops[index].function}: {reason}" for index, reason in signal.unknown.items()
    )
    wanted = reachable(graph)
    row = {
        "ops": len(graph.ops),
        "unknown": sum(reasons.values()),
        "reasons": dict(reasons.most_common(4)),
        "params": len(wanted),
        "missing": len(wanted - set(signal.profile.params)),
    }
    return row | (errors(model, given, signal.profile, passes) if passes else {})


def loss_of(graph: Any) -> str:
    """ "own" for a network whose first output is its loss."""
    first = next((value for value in graph.outputs if graph.values[value].requires_grad), None)
    alone = first is not None and graph.values[first].shape == ()
    return "own" if alone else "unit"


def errors(model: Any, given: Any, profile: Any, passes: int) -> dict[str, Any]:
    """Predicted minus measured log10 gradient RMS (decades) of the parameters that have a gradient."""
    import numpy as np
    from prediction import compared

    squares: dict[str, float] = {}
    model = model.double()
    if not finite(model, given):
        model = model.float()
    for place in range(passes):
        for path, square in measured(model, given, place).items():
            squares[path] = squares.get(path, 0.0) + square / passes
    real = {path: 0.5 * math.log10(square) if square > 0.0 else -math.inf for path, square in squares.items()}
    sizes = {path: (param.ndim, param.numel()) for path, param in model.named_parameters()}
    found = compared(profile.params, profile.spread, real, sizes, 0.0)
    off = np.abs([*found.matrices, *found.vectors])
    row: dict[str, Any] = {"compared": len(off), "covered": sum(map(bool, found.covered)), "zeros": found.zeros}
    if len(off):
        row |= {"median": round(float(np.median(off)), 3), "p95": round(float(np.percentile(off, 95)), 3)}
    return row


def finite(model: Any, given: Any) -> bool:
    """Whether a pass runs and gives numbers: some operators, and masks made for float32, do not in float64."""
    try:
        return all(map(math.isfinite, measured(model, given, 0).values()))
    except RuntimeError:
        return False


def measured(model: Any, given: Any, seed: int) -> dict[str, float]:
    """Mean squared gradients of one backward pass from the first output that carries a gradient."""
    import torch
    from torch.utils._pytree import tree_map

    from gradlint.capture.structure import flatten

    random = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype

    def cast(entry: Any) -> Any:
        return entry.to(dtype) if isinstance(entry, torch.Tensor) and entry.is_floating_point() else entry

    args, kwargs = tree_map(cast, given.draw(seed))
    torch.manual_seed(seed)
    model.zero_grad(set_to_none=True)
    output = model(*args, **kwargs)
    first = next(tensor for _, tensor in flatten(output) if tensor.requires_grad)
    first.backward((torch.randn(first.shape, generator=random) if first.ndim else torch.ones(())).to(first))
    params = model.named_parameters()
    return {path: float((param.grad**2).mean()) for path, param in params if param.grad is not None}


def reachable(graph: Any) -> set[str]:
    """The parameters on a way to the first output that carries a gradient."""
    pending = [value for value in graph.outputs if graph.values[value].requires_grad][:1]
    seen, found = set[int](), set[str]()
    while pending:
        number = pending.pop()
        value = graph.values[number]
        if number in seen or not value.requires_grad:
            continue
        seen.add(number)
        if value.origin == "param":
            found.add(value.name)
        op = graph.op_of(number)
        if op is not None and op.grad_enabled:
            pending.extend(op.inputs)
    return found


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Shares by family, then what has no answer, and the networks that are not predicted whole."""
    import build

    lines = ["# What of the zoo the static signal predicts", ""]
    made = "Made by `python benchmarks/coverage.py --write`."
    lines += [f"{len(rows)} of {len(build.names())} architectures. {made}", ""]
    lines += ["| family | networks | recorded | ops answered | end to end |", "|---|---|---|---|---|"]
    families = sorted({name.partition("/")[0] for name in rows})
    groups = [(family, [row for name, row in rows.items() if name.startswith(f"{family}/")]) for family in families]
    lines += [_counts(family, members) for family, members in [*groups, ("**all**", list(rows.values()))]]
    reasons: collections.Counter[str] = collections.Counter()
    for row in rows.values():
        reasons.update(set(row.get("reasons", {})))
    lines += ["", "## Without an answer", "", "| networks | op: reason |", "|---|---|"]
    lines += [f"| {count} | {reason} |" for reason, count in reasons.most_common(40)]
    lines += ["", "## Not end to end", ""]
    for name, row in rows.items():
        if row.get("missing") != 0:
            why = row.get("message") or f"{row['missing']} of {row['params']} parameters; {row['reasons']}"
            lines.append(f"- {name}: {why}")
    return "\n".join(lines) + "\n"


def _counts(family: str, rows: list[dict[str, Any]]) -> str:
    known = [row for row in rows if "ops" in row]
    ops = sum(row["ops"] for row in known)
    answered = 100.0 * (1.0 - sum(row["unknown"] for row in known) / max(ops, 1))
    whole = sum(row["missing"] == 0 for row in known)  # one that was not recorded is not predicted, either
    share = 100.0 * whole / max(len(rows), 1)
    return f"| {family} | {len(rows)} | {len(known)} | {answered:.1f} % of {ops} | {whole} ({share:.1f} %) |"


if __name__ == "__main__":
    main()
