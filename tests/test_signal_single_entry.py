"""Softmax and layer norm over one entry: nothing reaches what is before them, everything what is after."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradlint.capture import capture
from gradlint.signal import predict
from tests.test_signal_mechanisms import errors


class Alone(nn.Module):
    """A score for each sample, made a number by an op over its only entry, that weighs another branch."""

    def __init__(self, op: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.score, self.op = nn.Linear(16, 1), op
        self.value, self.head = nn.Linear(16, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.op(self.score(x)) * self.value(x))


@pytest.mark.parametrize("op", [nn.Softmax(-1), nn.LayerNorm(1)])
def test_a_number_that_depends_on_nothing(op: nn.Module) -> None:
    if isinstance(op, nn.LayerNorm):
        nn.init.constant_(op.bias, 0.7)
    model = Alone(op)
    graph, _ = capture(model, (torch.randn(64, 16),))
    signal = predict(graph)
    assert not signal.unknown
    assert all(signal.profile.params[f"score.{name}"] == -math.inf for name in ("weight", "bias"))
    found, _ = errors(model, (64, 16), 40)
    assert found.keys() >= {"value.weight", "head.weight"}
    assert max(abs(error) for error in found.values()) < 0.1
