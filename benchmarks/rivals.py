"""Tools on one labelled model, in the interpreter that holds them: prints a line of JSON for each tool.

    python benchmarks/rivals.py TOOL,… FILE LABEL

TOOL is a key of `TOOLS`, LABEL the label as JSON. Printed: {"said": [[level, text], …]} with the levels "warning" and
"error" of the tool's own scale, or {"crashed": text} where the tool raised. A file that cannot be built exits with 3.
Each tool gets a model built anew.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import formulas
import torch
from labelled import Case, build

Said = Iterator[tuple[str, str]]


def torchtest2(case: Case, overfit: int = 0) -> Said:
    import torchtest2 as tool

    inputs = case.inputs[0] if len(case.inputs) == 1 else case.inputs
    batch = {} if case.batched else {"batch_dim": None}
    report = tool.check_model(case.model, inputs, case.target, loss_fn=case.loss, overfit_steps=overfit, **batch)
    yield from (("warning", str(result)) for result in report.warnings)
    yield from (("error", str(result)) for result in report.failures)


def torchtest2_overfit(case: Case) -> Said:
    """With its default: the check that 200 steps overfit the batch."""
    yield from torchtest2(case, overfit=200)


def torchdiag(case: Case) -> Said:
    import torchdiag as tool

    case.loss(case.model(*case.inputs), case.target).backward()
    for name, row in tool.check_gradients(case.model).items():
        if row["status"] != "OK":
            yield "error", f"{row['status']} {name}"
    if len(case.inputs) == 1:
        for name, row in tool.check_dead_neurons(case.model, case.inputs[0]).items():
            if row["dead_pct"] > 20:
                yield "error" if row["dead_pct"] > 50 else "warning", f"dead {name}"


def torch_audit(case: Case) -> Said:
    """Its static, initial, forward, backward and optimizer phases, over one step."""
    from torch_audit.core import Severity
    from torch_audit.runtime import Auditor

    optimizer = torch.optim.Adam(case.model.parameters(), lr=1e-3)
    with Auditor(case.model, optimizer=optimizer, every_n_steps=1) as auditor:
        auditor.audit_static()
        auditor.audit_init()
        auditor.backward(case.loss(auditor.forward(*case.inputs), case.target))
        auditor.optimizer_step()
    for finding in auditor.findings:
        if finding.severity >= Severity.WARN:
            yield ("warning" if finding.severity == Severity.WARN else "error"), f"{finding.rule_id} {finding.message}"


def preflight(case: Case) -> Said:
    """Its checks of the model; those of the data would judge the batch that was made here."""
    from preflight.registry import Severity
    from preflight.runner import run_checks

    batch = [(*case.inputs, case.target)]
    for result in run_checks(batch, case.model, case.loss):
        if "pass failed" in result.message:  # what the tool raised: it ran one sample, or one of two inputs
            raise RuntimeError(result.message)
        if not result.passed and result.name in ("gradient_check", "shape_mismatch"):
            yield "error" if result.severity == Severity.FATAL else "warning", f"{result.name}: {result.message}"


def _replayed(formula: str) -> object:
    def said(case: Case) -> Said:
        for text in getattr(formulas, formula)(formulas.replay(case)):
            yield "warning", text

    return said


TOOLS = {
    "torchtest2": torchtest2,
    "torchtest2-overfit": torchtest2_overfit,
    "torchdiag": torchdiag,
    "torch-audit": torch_audit,
    "preflight-ml": preflight,
    **{name: _replayed(name) for name in ("sagemaker", "autotrainer", "deepdiagnosis", "thedeepchecker")},
}


def main() -> int:
    tools, file, label = sys.argv[1:]
    for tool in tools.split(","):
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                case = build(Path(file), json.loads(label))
            except Exception as error:  # noqa: BLE001 - whatever the user's file raises
                print(f"{type(error).__name__}: {error}", file=sys.stderr)
                return 3
            try:
                answer: dict[str, object] = {"said": list(TOOLS[tool](case))}
            except Exception as error:  # noqa: BLE001 - a tool that raises is what is counted
                answer = {"crashed": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
