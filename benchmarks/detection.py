"""Which broken models are found, which healthy ones are accused, what crashes: gradlint beside the installable rivals.

    python -m venv RIVALS && RIVALS/bin/pip install torch==2.13.0 scipy torchtest2==0.1.0 torchdiag==0.1.0 \\
        torch-audit==0.3.0 preflight-ml==0.1.1
    python benchmarks/detection.py FOLDER --python RIVALS/bin/python --write

FOLDER holds labels.json and a model file a case. Each tool gets the same model, batch and loss, as a process of its own
(`rivals.py`); gradlint is told them on its command line. A model counts as found or accused when the tool reports
something at its own level "warning" or above; the second figure counts its "error"s alone. The last four rows are the
published formulas of tools that do not run on this Python, replayed on one step (`formulas.py`): they have no seconds.
Seconds are of the whole process; answers kept from another run, at another load, are kept without theirs.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
LIMIT = 300.0  # seconds a case
REPLAYED = ("sagemaker", "autotrainer", "deepdiagnosis", "thedeepchecker")
RIVALS = ("torchtest2", "torchtest2-overfit", "torchdiag", "torch-audit", "preflight-ml", *REPLAYED)
LEVELS = ("warning", "error")

# The rows of the table: the title, the tool, what of its answer is left out.
ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("gradlint", "gradlint", ()),
    ("torchtest2 0.1.0, without overfitting", "torchtest2", ()),
    ("torchtest2 0.1.0, as it comes", "torchtest2-overfit", ()),
    ("torchdiag 0.1.0", "torchdiag", ()),
    ("torch-audit 0.3.0", "torch-audit", ()),
    ("torch-audit 0.3.0, without hints on speed (TA2…)", "torch-audit", ("TA2",)),
    ("preflight-ml 0.1.1", "preflight-ml", ()),
    ("SageMaker Debugger, replayed", "sagemaker", ()),
    ("AutoTrainer, replayed", "autotrainer", ()),
    ("DeepDiagnosis, replayed", "deepdiagnosis", ()),
    ("TheDeepChecker, replayed", "thedeepchecker", ()),
)

Answer = dict[str, Any]


def ask_rivals(python: str, tools: list[str], file: Path, label: Answer) -> list[Answer]:
    """What rivals that share one process say of one model, in order: {"said": …} or {"crashed": …} each."""
    command = [python, str(HERE / "rivals.py"), ",".join(tools), str(file), json.dumps(label)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if run.returncode == 3:
        raise SystemExit(f"{file}: the case cannot be built: {run.stderr.strip()[-300:]}")
    told = [dict(json.loads(line)) for line in run.stdout.splitlines()]
    return told + [{"crashed": run.stderr[-300:]}] * (len(tools) - len(told))


def ask_gradlint(command: list[str], folder: Path, case: str, label: Answer) -> Answer:
    """What gradlint says, told the entry, the inputs and the loss; refuted findings are not said."""
    sys.path.insert(0, str(folder.resolve().parent))
    from score import command as told

    run = subprocess.run(told(command, folder, case, label, False), capture_output=True, text=True, timeout=LIMIT)
    try:
        targets = json.loads(run.stdout)["targets"]
    except (ValueError, KeyError):
        return {"crashed": (run.stderr or run.stdout)[-300:]}
    if not any(target["status"] == "analysed" for target in targets):
        return {"crashed": json.dumps([target.get("error") for target in targets])[:300]}
    found = [finding for target in targets for finding in target["findings"] if finding["verdict"] != "refuted"]
    return {"said": [[f["severity"], f"{f['rule']} {f['message']}"] for f in found if f["severity"] in LEVELS]}


def together(tools: list[str]) -> list[list[str]]:
    """A process for each tool, and one for all that are replayed: formulas are not timed."""
    replayed = [tool for tool in tools if tool in REPLAYED]
    return [*([tool] for tool in tools if tool not in REPLAYED), *([replayed] if replayed else [])]


def table(rows: list[Answer], labels: dict[str, Answer]) -> str:
    """The table in Markdown. A crash is neither a detection nor an alarm; "advice" cases are not scored."""
    scored = {case for case, label in labels.items() if label.get("severity") != "advice"}
    faulty = {case for case in scored if labels[case]["defect"] != ["none"]}
    lines = [
        "| tool | recall | errors alone | false alarms | errors alone | crashes | seconds a case (cases timed) |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, tool, without in ROWS:
        mine = [row for row in rows if row["tool"] == tool and row["case"] in scored]
        if not mine:
            continue
        cells = [title]
        for cases in (faulty, scored - faulty):
            for levels in (LEVELS, LEVELS[1:]):
                hits = sum(row["case"] in cases and _flagged(row, levels, without) for row in mine)
                cells.append(f"{hits}/{sum(row['case'] in cases for row in mine)}")
        cells.append(f"{sum('crashed' in row for row in mine)}/{len(mine)}")
        timed = [row["seconds"] for row in mine if tool not in REPLAYED and "seconds" in row]
        cells.append(f"{median(timed):.1f} ({len(timed)})" if timed else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _flagged(row: Answer, levels: Iterable[str], without: tuple[str, ...]) -> bool:
    return any(level in levels and not text.startswith(without or ("\0",)) for level, text in row.get("said", []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", help="the interpreter that holds the rivals")
    parser.add_argument("--gradlint", default=str(Path(sys.executable).with_name("gradlint")))
    parser.add_argument("--tools", default=",".join(("gradlint", *RIVALS)))
    parser.add_argument("--only", default="", help="comma-separated cases")
    parser.add_argument("--raw", type=Path, help="answers as JSON lines; what it holds is not asked for again")
    parser.add_argument("--write", action="store_true", help="write detection.md")
    args = parser.parse_args()
    labels: dict[str, Answer] = json.loads((args.folder / "labels.json").read_text())
    rows = [json.loads(line) for line in args.raw.read_text().splitlines()] if args.raw and args.raw.exists() else []
    done = {(row["tool"], row["case"]) for row in rows}
    for case in sorted(set(labels) & set(args.only.split(",")) if args.only else labels):
        for tools in together([tool for tool in args.tools.split(",") if (tool, case) not in done]):
            started = time.perf_counter()
            if tools == ["gradlint"]:
                answers = [ask_gradlint(shlex.split(args.gradlint), args.folder, case, labels[case])]
            else:
                answers = ask_rivals(args.python, tools, args.folder / f"{case}.py", labels[case])
            seconds = time.perf_counter() - started
            fresh = [{"tool": t, "case": case, "seconds": seconds, **a} for t, a in zip(tools, answers, strict=True)]
            rows += fresh
            if args.raw:
                with args.raw.open("a") as file:
                    file.writelines(json.dumps(row) + "\n" for row in fresh)
    made = table(rows, labels)
    print(made)
    if args.write:
        title = "# Detection: gradlint beside its rivals\n\nMade by `python benchmarks/detection.py`; do not edit.\n\n"
        (HERE / "detection.md").write_text(f"{title}{made}\n")


if __name__ == "__main__":
    main()
