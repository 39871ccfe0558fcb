"""Softmax rows of which few keys have the weight: moments against draws, gradients against real backward passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from torch import Tensor
from torch.nn import functional as F

from gradlint.signal.participation import overlap, participation, shares
from tests.test_signal_coverage import Around, worst


def rows(count: int, variance: float, *, causal: bool = False) -> np.ndarray:
    """Softmax rows of independent logits, (draws, rows, count); row i of a causal softmax sees the first i + 1 keys."""
    shape = (4 * 600_000 // count**2, count, count) if causal else (600_000 // count, 2, count)
    logits = np.random.default_rng(0).normal(size=shape) * math.sqrt(variance)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights = np.tril(weights) if causal else weights
    return weights / weights.sum(-1, keepdims=True)


def traced(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """tr J J′ of two rows with the Jacobians J = diag(a) − a aᵀ."""
    met = (a * b).sum(-1)
    return met - (a * b * b).sum(-1) - (a * a * b).sum(-1) + met**2


@pytest.mark.parametrize("variance", [0.1, 2.0, 12.0, 300.0])
@pytest.mark.parametrize("count", [2, 9, 64])
def test_moments_of_softmax_rows_against_draws(count: int, variance: float) -> None:
    weights = rows(count, variance)
    square = (weights**2).sum(-1)
    found = participation(variance, np.array([float(count)]))
    assert found.square[0] == pytest.approx(square.mean(), rel=0.02)
    assert found.squared[0] == pytest.approx((square**2).mean(), rel=0.02)
    assert found.jacobian[0] == pytest.approx(traced(weights, weights).mean(), rel=0.05)


@pytest.mark.parametrize("variance", [0.1, 2.0, 12.0])
@pytest.mark.parametrize("count", [2, 9, 64])
def test_rows_of_independent_logits_against_draws(count: int, variance: float) -> None:
    """Two of them lose more by what they have in common than a row with itself: (1 − s)², not s(1 − s)."""
    weights = rows(count, variance)
    found = shares(np.array([[0.0, variance]]), count)
    assert found.overlap[0, 0] == pytest.approx(1.0 / count)
    assert found.jacobian[0, 0] == pytest.approx(traced(weights[:, 0], weights[:, 1]).mean(), rel=0.05)


@pytest.mark.parametrize("variance", [1e-4, 0.5, 2.0, 12.0])
def test_the_rows_of_a_causal_softmax_see_different_numbers_of_keys(variance: float) -> None:
    weights = rows(32, variance, causal=True)
    square = (weights**2).sum(-1)
    found = shares(np.array([[0.0, variance]]), 32, rows=[0])
    assert found.overlap[0, 1] == pytest.approx(square.mean(), rel=0.02)
    assert found.rest == pytest.approx(((1.0 - square) ** 2).mean(), rel=0.02)
    assert found.jacobian[0, 1] == pytest.approx(traced(weights, weights).mean(), rel=0.03)
    first, second = np.nonzero(~np.eye(32, dtype=bool))
    a, b = weights[:, first], weights[:, second]
    assert found.overlap[0, 0] == pytest.approx((a * b).sum(-1).mean(), rel=0.02)
    assert found.jacobian[0, 0] == pytest.approx(traced(a, b).mean(), rel=0.03)


def test_moments_of_many_keys_are_read_off_between_some() -> None:
    found = participation(2.0, np.arange(1.0, 1001.0))
    for count in (1, 2, 37, 500, 999):
        alone = participation(2.0, np.array([float(count)]))
        for part, single in zip(found, alone, strict=True):
            assert part[count - 1] == pytest.approx(single[0], rel=1e-3)


def test_nearly_equal_weights_are_those_of_the_annealed_average() -> None:
    covariance = np.array([[0.001, 0.002], [0.0, 0.01]])
    annealed = np.exp(covariance) / (np.exp(covariance) + 15.0)
    assert np.allclose(overlap(covariance, 16.0), annealed, rtol=1e-3)
    assert np.allclose(shares(covariance[None], 16).jacobian, annealed * (1.0 - annealed), rtol=2e-3)


def test_rows_of_unlike_logits_share_what_chance_gives_them() -> None:
    assert overlap(np.array([0.0, 30.0]), 16.0)[0] == pytest.approx(1.0 / 16)


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
