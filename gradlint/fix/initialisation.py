"""The weight initialisations that fixes try, drawn from explicit generators so that a trial can be repeated."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from gradlint.fix.candidate import Initialise

Draw = Callable[[Tensor, Initialise, torch.Generator], Tensor]


def initialise(parameter: Tensor, step: Initialise, seed: int) -> None:
    """Overwrite the parameter in place as the step says. The draw depends on the seed and the parameter's path only."""
    generator = torch.Generator().manual_seed(zlib.crc32(step.param.encode()) + seed)
    with torch.no_grad():
        parameter.copy_(SCHEMES[step.scheme](parameter.detach().cpu(), step, generator))


def _scaled_normal(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    """N(0, gain²/fan_in): He et al. 2015 with gain √2, LeCun 1998 with gain 1."""
    return _normal(old, step.gain / math.sqrt(step.fan_in), generator)


def _xavier_normal(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    """N(0, gain²·2/(fan_in + fan_out)): Glorot & Bengio 2010, eq. 12."""
    return _normal(old, step.gain * math.sqrt(2.0 / (step.fan_in + step.fan_out)), generator)


def _uniform(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    """U(±gain/√fan_in): torch's default for linear and convolution layers with gain 1."""
    bound = step.gain / math.sqrt(step.fan_in)
    return torch.empty(old.shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator).to(old.dtype)


def _orthogonal(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    """gain × a (semi-)orthogonal matrix of the weight flattened after its first axis (Saxe et al. 2014)."""
    rows, columns = old.shape[0], old.numel() // old.shape[0]
    drawn = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    basis, upper = torch.linalg.qr(drawn)
    basis = basis * upper.diagonal().sign()  # makes the draw uniform (Mezzadri 2007)
    matrix = basis if rows >= columns else basis.T
    return torch.mul(matrix, step.gain).reshape(old.shape).to(old.dtype)


def _orthogonal_gates(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix for each gate of a recurrent weight of shape (gates × hidden, hidden)."""
    hidden = old.shape[1]
    return torch.cat([_orthogonal(gate, step, generator) for gate in torch.tensor_split(old, old.shape[0] // hidden)])


def _eye(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    return torch.eye(*old.shape, dtype=old.dtype)


def _constant(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    return torch.zeros_like(old)


def _scale(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    return old * step.gain


def _forget_bias(old: Tensor, step: Initialise, generator: torch.Generator) -> Tensor:
    """The second quarter, torch's forget gate (its order is i, f, g, o), set to the gain; the rest zero."""
    hidden = old.shape[0] // 4
    return torch.cat([torch.zeros_like(old[:hidden]), torch.full_like(old[:hidden], step.gain), 0 * old[2 * hidden :]])


def _normal(old: Tensor, std: float, generator: torch.Generator) -> Tensor:
    return (torch.randn(old.shape, generator=generator) * std).to(old.dtype)


SCHEMES: Mapping[str, Draw] = {
    "kaiming_normal": _scaled_normal,
    "lecun_normal": _scaled_normal,
    "normal": _scaled_normal,
    "xavier_normal": _xavier_normal,
    "default": _uniform,
    "default_bias": _uniform,
    "siren": _uniform,
    "orthogonal": _orthogonal,
    "orthogonal_gates": _orthogonal_gates,
    "eye": _eye,
    "zeros": _constant,
    "scale": _scale,
    "forget_bias": _forget_bias,
}
