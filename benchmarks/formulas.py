"""The published formulas of tools that do not run here, replayed on one forward and one backward pass.

Each function takes a `Run` and yields what its tool would have said at that step. The thresholds are the documented
defaults; rules that need a history, a validation set or an optimizer step are left out. Activations are taken where
the function is called, so that `F.relu` counts as `nn.ReLU` does: more than the tools' own hooks would see.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from labelled import Case
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

ACTIVATIONS = {"relu", "relu_", "relu6", "sigmoid", "sigmoid_", "tanh", "tanh_", "softmax", "gelu", "elu", "leaky_relu"}


@dataclass(frozen=True)
class Activation:
    kind: str  # the function's name without a trailing underscore
    before: Tensor
    after: Tensor


@dataclass
class Run:
    """One forward and one backward: what was activated, the loss, the gradient of each parameter in float64."""

    case: Case
    loss: float
    activations: list[Activation] = field(default_factory=list)

    @property
    def gradients(self) -> dict[str, Tensor]:
        named = self.case.model.named_parameters()
        return {name: p.grad.double() for name, p in named if p.grad is not None and p.requires_grad}

    @property
    def weights(self) -> dict[str, Tensor]:
        return {name: p.detach().double() for name, p in self.case.model.named_parameters() if p.ndim > 1}

    @property
    def kernels(self) -> dict[str, Tensor]:
        """The weights of dense and convolutional layers, the two kinds that TheDeepChecker knows."""
        modules = self.case.model.named_modules()
        layers = [f"{name}.weight".lstrip(".") for name, m in modules if isinstance(m, nn.Linear | _ConvNd)]
        return {name: self.weights[name] for name in layers if name in self.weights and self.weights[name].numel() > 1}


class _Recorder(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Activation] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        known = name in ACTIVATIONS and args and isinstance(args[0], Tensor)
        before = args[0].detach().clone() if known else None
        result = function(*args, **(kwargs or {}))
        if before is not None and not any(before.data_ptr() == seen.after.data_ptr() for seen in self.seen[-1:]):
            self.seen.append(Activation(name.rstrip("_"), before, result.detach().clone()))
        return result


def replay(case: Case) -> Run:
    """One forward and backward of a case. Leaves the gradients in the model's parameters."""
    with _Recorder() as recorder:
        loss = case.loss(case.model(*case.inputs), case.target)
    loss.backward()
    return Run(case, float(loss.detach()), recorder.seen)


def sagemaker(run: Run) -> Iterator[str]:
    """SageMaker Debugger's built-in rules with their documented defaults (AWS, "List of Debugger built-in rules")."""
    for name, gradient in run.gradients.items():
        if not torch.isfinite(gradient).all():
            yield f"ExplodingTensor {name}"
        elif gradient.abs().mean() < 1e-7:
            yield f"VanishingGradient {name}"
        if not (gradient != 0).any():
            yield f"AllZero {name}"
    rectified = [float(a.before.double().var()) for a in run.activations if a.kind == "relu"]
    if len(rectified) > 1 and max(rectified) > 10 * min(rectified):
        yield "PoorWeightInitialization: variances of the inputs of the activations"
    spreads = [_spread(g) for g in run.gradients.values() if g.numel() > 20]
    if spreads and min(spreads) < 1e-3:
        yield "PoorWeightInitialization: range of the gradients"
    for a in run.activations:
        low, high = {"tanh": (-9.4999, 9.4999), "sigmoid": (-23.0, 16.99999)}.get(a.kind, (-math.inf, math.inf))
        if _share(_units((a.before > low) & (a.before < high)).mean(0) < 0.01) > 0.5:
            yield f"SaturatedActivation {a.kind}"
        if a.kind == "relu" and _share(_units(a.after > 0).mean(0) < 0.01) > 0.5:
            yield "DeadRelu"


def autotrainer(run: Run) -> Iterator[str]:
    """AutoTrainer's monitor (ICSE'21; AutoTrainer/utils/monitor.py, reproduce.py): β₁, β₂, β₃, γ, ω₁."""
    norms = [float(g.norm()) for name, g in run.gradients.items() if name in run.weights]
    if not math.isfinite(run.loss) or run.loss >= 1e3 or not all(math.isfinite(norm) for norm in norms):
        yield "explode: loss or gradient"
    if len(norms) > 1 and norms[-1] > 0:
        ratio = norms[0] / norms[-1]
        if ratio < 1e-3 and norms[0] < 1e-4:
            yield f"vanish: {ratio:.1e}"
        if ratio > 70:
            yield f"explode: {ratio:.1e}"
    total = sum(g.numel() for g in run.gradients.values())
    if total and sum(int((g == 0).sum()) for g in run.gradients.values()) >= 0.7 * total:
        yield "dying ReLU"
    if any(float(a.after.double().abs().mean()) >= 10 for a in run.activations):
        yield "improper data: mean of a hidden output"


