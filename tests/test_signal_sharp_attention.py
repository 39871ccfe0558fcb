"""Softmax rows of which few keys have the weight: moments against draws, gradients against real backward passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional as F

from gradlint.signal.participation import jacobian, overlap, participation
from tests.test_signal_coverage import Around, worst


@pytest.mark.parametrize("variance", [0.1, 2.0, 12.0, 300.0])
@pytest.mark.parametrize("count", [2, 9, 64])
def test_moments_of_softmax_rows_against_draws(count: int, variance: float) -> None:
    logits = np.random.default_rng(0).normal(size=(600_000 // count, count)) * math.sqrt(variance)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    square = (weights**2).sum(1)
    found = participation(variance, float(count))
    assert found.square == pytest.approx(square.mean(), rel=0.02)
    assert found.jacobian == pytest.approx(
        (weights**2 * (1.0 - 2.0 * weights + square[:, None])).sum(1).mean(), rel=0.05
    )


def test_nearly_equal_weights_are_those_of_the_annealed_average() -> None:
    covariance = np.array([[0.001, 0.002], [0.0, 0.01]])
    assert np.allclose(overlap(covariance, 1.0 / 16), np.exp(covariance) / (np.exp(covariance) + 15.0), rtol=1e-3)
    assert jacobian(np.array([1e-4]), 1.0 / 16) == 1.0


def test_rows_of_unlike_logits_share_what_chance_gives_them() -> None:
    assert overlap(np.array([0.0, 30.0]), 1.0 / 16)[0] == pytest.approx(1.0 / 16)


def cosine_attention(scale: float):
    """Liu et al. 2022 (Swin V2), eq. 2: the logits are cosines times a scale that starts at 10."""

    def attend(p, x: Tensor) -> Tensor:
        q, k = (F.normalize((x @ p[name]).unflatten(-1, (2, 8)).transpose(1, 2), dim=-1) for name in "qk")
        v = (x @ p["v"]).unflatten(-1, (2, 8)).transpose(1, 2)
        return ((scale * q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(1, 2).flatten(2)

    return attend


@pytest.mark.parametrize("scale", [1.0, 10.0, 30.0])
def test_logits_that_single_out_few_keys(scale: float) -> None:
    assert worst(Around(cosine_attention(scale), q=(16, 16), k=(16, 16), v=(16, 16)), 8, 16, 16) < 0.25


def test_scaled_dot_product_attention_of_large_queries() -> None:
    def attend(p, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*(4.0 * (x @ p[name])[:, None] for name in "qkv"))[:, 0]

    assert worst(Around(attend, q=(16, 16), k=(16, 16), v=(16, 16)), 8, 16, 16) < 0.25
