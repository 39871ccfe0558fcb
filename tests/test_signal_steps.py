"""Recurrent networks with dropout between layers and over packed batches, against real float64 backward passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gradlint.capture import capture
from gradlint.signal import predict
from tests.test_signal_mechanisms import errors


class Tagger(nn.Module):
    """A recurrent network over a whole sequence, and a linear layer at each of its steps."""

    def __init__(self, net: nn.RNNBase, lengths: list[int] | None = None) -> None:
        super().__init__()
        self.first, self.net, self.head, self.lengths = nn.Linear(16, 16), net, nn.Linear(48, 24), lengths

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x))
        if self.lengths is None:
            return self.head(self.net(x)[0])
        packed = pack_padded_sequence(x, torch.tensor(self.lengths), batch_first=self.net.batch_first)
        return self.head(pad_packed_sequence(self.net(packed)[0], batch_first=self.net.batch_first)[0])


def off(model: nn.Module, *shape: int) -> float:
    found, signal = errors(model, shape)
    assert not signal.unknown
    return max(abs(error) for name, error in found.items() if "weight" in name)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_dropout_between_layers(kind: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    assert off(Tagger(kind(16, 48, num_layers=2, batch_first=True, dropout=0.75)), 16, 8, 16) < 0.12


@pytest.mark.parametrize("steps", [8, 5])
@pytest.mark.parametrize("batch_first", [True, False])
def test_a_packed_batch_of_sequences_of_one_length(batch_first: bool, steps: int) -> None:
    torch.manual_seed(0)
    size = (16, 8, 16) if batch_first else (8, 16, 16)
    assert off(Tagger(nn.LSTM(16, 48, batch_first=batch_first), [steps] * 16), *size) < 0.12


def test_a_packed_batch_of_sequences_of_different_lengths_is_unknown() -> None:
    model = Tagger(nn.LSTM(16, 48, batch_first=True), [8, 5, 3])
    graph, _ = capture(model, (torch.randn(3, 8, 16),))
    signal = predict(graph)
    assert "net.weight_ih_l0" not in signal.profile.params
    assert any("different lengths" in reason for reason in signal.unknown.values())
