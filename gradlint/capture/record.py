"""What is kept of a run: the tensors that were there before it, and each call, as plain data without storage."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gradlint.graph.ir import Origin, Span

if TYPE_CHECKING:
    import torch

    from gradlint.capture.calls import Function

Place = tuple[int, str, int]  # rank, path, line


def span(place: Place | None) -> Span | None:
    """The place as a span of the report."""
    return None if place is None else Span(place[1], place[2])


REBASED = -1  # the output number of the base that an in-place operation on a view changes as well


class Meta(NamedTuple):
    """What is kept of a tensor: its shape, dtype and whether a gradient flows back to it. Never its storage."""

    shape: tuple[int, ...]
    dtype: torch.dtype | str  # torch's own, or its name
    requires_grad: bool


@dataclass(slots=True, eq=False)
class Leaf:
    """A tensor that no recorded call produced."""

    origin: Origin
    path: str
    meta: Meta
    tensor: weakref.ref[torch.Tensor] | None = None


@dataclass(slots=True, eq=False)
class Call:
    """One recorded call. `args` and `kwargs` hold a `Ref` for each tensor.

    `rebased` describes the base that the call changed through a view of it; `paths` say where in its result each output
    stands.
    """

    index: int
    func: Function | None
    name: str
    outputs: list[Meta]
    path: str
    type: str
    place: Place | None
    inplace: bool
    grad_enabled: bool
    custom: bool
    args: Any = ()
    kwargs: Any = None
    paths: list[tuple[int | str, ...]] = field(default_factory=list)
    rebased: Meta | None = None
    curve: dict[str, list[float]] | None = None  # of a custom function that works entry by entry


class Ref(NamedTuple):
    """A tensor in a call's arguments: a leaf, or output number `output` of a call."""

    node: Leaf | Call
    output: int

    @property
    def meta(self) -> Meta:
        """The tensor's metadata when it was produced."""
        if isinstance(self.node, Leaf):
            return self.node.meta
        if self.output == REBASED and self.node.rebased is not None:
            return self.node.rebased
        return self.node.outputs[self.output]
