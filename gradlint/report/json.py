"""`json`: the whole report under the schema `gradlint/1` (`schema.json` beside this file). Keys are only ever added.

A run that could not begin (usage, configuration, interruption) is a document without targets; `errors` says why.
"""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from gradlint.finding import Claim, Factor, Finding, Fix, Related, Size, Suppression, Trained
from gradlint.graph.ir import Span
from gradlint.report.fingerprint import fingerprints
from gradlint.report.outcome import counts
from gradlint.report.source import shown
from gradlint.report.view import View
from gradlint.result import Failure, FormatRun, InputUsed, Layer, ProbeRun, Report, TargetReport, TraceRun, Ways

SCHEMA = "gradlint/1"


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the document, indented, in ASCII (so that no locale can break it)."""
    stream.write(json.dumps(document(report), indent=2, allow_nan=False) + "\n")


def document(report: Report) -> dict[str, Any]:
    """The report as JSON-able data: numbers that are not finite are null, text is valid Unicode."""
    return dict(_clean(_report(report)))


def _report(report: Report) -> dict[str, object]:
    marks = (mark for _, _, mark in fingerprints(report))  # in the order of targets and findings
    return {
        "schema": SCHEMA,
        "tool": {"name": "gradlint", "version": report.version},
        "targets": [_target(target, marks) for target in report.targets],
        "summary": counts(report),
        "errors": [_failure(failure) for failure in report.errors],
        "settings": report.settings,
        "notes": report.notes,
    }


def _target(target: TargetReport, marks: Iterator[str]) -> dict[str, object]:
    return {
        "target": target.target,
        "path": _path(target.path),
        "line": target.line,
        "status": target.status,
        "error": _failure(target.error) if target.error else None,
        "inputs": [_input(given) for given in target.inputs],
        "capture": {
            "method": target.method,
            "ops": target.ops,
            "unknown": [{"op": name, "count": count} for name, count in target.unknown],
            "unpredicted": [{"op": name, "count": count} for name, count in target.unpredicted],
        },
        "probe": _probe(target.probe),
        "findings": [{**_finding(finding), "fingerprint": next(marks)} for finding in target.findings],
        "layers": [_layer(layer) for layer in target.layers],
        "parameters": target.parameters,
        "notes": target.notes,
        "seconds": target.seconds,
        "trace": _trace(target.trace) if target.trace else None,
    }


def _failure(failure: Failure) -> dict[str, object]:
    return {
        "kind": failure.kind,
        "message": failure.message,
        "hint": failure.hint,
        "path": _path(failure.path),
        "line": failure.line,
    }


def _input(given: InputUsed) -> dict[str, object]:
    return {
        "name": given.name,
        "shape": given.shape,
        "dtype": given.dtype,
        "source": given.source,
        "values": given.values,
    }


def _probe(probe: ProbeRun) -> dict[str, object]:
    return {
        "ran": probe.ran,
        "seeds": probe.seeds,
        "device": probe.device,
        "loss": probe.loss,
        "loss_value": probe.loss_value,
        "seconds": probe.seconds,
        "reason": probe.reason,
        "format": _format(probe.format) if probe.format else None,
    }


def _format(run: FormatRun) -> dict[str, object]:
    return {
        "dtype": run.dtype,
        "lost": run.lost,
        "hit": run.hit,
        "parameters": run.parameters,
        "worst": run.worst,
        "overflow": run.overflow,
        "gradient_overflow": run.gradient_overflow,
        "loss_scale": run.loss_scale,
        "scaled_lost": run.scaled_lost,
        "scaled_hit": run.scaled_hit,
        "scaled_overflow": run.scaled_overflow,
    }


def _trace(run: TraceRun) -> dict[str, object]:
    return {
        "optimizer": run.optimizer,
        "rate": run.rate,
        "data": run.data,
        "loss": run.loss,
        "losses": run.losses,
        "curves": [
            {"parameter": c.parameter, "gradient_rms": c.gradient_rms, "path": _path(c.path), "line": c.line}
            for c in run.curves
        ],
        "stopped": run.stopped,
        "agreement": run.agreement,
        "seconds": run.seconds,
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "rule": finding.rule,
        "family": finding.family,
        "severity": finding.severity,
        "verdict": finding.verdict,
        "message": finding.message,
        "module": finding.module,
        "path": _path(finding.span.path if finding.span else None),
        "line": finding.span.line if finding.span else None,
        "predicted": finding.predicted,
        "measured": finding.measured,
        "fixes": [_fix(fix) for fix in finding.fixes],
        "rejected": [_rejected(fix) for fix in finding.rejected],
        "column": _column(finding.span),
        "reason": finding.reason,
        "claim": _claim(finding.claim) if finding.claim else None,
        "related": [_related(related) for related in finding.related],
        "factors": [_factor(factor) for factor in finding.factors],
        "cause": finding.cause,
        "folded": finding.folded,
        "ops": finding.ops,
        "suppression": _suppression(finding.suppression) if finding.suppression else None,
    }


def _suppression(suppression: Suppression) -> dict[str, object]:
    span = suppression.span
    return {
        "kind": suppression.kind,
        "reason": suppression.reason,
        "path": _path(span.path if span else None),
        "line": span.line if span else None,
    }


def _column(span: Span | None) -> int | None:
    """1-based, as lines are."""
    return span.column + 1 if span else None


def _rejected(fix: Fix) -> dict[str, object]:
    return {"title": fix.title, "measured_before": fix.measured_before, "measured_after": fix.measured_after}


def _fix(fix: Fix) -> dict[str, object]:
    return {
        "title": fix.title,
        "measured_after": fix.measured_after,
        "measured_before": fix.measured_before,
        "price": fix.price,
        "symptomatic": fix.symptomatic,
        "applicable": fix.applicable,
        "advice": fix.advice,
        "layers": [_size(size) for size in fix.layers],
        "trained": [_trained(run) for run in fix.trained],
    }


def _trained(run: Trained) -> dict[str, object]:
    return {
        "optimizer": run.optimizer,
        "rate": run.rate,
        "rate_before": run.rate if run.rate_before is None else run.rate_before,
        "data": run.data,
        "before": run.before,
        "after": run.after,
        "step_time": run.step_time,
        "stopped_before": run.stopped[0],
        "stopped_after": run.stopped[1],
    }


def _size(size: Size) -> dict[str, object]:
    return {"index": size.op, "activation_rms": size.activation_rms, "gradient_rms": size.gradient_rms}


def _claim(claim: Claim) -> dict[str, object]:
    return {"quantity": claim.quantity, "subject": claim.subject, "limit": claim.limit, "sense": claim.sense}


def _related(related: Related) -> dict[str, object]:
    span = related.span
    return {
        "module": related.module,
        "path": _path(span.path if span else None),
        "line": span.line if span else None,
        "column": _column(span),
        "label": related.label,
    }


def _factor(factor: Factor) -> dict[str, object]:
    return {"op": factor.op, "module": factor.module, "label": factor.label, "decades": factor.decades}


def _layer(layer: Layer) -> dict[str, object]:
    return {
        "module": layer.module,
        "op": layer.op,
        "path": _path(layer.path),
        "line": layer.line,
        "activation_rms": layer.activation_rms,
        "gradient_rms": layer.gradient_rms,
        "predicted_gradient_rms": layer.predicted_gradient_rms,
        "predicted_activation_rms": layer.predicted_activation_rms,
        "kind": layer.kind,
        "index": layer.index,
        "ways": _ways(layer.ways) if layer.ways else None,
    }


def _ways(ways: Ways) -> dict[str, object]:
    return {
        "strongest": ways.strongest,
        "least": ways.least,
        "greatest": ways.greatest,
        "shares": [{"index": op, "share": share} for op, share in ways.shares.items()],
    }


def _path(path: str | None) -> str | None:
    """As the user would write it: relative to the working directory when it lies inside."""
    return None if path is None else shown(path)


def _clean(value: object) -> Any:
    """The value as strict JSON allows it. Raises TypeError for what has no JSON form: a bug of whoever put it there."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")  # no lone surrogates
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_clean(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [_clean(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no place in a JSON report")
