"""What an output is compared with: targets from a batch of the user's own, or drawn to fit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradlint.error import ProbeError
from gradlint.graph.ir import Op

Random = torch.Generator  # on the CPU, so that targets are the same on every device

UNIT = frozenset({"sigmoid", "hardsigmoid"})
SYMMETRIC = frozenset({"tanh", "hardtanh", "softsign"})


@dataclass(frozen=True)
class Target:
    """One output to take a loss of: the tensor, the axis that holds the classes, and the op that made it.

    `given` is what it is compared with where the user's data say so: labels of its shape without the class axis, or
    numbers of its shape.
    """

    output: Tensor
    axis: int
    op: Op | None = None
    given: Tensor | None = None

    @property
    def classes(self) -> int:
        """The length of the class axis."""
        return self.output.shape[self.axis] if self.output.ndim else 1

    @property
    def labelled(self) -> bool:
        """Whether the given numbers are labels of classes."""
        return self.given is not None and self.given.shape != self.output.shape


def fitted(target: Target, given: object) -> Target:
    """The target with the user's own numbers, the class axis being the one that they lack.

    Raises ProbeError when they are no tensor, or of a shape that no loss of this module takes.
    """
    if not isinstance(given, Tensor):
        raise ProbeError(
            f"the targets of the data are of type {type(given).__name__}",
            "say how they are used: --loss module:function",
        )
    shape, output = given.shape, target.output.shape
    if given.numel() == target.output.numel() and (given.is_floating_point() or shape == output or target.classes == 1):
        return replace(target, given=given.reshape(output).to(target.output))
    axes = [target.axis, *range(len(output))]
    axis = next((a for a in axes if output[:a] + output[a + 1 :] == shape), None)
    if axis is None and given.numel() * target.classes == target.output.numel():
        axis = target.axis
    if axis is None or given.is_floating_point():
        sizes = f"{_text(shape)} fit no loss on an output of shape {_text(output)}"
        raise ProbeError(f"targets of shape {sizes}", "say how they are compared: --loss module:function")
    return replace(target, axis=axis, given=given)


def rows(target: Target) -> Tensor:
    """The output as (positions, classes)."""
    output = target.output
    if output.ndim == 2 and target.axis == 1:
        return output
    return output.movedim(target.axis, -1).reshape(-1, target.classes)


def labels(target: Target, random: Random) -> Tensor:
    """One label a position, or the given ones; given probabilities as (positions, classes)."""
    if target.given is not None:
        if target.labelled:
            return target.given.reshape(-1).long().to(target.output.device)
        return target.given.movedim(target.axis, -1).reshape(-1, target.classes)
    positions = target.output.numel() // max(1, target.classes)
    return torch.randint(target.classes, (positions,), generator=random).to(target.output.device)


def bits(target: Target, random: Random) -> Tensor:
    """0 or 1 for every entry, or the given numbers."""
    if target.given is not None:
        return _alike(target)
    return torch.randint(2, target.output.shape, generator=random).to(target.output)


def normal(target: Target, random: Random) -> Tensor:
    """N(0, 1) numbers of the output's shape."""
    return torch.randn(target.output.shape, generator=random).to(target.output)


def numbers(target: Target, random: Random) -> Tensor:
    """The given numbers; else N(0, 1) ones, or uniform ones within the bounds of a bounded output."""
    if target.given is not None:
        return _alike(target)
    known = bounds(target.op)
    if known is None:
        return normal(target, random)
    return torch.rand(target.output.shape, generator=random).to(target.output) * (known[1] - known[0]) + known[0]


def bounds(op: Op | None) -> tuple[float, float] | None:
    """The range of an output that ends in this op, where it is bounded."""
    function = op.function if op is not None else ""
    if function in UNIT or function == "softmax":
        return 0.0, 1.0
    return (-1.0, 1.0) if function in SYMMETRIC else None


def _alike(target: Target) -> Tensor:
    """The given numbers in the output's shape; labels as one-hot vectors."""
    assert target.given is not None
    if not target.labelled:
        return target.given
    hot = torch.nn.functional.one_hot(target.given.long().to(target.output.device), target.classes)
    return hot.movedim(-1, target.axis).to(target.output)


def _text(shape: torch.Size) -> str:
    return "×".join(map(str, shape)) or "scalar"
