"""Entries that a mask picks and that a tensor fills, against real float64 backward passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.test_signal_coverage import Around, worst

SIZE = (8, 32, 16)


def chosen() -> Tensor:
    return torch.rand(SIZE[:2], generator=torch.Generator().manual_seed(1)) < 0.3


def a_vector(p: nn.ParameterDict, x: Tensor) -> Tensor:
    y = x.clone()
    y[chosen()] = p["w"]
    return y


def a_row_each(p: nn.ParameterDict, x: Tensor) -> Tensor:
    mask, y = chosen(), x.clone()
    y[mask] = torch.tanh(x @ p["w"])[:, :24].flatten(0, 1)[: int(mask.sum())]
    return y


def a_learned_row_each(p: nn.ParameterDict, x: Tensor) -> Tensor:
    mask, y = chosen(), x.clone()
    y[mask] = p["w"][: int(mask.sum())]
    return y


@pytest.mark.parametrize(
    ("write", "shape"), [(a_vector, (16,)), (a_row_each, (16, 16)), (a_learned_row_each, (200, 16))]
)
def test_what_a_mask_is_filled_with(write, shape) -> None:
    assert worst(Around(write, w=shape), *SIZE) < 0.08


def decay(p: nn.ParameterDict, x: Tensor) -> Tensor:
    later = torch.ones(32, 16, dtype=torch.bool).triu(-8)
    return (0.3 * x).masked_fill(later, -torch.inf).exp() * torch.tanh(x @ p["w"])


def test_an_exponential_of_what_is_hidden_is_zero() -> None:
    assert worst(Around(decay, w=(16, 16)), *SIZE) < 0.08
