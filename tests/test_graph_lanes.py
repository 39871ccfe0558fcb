"""Where the samples of a batch lie: followed through what keeps them apart, and lost with a reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradlint.capture import capture
from gradlint.graph.lanes import Lane, Where, lanes

BATCH, STEPS, WIDTH = 6, 4, 8


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def followed(function: Callable[[Tensor], Tensor], axis: int = 0) -> Where | None:
    graph, _ = capture(Applied(function), (torch.randn(BATCH, STEPS, WIDTH, requires_grad=True),), {})
    return lanes(graph)[axis].get(graph.outputs[0])


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda x: torch.tanh(x) * 2 + 1, Lane(0, BATCH)),
        (lambda x: x.transpose(0, 1), Lane(1, BATCH)),
        (lambda x: x.flatten(1), Lane(0, BATCH)),
        (lambda x: x.flatten(0, 1), Lane(0, BATCH, inner=STEPS)),
        (lambda x: x.flatten(0, 1).view(BATCH, STEPS, WIDTH), Lane(0, BATCH)),
        (lambda x: x.view(2, 3, STEPS, WIDTH), "unknown"),
        (lambda x: x[:, -1], Lane(0, BATCH)),
        (lambda x: x[None], Lane(1, BATCH)),
        (lambda x: x.mean(1), Lane(0, BATCH)),
        (lambda x: x.mean(0), "gone"),
        (lambda x: x[0], "gone"),
        (lambda x: x.softmax(-1), Lane(0, BATCH)),
        (lambda x: x.softmax(0), "mixed"),
        (lambda x: x.view(STEPS, BATCH, WIDTH), "scrambled"),
        (lambda x: x @ x.transpose(1, 2), Lane(0, BATCH)),
        (lambda x: torch.cat([x, x], dim=2), Lane(0, BATCH)),
        (lambda x: torch.cat([x, x], dim=0), "unknown"),
    ],
)
def test_the_samples_are_found_again(function: Callable[[Tensor], Tensor], place: Where) -> None:
    assert followed(function) == place


@pytest.mark.parametrize(
    ("function", "place"),
    [
        (lambda x: x.transpose(0, 1), Lane(0, STEPS)),
        (lambda x: x[:, -1], "gone"),
        (lambda x: x.mean(1, keepdim=True), "gone"),
        (lambda x: x.flatten(0, 1), Lane(0, STEPS)),
    ],
)
def test_the_second_axis_is_followed_too(function: Callable[[Tensor], Tensor], place: Where) -> None:
    assert followed(function, axis=1) == place


def test_a_recurrence_mixes_the_axis_it_runs_along() -> None:
    last, first = nn.GRU(WIDTH, 5), nn.GRU(WIDTH, 5, batch_first=True)
    assert followed(lambda x: last(x)[0]) == "mixed"
    assert followed(lambda x: first(x)[0]) == Lane(0, BATCH)


def test_a_further_output_has_axes_of_its_own():
    """`pad_packed_sequence` gives the lengths beside the states: (batch,) beside (batch, time, features)."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(WIDTH, WIDTH, batch_first=True)

        def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            states, kept = nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
            return states[:, 0] * kept[:, None]

    lengths = torch.full((BATCH,), STEPS)
    graph, _ = capture(Packed(), (torch.randn(BATCH, STEPS, WIDTH, requires_grad=True), lengths), {})
    for followed in lanes(graph):
        inside = [(v, place) for v, place in followed.items() if isinstance(place, Lane)]
        assert graph.outputs[0] in followed and inside
