"""The gradient that each parameter got."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping

import torch
from torch import Tensor, nn

from gradlint.capture.sharded import sums
from gradlint.graph.ir import Graph
from gradlint.probe.collector import SMALL
from gradlint.probe.ledger import Ledger, alike, log10, log_rms, log_rms_of
from gradlint.profile import ParamMeasure

SAMPLE = 1 << 10  # entries of a large gradient that the share of zeros is counted on


def measure(ledger: Ledger, params: Mapping[str, nn.Parameter], weights: Iterable[str]) -> None:
    """Note log10 RMS ("grad") and share of zeros ("zeros") of every gradient, and log10 RMS of the named weights."""
    small: list[tuple[str, Tensor]] = []
    for path, param in params.items():
        if (found := sums(param.grad)) is not None:
            _note_sums(ledger, path, found)
            continue
        gradient = _entries(param.grad)
        if gradient is None or not gradient.numel():
            continue
        if gradient.numel() <= SMALL:
            small.append((path, gradient))
        else:
            log_rms(ledger, "grad", path, gradient)
            ledger.put("zeros", [path], _zero_share(gradient))
    for paths, stacked in alike(small):
        log_rms_of(ledger, "grad", paths, stacked)
    for path in weights:
        if (found := sums(params[path].detach())) is not None:
            ledger.note("weight", path, log10(math.sqrt(found[0] / max(1, found[2]))))
        elif params[path].numel():
            log_rms(ledger, "weight", path, params[path].detach())


def _note_sums(ledger: Ledger, path: str, found: tuple[float, int, int]) -> None:
    square, zeros, count = found
    if count:
        ledger.note("grad", path, log10(math.sqrt(square / count)))
        ledger.note("zeros", path, zeros / count)


def collect(
    params: Mapping[str, nn.Parameter], graph: Graph, tables: Mapping[str, Mapping[Hashable, float]]
) -> dict[str, ParamMeasure]:
    """One measure a parameter from what was noted; weights that were not measured again are those of the graph."""
    read = {path for op in graph.ops for path in op.params}
    return {
        path: _measure(path, param, graph, tables, absent="none" if path in read else "unused")
        for path, param in params.items()
    }


def _measure(
    path: str, param: nn.Parameter, graph: Graph, tables: Mapping[str, Mapping[Hashable, float]], absent: str
) -> ParamMeasure:
    weight = tables.get("weight", {}).get(path)
    if weight is None:
        known = graph.params.get(path)
        weight = math.nan if known is None or known.rms is None else log10(known.rms)
    grad = tables.get("grad", {}).get(path)
    if grad is None:
        return ParamMeasure(-math.inf, weight, absent if param.requires_grad else "frozen")
    zeros = tables.get("zeros", {}).get(path, 0.0)
    status = "zero" if grad == -math.inf else "ok" if math.isfinite(grad) else "nonfinite"
    elasticity = grad + weight + math.log10(max(1, param.numel()))
    return ParamMeasure(grad, weight, status, zeros, None if math.isnan(elasticity) else elasticity)


def _entries(gradient: Tensor | None) -> Tensor | None:
    """The gradient as a dense tensor; a sparse one (embedding) keeps its zeros, as they count for the RMS."""
    if gradient is None or gradient.layout is torch.strided:
        return gradient
    return gradient.to_dense()


def _zero_share(gradient: Tensor) -> Tensor:
    """On at most SAMPLE entries at an odd stride, so that they do not come from few columns."""
    flat = gradient.reshape(-1)
    return (flat[:: max(1, len(flat) // SAMPLE) | 1] == 0).float().mean().reshape(1)
