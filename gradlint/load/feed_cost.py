"""What a run costs, counted call by call: additions and multiplications, and the bytes that a backward pass keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

SECONDS_A_CALL = 2e-5
OPERATIONS_A_SECOND = 2e10
"""What one CPU core does, measured on convolutions and matrix products in float32 (2e10 to 6e10)."""


@dataclass
class Cost:
    """Running totals of one run: floating-point operations, bytes of the results, and calls."""

    operations: float = 0.0
    bytes: float = 0.0
    calls: int = 0

    @property
    def seconds(self) -> float:
        """The time of such a run on one CPU core, within a factor of about three.

        Counted and not clocked, so that the same file gets the same inputs on a busy machine as on an idle one.
        """
        return self.operations / OPERATIONS_A_SECOND + self.calls * SECONDS_A_CALL

    def times(self, factor: float) -> Cost:
        """That of a batch so many times as large: calls stay."""
        return Cost(self.operations * factor, self.bytes * factor, self.calls)

    def add(self, name: str, taken: Sequence[Tensor], made: Sequence[Tensor]) -> None:
        """Count one call."""
        self.calls += 1
        self.bytes += sum(t.numel() * t.element_size() for t in made)
        count = OPERATIONS.get(name)
        if count is not None and len(taken) > 1:
            self.operations += count(taken, made[0])


def _weighted(taken: Sequence[Tensor], made: Tensor) -> float:
    """linear, conv: every output takes one row of the weight."""
    return 2.0 * made.numel() * math.prod(taken[1].shape[1:])


def _transposed(taken: Sequence[Tensor], made: Tensor) -> float:
    return 2.0 * taken[0].numel() * math.prod(taken[1].shape[1:])


def _product(taken: Sequence[Tensor], made: Tensor) -> float:
    return 2.0 * made.numel() * (taken[-2].shape[-1] if taken[-2].dim() else 1)


def _attention(taken: Sequence[Tensor], made: Tensor) -> float:
    return 4.0 * made.numel() * taken[1].shape[-2]


def _recurrent(taken: Sequence[Tensor], made: Tensor) -> float:
    """Every step multiplies every weight once a sample."""
    weights = sum(t.numel() for t in taken[1:] if t.dim() == 2)
    return 2.0 * weights * math.prod(taken[0].shape[:-1])


def _self_attention(taken: Sequence[Tensor], made: Tensor) -> float:
    """multi_head_attention_forward: four projections, and scores between all steps."""
    query = taken[0]
    return 8.0 * query.numel() * query.shape[-1] + 4.0 * query.numel() * query.shape[0]


OPERATIONS: dict[str, Callable[[Sequence[Tensor], Tensor], float]] = {
    "linear": _weighted,
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), _weighted),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _transposed),
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm", "addmm", "baddbmm"), _product),
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _self_attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
}
