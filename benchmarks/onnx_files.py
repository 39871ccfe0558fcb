"""How faithfully exported models are linted: 60 models by both of torch's exporters against the model itself.

    python benchmarks/onnx_files.py [--only PATTERN] [--corpus FOLDER] [--timeout SECONDS]

Each model of `onnx_files.txt` (timm, transformers shrunk as in tests/zoo, and the corpus where it is at hand) is built,
fed and linted; then exported with dynamo=True and dynamo=False, and each file is linted as a user would lint it. A row
says whether the file was loaded, analysed without torch, and measured after its outputs agreed with onnxruntime's, and
for how many rules both reports say the same. Rules that read the source, or that need what the exporter removed
(folded BatchNorms), do not apply to both. The table is merged into `onnx_files.json` and written as `onnx_files.md`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import re
import resource
import sys
import tempfile
import time
import types
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
HERE = Path(__file__).parent
MEMORY = 14 * 2**30
EXPORTERS = {"dynamo": True, "legacy": False}
# rules about the source text or the module tree, which no file holds
SOURCE = {"unused-ignore", "unregistered-module", "unregistered-parameter", "unused-parameter"}
# families that ask how large signals are, which a folded BatchNorm decides
SIZES = {"vanishing", "exploding", "init", "normalization", "architecture", "units"}
STEPS = ("loaded", "static", "agrees", "probed")
sys.path[:0] = [str(ROOT), str(ROOT / "rules"), str(ROOT / "tests" / "zoo")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression on the name")
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "corpus" / "dev")
    parser.add_argument("--timeout", type=float, default=400.0)
    parser.add_argument("--missing", action="store_true", help="only models without a whole row")
    parser.add_argument("--folder", type=Path, help="keep the exported files here")
    options = parser.parse_args()
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("stand-in")
    warnings.simplefilter("ignore")
    for name in (
        "timm",
        "transformers",
        "onnxscript",
        "onnxruntime",
        "torch.onnx",
        "gradlint.analysis",
        "torch.export",
    ):
        __import__(name)
    rows = json.loads((HERE / "onnx_files.json").read_text()) if (HERE / "onnx_files.json").exists() else {}
    for name in (HERE / "onnx_files.txt").read_text().split():
        whole = all(rows.get(name, {}).get(e, {}).get(step) is True for e in EXPORTERS for step in STEPS)
        if re.match(options.only, name) and not (options.missing and whole):
            rows[name] = isolated(name, options)
            write(rows)
            print(name, json.dumps(rows[name]), flush=True)


def isolated(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """The row of one model, made in a forked process; what it reached before a timeout counts."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=measured, args=(name, options, sender))
    started = time.monotonic()
    worker.start()
    sender.close()
    row: dict[str, Any] = {}
    while receiver.poll(max(0.0, started + options.timeout - time.monotonic())):
        try:
            row |= receiver.recv()
        except EOFError:
            break
    else:
        worker.kill()
        row["message"] = f"not done in {options.timeout:.0f} s"
    worker.join()
    return row


def measured(name: str, options: argparse.Namespace, sender: Connection) -> None:
    """In the child: lint the model, then what each exporter makes of it."""
    import torch

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            loaded = built(name, options.corpus)
            own = findings(loaded, name)
        sender.send({"own": {rule: severity for rule, (severity, _) in own.items()}})
        for exporter, dynamo in EXPORTERS.items():
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
                place = options.folder or Path(folder)
                row = one(
                    loaded, own, place / f"{name.replace('/', '-').replace(':', '-')}-{exporter}.onnx", dynamo=dynamo
                )
            sender.send({exporter: row})
    except BaseException as error:  # noqa: BLE001 the row says what any failure was
        sender.send({"message": said(error)})
    sender.close()
    os._exit(0)


def built(name: str, corpus: Path) -> Any:
    """The model with the inputs that gradlint finds, or that the corpus states."""
    from gradlint.config import Settings
    from gradlint.load import load
    from gradlint.load.inputs import feed
    from gradlint.load.model import LoadedModel
    from gradlint.source.target import parse

    if name.startswith("corpus/"):
        label = json.loads((corpus / "labels.json").read_text())[name[7:]]
        target = parse(f"{corpus / name[7:]}.py:{label['entry']}")
        return load(target, Settings(loss=label.get("loss") if label.get("loss") in ("ce", "mse") else None))[0]
    from build import build

    model = build(name)
    for module in model.modules():
        if hasattr(module, "config") and hasattr(module.config, "use_cache"):
            module.config.use_cache = False
    given = feed(model, Settings())
    return LoadedModel(model, given.args, given.kwargs, given.inputs, name, None, None, given.draw, given.loss)


def findings(loaded: Any, name: str) -> dict[str, tuple[str, str]]:
    """Rule → (worst standing severity, family) of the model's report."""
    from gradlint.analysis import analyse_model

    report = analyse_model(name, None, loaded, settings())
    return worst(report)


def worst(report: Any) -> dict[str, tuple[str, str]]:
    order = ("info", "warning", "error")
    found: dict[str, tuple[str, str]] = {}
    for finding in report.findings:
        before = found.get(finding.rule)
        if finding.stands and (before is None or order.index(finding.severity) > order.index(before[0])):
            found[finding.rule] = (finding.severity, finding.family)
    return found


def settings(**more: Any) -> Any:
    from gradlint.config import Settings

    return Settings(seeds=1, fix=False, timeout=1000, memory=12 * 2**30, **more)


