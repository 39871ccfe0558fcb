"""Statistics of parameters are those of the numbers, however large, small or strange."""

from __future__ import annotations

import math

import pytest
import torch

from gradlint.capture.statistics import fan, measure, statistics


def test_the_statistics_of_a_plain_tensor():
    tensor = torch.tensor([[1.0, -3.0], [0.0, 4.0]])
    numbers = measure(tensor)
    assert numbers.mean == 0.5
    assert numbers.std == pytest.approx(tensor.double().std(unbiased=False).item())
    assert numbers.rms == pytest.approx(math.sqrt(6.5))
    assert (numbers.abs_max, numbers.zero_share, numbers.finite) == (4.0, 0.25, True)


@pytest.mark.parametrize("size", [1e-300, 1e-40, 1.0, 1e38, 1e300])
def test_squares_neither_overflow_nor_underflow(size):
    numbers = measure(torch.tensor([size, -size], dtype=torch.float64))
    assert numbers.rms == pytest.approx(size)
    assert numbers.std == pytest.approx(size)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_dtypes_are_measured_in_float64(dtype):
    numbers = measure(torch.full((10000,), 3, dtype=dtype))
    assert (numbers.mean, numbers.rms, numbers.std) == (3.0, 3.0, 0.0)


def test_a_tensor_larger_than_one_piece_is_measured_whole():
    tensor = torch.zeros(3 << 20)
    tensor[-1] = 5.0
    assert measure(tensor).abs_max == 5.0
    assert measure(tensor).zero_share == pytest.approx(1 - 1 / tensor.numel())


def test_what_is_not_finite_is_left_out_and_said():
    numbers = measure(torch.tensor([2.0, float("inf"), float("nan")]))
    assert (numbers.mean, numbers.abs_max, numbers.finite) == (2.0, 2.0, False)
    assert measure(torch.tensor([float("nan")])).mean is None


def test_there_are_no_numbers_on_meta():
    param = statistics("w", torch.nn.Parameter(torch.empty(4, 3, device="meta")))
    assert (param.std, param.finite, param.fan_in, param.fan_out) == (None, True, 3, 4)


@pytest.mark.parametrize(
    ("shape", "expected"), [((), (1, 1)), ((7,), (7, 7)), ((4, 3), (3, 4)), ((8, 4, 3, 3), (36, 72))]
)
def test_fans_are_those_of_torch(shape, expected):
    assert fan(shape) == expected
    if len(shape) > 1:
        assert fan(shape) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