def deepdiagnosis(run: Run) -> Iterator[str]:
    """DeepDiagnosis (ICSE'22; callback/callbacks.py) at its first batch, with its learning rate of 0.01."""
    for a in run.activations:
        if _share(a.after <= 0) >= 0.7:
            yield f"dead {a.kind}"
        if a.kind in ("sigmoid", "tanh", "softmax") and _share(a.before.abs() >= 5) > 0.5:
            yield f"saturated {a.kind}"
    for name, gradient in run.gradients.items():
        if not torch.isfinite(gradient).all():
            yield f"not finite {name}"
        elif gradient.abs().mean() < 1e-7:
            yield f"vanishing {name}"
    for name, weight in run.weights.items():
        if weight.numel() > 1 and not 1e-5 <= float(weight.var()) <= 10:
            yield f"poor weight {name}"
        if name in run.gradients and weight.norm() > 0:
            update = 0.01 * float(run.gradients[name].norm() / weight.norm())
            if not 1e-5 <= update <= 1e-1:
                yield f"update ratio {name}"


def thedeepchecker(run: Run) -> Iterator[str]:
    """TheDeepChecker (TOSEM'22; config/settings.yaml): its pre-training phase and the first step of the next."""
    yield from _initial_weights(run)
    classes = run.case.classes
    if classes and classes > 1 and abs(run.loss - math.log(classes)) > 1.0 * math.log(classes):
        yield "initial loss"
    for name, gradient in run.gradients.items():
        size = float(gradient.abs().mean())
        if not math.isfinite(size) or size > 1e6 or size < 1e-6:
            yield f"gradient {name}"
    for a in run.activations:
        units = _units(a.after)
        if a.kind == "relu" and _share(units.quantile(0.95, dim=0) < 1e-5) > 0.5:
            yield "dead relu"
        if a.kind in ("sigmoid", "tanh") and _share(_saturation(units, a.kind) > 0.85) > 0.5:
            yield f"saturated {a.kind}"


def _initial_weights(run: Run) -> Iterator[str]:
    """The F-test, α = 0.1, of each weight's variance against He, Glorot and LeCun; equal and dead weights."""
    from scipy.stats import f

    for name, weight in run.kernels.items():
        if float(weight.var()) <= 1e-8:
            yield f"equal weights {name}"
            continue
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
        degrees = weight.numel() - 1
        known = (2 / fan_in, 2 / (fan_in + fan_out), 1 / fan_in)
        tails = [float(f.cdf(float(weight.var()) / variance, degrees, degrees)) for variance in known]
        if not any(0.05 < tail < 0.95 for tail in tails):
            yield f"initial variance {name}"
        if _share(weight.abs() < 1e-5) > 0.95 or _share(weight < 0) > 0.95:
            yield f"dead weights {name}"


def _units(values: Tensor) -> Tensor:
    """(samples, units): channels are the units of a map (N, C, …), features those of (N, F) and of (N, T, F)."""
    values = values.float()
    if values.ndim == 4:
        return values.movedim(1, -1).flatten(0, -2)
    return values.flatten(0, -2) if values.ndim > 1 else values.reshape(-1, 1)


def _share(condition: Tensor) -> float:
    return float(condition.float().mean()) if condition.numel() else 0.0


def _spread(values: Tensor) -> float:
    """p95 - p5, of at most 100,000 entries."""
    flat = values.flatten()
    flat = flat[:: max(1, flat.numel() // 100_000)]
    low, high = torch.quantile(flat, torch.tensor([0.05, 0.95], dtype=flat.dtype))
    return float(high - low)


def _saturation(units: Tensor, kind: str, bins: int = 50) -> Tensor:
    """ρ_B of each unit (Rakitianskaia & Engelbrecht 2015): how far from the middle its histogram's bins lie."""
    scaled = 2 * units - 1 if kind == "sigmoid" else units
    index = ((scaled + 1) / 2 * bins).long().clamp(0, bins - 1)
    counts = torch.zeros(units.shape[1], bins).scatter_add_(1, index.T, torch.ones_like(index.T, dtype=torch.float))
    sums = torch.zeros(units.shape[1], bins).scatter_add_(1, index.T, scaled.T)
    return (sums / counts.clamp_min(1)).abs().mul(counts).sum(1) / counts.sum(1)
