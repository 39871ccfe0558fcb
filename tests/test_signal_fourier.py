"""The real part of Fourier transforms: moments against draws, gradients against real backward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from gradlint.capture import capture
from gradlint.signal import predict
from gradlint.signal.transfer_fourier import cosines
from tests.test_signal_coverage import Around, worst


@pytest.mark.parametrize("shape", [(4, 6), (5, 4)])
def test_moments_by_shared_indices_against_draws(shape: tuple[int, int]) -> None:
    random, (rows, columns) = np.random.default_rng(0), shape
    parts = [random.normal(size=(20_000, *size)) for size in ((1, 1), (rows, 1), (1, columns), shape)]
    x = 0.3 * parts[0] + 0.7 * parts[1] + 1.1 * parts[2] + 0.9 * parts[3]

    def shared(y: np.ndarray) -> np.ndarray:
        """E[y y′] by whether the row and the column are the same."""
        products = np.einsum("bij,bkl->ijkl", y, y) / len(y)
        same = [[np.eye(size, dtype=bool) ^ (not equal) for equal in (0, 1)] for size in shape]
        return np.array(
            [[products.transpose(0, 2, 1, 3)[same[0][i]][:, same[1][j]].mean() for j in (0, 1)] for i in (0, 1)]
        )

    found = cosines(shared(x)[None], [0, 1], list(shape))[0]
    assert np.allclose(found, shared(np.fft.fft2(x).real), atol=0.05 * rows * columns)


def mixed(x: Tensor) -> Tensor:
    """Lee-Thorp et al. 2022 (FNet): tokens are mixed by the real part of the transform along tokens and features."""
    return torch.fft.fftn(x, dim=(1, 2)).real


@pytest.mark.parametrize("op", [mixed, lambda x: torch.fft.fft(x, dim=1).real, lambda x: torch.fft.fft2(x).real])
def test_a_fourier_transform_between_two_layers(op) -> None:
    assert worst(Around(lambda p, x: op(torch.tanh(x))), 8, 12, 16) < 0.06


def test_the_size_of_complex_numbers_is_unknown() -> None:
    model = Around(lambda p, x: torch.fft.fft(x).abs())
    model(torch.randn(8, 16))
    graph, _ = capture(model, (torch.randn(8, 16),))
    signal = predict(graph)
    assert any("more than the real part" in reason for reason in signal.unknown.values())
    assert "first.weight" not in signal.profile.params