def one(loaded: Any, own: dict[str, tuple[str, str]], path: Path, *, dynamo: bool) -> dict[str, Any]:
    """Export, load, analyse without and with measuring, compare."""
    row: dict[str, Any] = dict.fromkeys(("exported", *STEPS), False)
    try:
        export(loaded, path, dynamo=dynamo)
        row["exported"] = True
        compare(row, own, path)
    except BaseException as error:  # noqa: BLE001 the row says what any failure was
        row["message"] = said(error)
    return row


def export(loaded: Any, path: Path, *, dynamo: bool) -> None:
    import torch

    model, args = loaded.model, loaded.args
    training = model.training
    model.eval()
    try:
        options: dict[str, Any] = {"verbose": False} if dynamo else {"opset_version": 17}
        if loaded.kwargs or hasattr(model, "config"):
            model, args = by_position(model, args, loaded.kwargs)
        torch.onnx.export(model, args, path, dynamo=dynamo, **options)
    finally:
        model.train(training)


def by_position(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """A module that takes the tensors by position and gives only tensors, as both exporters want it."""
    import torch

    names = [name for name, value in kwargs.items() if isinstance(value, torch.Tensor)]
    rest = {name: value for name, value in kwargs.items() if name not in names}

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: torch.Tensor) -> Any:
            named = dict(zip(names, given[len(args) :], strict=True))
            output = self.model(*given[: len(args)], **named, **rest)
            found = output.values() if hasattr(output, "values") else output
            return (
                output if isinstance(output, torch.Tensor) else tuple(t for t in found if isinstance(t, torch.Tensor))
            )

    return Exported().eval(), (*args, *(kwargs[name] for name in names))


def compare(row: dict[str, Any], own: dict[str, tuple[str, str]], path: Path) -> None:
    from gradlint import registry, static
    from gradlint.analysis import analyse
    from gradlint.load.onnx_model import load
    from gradlint.source.target import parse

    target = parse(str(path))
    model = load(path, str(path), settings())
    row["loaded"] = True
    if model.doubt is not None:
        doubt = model.doubt()
        row["agrees"] = not doubt
        if doubt:
            row["message"] = doubt
    still = static.analyse(target, settings(probe=False))
    row["static"], row["unknown"] = not still.unknown, [n for n, _ in still.unknown]
    (report,) = analyse(target, settings())
    row["probed"] = report.probe.ran
    if not report.probe.ran:
        row["message"] = report.probe.reason or (report.error.message if report.error else "")
    row["ops"] = report.ops
    folded = any("folded" in note for note in report.notes)
    theirs = worst(report)
    rules = {r.name for r in registry.rules() if r.name not in SOURCE and not (folded and r.family in SIZES)}
    row["folded"], row["rules"] = folded, len(rules)
    row["same"] = sum((rule in own) == (rule in theirs) for rule in rules)
    row["missed"] = sorted(rule for rule in rules if rule in own and rule not in theirs)
    row["extra"] = sorted(rule for rule in rules if rule in theirs and rule not in own)
    row["both"] = sorted(rule for rule in rules if rule in theirs and rule in own)


def said(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def write(rows: dict[str, Any]) -> None:
    (HERE / "onnx_files.json").write_text(json.dumps(rows, indent=1) + "\n")
    (HERE / "onnx_files.md").write_text(markdown(rows))


def markdown(rows: dict[str, Any]) -> str:
    lines = [
        "# Exported models against their originals",
        "",
        "Made by `python benchmarks/onnx_files.py`; do not edit.",
        "",
    ]
    lines += [
        "| exporter | exported | " + " | ".join(STEPS) + " | rules alike | findings alike |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [total(rows, exporter) for exporter in EXPORTERS]
    lines += [
        "",
        "`agrees`: the outputs are onnxruntime's. `rules alike`: (model, rule) pairs on which both reports say the",
        "same; `findings alike`: of the rules that fired on either side, those that fired on both.",
        "",
        "## Models",
        "",
    ]
    lines += ["| model | exporter | ops | steps passed | missed | extra | remark |", "|---|---|---|---|---|---|---|"]
    for name, row in rows.items():
        for exporter in EXPORTERS:
            lines.append(line(name, exporter, row.get(exporter, {"message": row.get("message", "")})))
    return "\n".join(lines) + "\n"


def total(rows: dict[str, Any], exporter: str) -> str:
    found = [row[exporter] for row in rows.values() if exporter in row]
    exported = [row for row in found if row.get("exported")]
    steps = " | ".join(f"{sum(row.get(step) is True for row in exported)}/{len(exported)}" for step in STEPS)
    same, rules = (sum(row.get(key, 0) for row in exported) for key in ("same", "rules"))
    both = sum(len(row.get("both", ())) for row in exported)
    either = both + sum(len(row.get(key, ())) for row in exported for key in ("missed", "extra"))
    return f"| {exporter} | {len(exported)}/{len(rows)} | {steps} | {share(same, rules)} | {share(both, either)} |"


def share(part: int, whole: int) -> str:
    return f"{part}/{whole} ({100 * part / whole:.1f} %)" if whole else "–"


def line(name: str, exporter: str, row: dict[str, Any]) -> str:
    passed = "".join("✓" if row.get(step) is True else "·" for step in ("exported", *STEPS))
    remark = row.get("message", "") or ("BatchNorm folded" if row.get("folded") else "")
    missed, extra = (" ".join(row.get(key, ())) for key in ("missed", "extra"))
    cells = [name, exporter, row.get("ops", ""), passed, missed, extra]
    return f"| {' | '.join(map(str, cells))} | {remark[:120].replace('|', '/')} |"


if __name__ == "__main__":
    main()
