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
from gradlint.probe.ledger import Ledger, alike, log10, log_rms, log_rms_alike
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
            log_rms(ledger, "grad", path, param.grad)
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
    ledger: Ledger,
    params: Mapping[str, nn.Parameter],
    gradients: Mapping[str, Tensor],
    weights: Iterable[str],
    done: AbstractSet[str],
) -> None:
    """Note log10 RMS ("grad") and share of zeros ("zeros") of every gradient, and log10 RMS of the named weights.

    Of the large gradients in `done` the size was noted before.
    """
    samples = {path: _sample(gradients[path]) for path in done}
    for paths, members in alike((path, gradient) for path, gradient in gradients.items() if path not in done):
        first = members[0]
        if type(first) is Tensor and first.layout is torch.strided and 0 < first.numel() <= SMALL:
            log_rms_alike(ledger, "grad", paths, members)
        else:
            alone = ((path, _measure_alone(ledger, path, member)) for path, member in zip(paths, members, strict=True))
            samples |= {path: sample for path, sample in alone if sample is not None}
    _note_zeros(ledger, samples)
    _measure_weights(ledger, params, weights)


def _measure_alone(ledger: Ledger, path: str, gradient: Tensor) -> Tensor | None:
    """Note the size of one gradient; gives a sample of a large one."""
    if type(gradient) is not Tensor and (found := sums(gradient)) is not None:
        _note_sums(ledger, path, found)
        return None
    dense = gradient if gradient.layout is torch.strided else gradient.to_dense()  # its zeros count for the RMS
    if dense.numel():
        log_rms(ledger, "grad", path, dense)
    return _sample(dense) if dense.numel() > SMALL else None


def _sample(gradient: Tensor) -> Tensor:
    """RUNS runs of LENGTH entries of a large gradient at an odd distance, so that they are not from few columns."""
    flat = gradient.reshape(-1).contiguous()
    distance = ((len(flat) - LENGTH) // RUNS - 1) | 1
    return flat.as_strided((RUNS, LENGTH), (distance, 1), flat.storage_offset()).clone()


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


def _note_zeros(ledger: Ledger, samples: Mapping[str, Tensor]) -> None:
    """Note the share of zeros in the samples of large gradients."""
    for paths, members in alike(samples.items()):
        nonzero = torch.count_nonzero(torch.stack(members), dim=(1, 2))
        ledger.put("zeros", paths, nonzero, lambda found: 1.0 - found / (RUNS * LENGTH))
