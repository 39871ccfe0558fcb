"""The rows of the chart: each operation by the output that the rest of the run reads."""

import pytest
import torch
from torch import nn

import gradlint


class Last(nn.Module):
    """A recurrent net of which only the last state, the second output, is used."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.rnn = kind(8, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        state = self.rnn(x)[1]
        return self.head((state[0] if isinstance(state, tuple) else state).squeeze(0))


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_recurrent_layer_is_measured_where_it_is_read(kind):
    torch.manual_seed(0)
    (target,) = gradlint.check(Last(kind), torch.randn(5, 32, 8), loss="ce").targets
    (row,) = (layer for layer in target.layers if layer.kind == "recurrent")
    assert row.gradient_rms > 0 and row.activation_rms > 0 and row.predicted_gradient_rms > 0
