"""The gradient that each parameter got."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from gradlint.capture.sharded import sums
from gradlint.graph.ir import Graph
from gradlint.probe.ledger import Ledger, log10, log_rms, log_rms_each
from gradlint.probe.sites import SMALL
from gradlint.profile import ParamMeasure

RUNS, LENGTH = 64, 16  # where the share of zeros of a large gradient is counted


@contextmanager
def watched(ledger: Ledger, params: Mapping[str, nn.Parameter]) -> Iterator[set[str]]:
    """Measure the gradient of each large parameter when it arrives, while it is in the cache; gives those measured.

    Parameters that are spread over processes, and sparse gradients, are left for `measure`.
    """
    done: set[str] = set()

    def take(path: str, param: Tensor) -> None:
        if param.grad is not None and param.grad.layout is torch.strided:
            _measure_large(ledger, path, param.grad)
            done.add(path)

    hooks = [
        param.register_post_accumulate_grad_hook(partial(take, path))  # type: ignore[no-untyped-call]
        for path, param in params.items()
        if param.numel() > SMALL and param.requires_grad and param.is_leaf and not hasattr(param, "to_local")
    ]
    try:
        yield done
    finally:
        for hook in hooks:
            hook.remove()


def measure(
    ledger: Ledger, params: Mapping[str, nn.Parameter], weights: Iterable[str], done: AbstractSet[str] = frozenset()
) -> None:
    """Note log10 RMS ("grad") and share of zeros ("zeros") of every gradient, and log10 RMS of the named weights.

    The gradients in `done` were noted before.
    """
    small: dict[str, Tensor] = {}
    for path, param in params.items():
        gradient = None if path in done else param.grad
        if gradient is None:
            continue
        if type(gradient) is not Tensor and (found := sums(gradient)) is not None:
            _note_sums(ledger, path, found)
            continue
        gradient = _entries(gradient)
        size = gradient.numel()
        if size > SMALL:
            _measure_large(ledger, path, gradient)
        elif size:
            small[path] = gradient
    log_rms_each(ledger, "grad", small)
    _measure_weights(ledger, params, weights)


def _measure_large(ledger: Ledger, path: str, gradient: Tensor) -> None:
    log_rms(ledger, "grad", path, gradient)
    _note_zeros(ledger, path, gradient)


def _measure_weights(ledger: Ledger, params: Mapping[str, nn.Parameter], weights: Iterable[str]) -> None:
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


def _entries(gradient: Tensor) -> Tensor:
    """The gradient as a dense tensor; a sparse one (embedding) keeps its zeros, as they count for the RMS."""
    return gradient if gradient.layout is torch.strided else gradient.to_dense()


def _note_zeros(ledger: Ledger, path: str, gradient: Tensor) -> None:
    """The share of zeros, on RUNS runs of LENGTH entries at an odd distance, so that they are not from few columns."""
    flat = gradient.reshape(-1).contiguous()
    runs = flat.as_strided((RUNS, LENGTH), (((len(flat) - LENGTH) // RUNS - 1) | 1, 1))
    count = runs.numel()
    ledger.put("zeros", [path], torch.count_nonzero(runs).reshape(1), lambda found: 1.0 - found / count)
