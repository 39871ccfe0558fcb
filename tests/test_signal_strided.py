"""Memory read in other steps: how strides are understood, and what that does to gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gradlint.capture import capture
from gradlint.signal import predict
from gradlint.signal.transfer_strided import Reading, Run, read
from tests.test_signal_coverage import Around, worst


@pytest.mark.parametrize(
    ("before", "after", "strides", "expected"),
    [
        (
            (4, 20, 8),
            (4, 8, 6, 8),
            (160, 16, 8, 1),
            Reading((0, 1, 2), (4, 20, 8), (Run(0, 1), Run(1, 2), Run(1, 1), Run(2, 1))),
        ),
        ((6, 5), (5, 6), (1, 5), Reading((0, 1), (6, 5), (Run(1, 1), Run(0, 1)))),
        ((3, 10), (3, 9), (10, 1), Reading((0, 1), (3, 10), (Run(0, 1), Run(1, 1)))),
        ((10,), (4, 5, 2), (2, 1, 1), None),
    ],
)
def test_strides_are_runs_along_lines(before, after, strides, expected) -> None:
    assert read(before, after, strides) == expected


def overlapping(x: Tensor) -> Tensor:
    """Beltagy et al. 2020 (Longformer): chunks of 8 tokens that overlap by half, of a tensor whose heads lie inside."""
    chunks = x.transpose(0, 1).reshape(32, 8, 16).transpose(0, 1).unflatten(1, (4, 8))
    size, stride = list(chunks.shape), list(chunks.stride())
    size[1], stride[1] = 2 * size[1] - 1, stride[1] // 2
    return torch.tanh(chunks.as_strided(size, stride))


def sums_of_windows(x: Tensor) -> Tensor:
    x = x.contiguous()
    return x.as_strided((8, 13, 8, 16), (512, 32, 16, 1)).sum(2)


def first_rows(x: Tensor) -> Tensor:
    return x.contiguous().as_strided((8, 20, 16), (512, 16, 1))


@pytest.mark.parametrize("op", [overlapping, sums_of_windows, first_rows])
def test_windows_cut_by_strides(op: Callable[[Tensor], Tensor]) -> None:
    assert worst(Around(lambda p, x: op(x)), 8, 32, 16) < 0.06


def test_a_diagonal_is_unknown() -> None:
    model = Around(lambda p, x: x.as_strided((8, 16), (512, 17)))
    model(torch.randn(8, 32, 16))
    graph, _ = capture(model, (torch.randn(8, 32, 16),))
    assert "first.weight" not in predict(graph).profile.params
    assert math.isfinite(predict(graph).profile.activation[graph.inputs[0]])
