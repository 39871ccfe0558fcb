"""A model that is ready to run, and everything known about how it came to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gradlint.graph.ir import Span
from gradlint.result import InputUsed

if TYPE_CHECKING:
    from torch import nn

Draw = Callable[[int], tuple[tuple[object, ...], dict[str, object]]]


@dataclass(frozen=True)
class Batch:
    """Arguments of one call of the model, and what its output is compared with (None: something is drawn)."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    target: object = None


@dataclass
class LoadedModel:
    """One model of a target, with example inputs.

    `rebuild` makes it again with fresh initial weights drawn from torch's global generator (None for a loaded
    checkpoint); `draw` gives other example inputs of the same shapes for a seed. With data of the user's own, `batches`
    gives them by number, `target` belongs to the first one, and `entry` is the method that is called.
    """

    model: nn.Module
    args: tuple[object, ...]
    kwargs: dict[str, object]
    inputs: tuple[InputUsed, ...]
    name: str
    span: Span | None
    rebuild: Callable[[], nn.Module] | None
    draw: Draw
    loss: str | None = None  # "own" when the model computes its loss itself
    loss_hint: str | None = None  # the loss that the file applies to the model
    notes: tuple[str, ...] = field(default=())
    target: object = None
    batches: Callable[[int], Batch] | None = None
    entry: str = "forward"
    awaited: frozenset[str] = frozenset()  # parameters whose pretrained weights, or the net around them, are not there
    doubt: Callable[[], str] | None = None  # why a converted model is not what its file computes; "" when it is
