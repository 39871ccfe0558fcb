"""Statistics of parameters are those of the numbers, however large, small or strange."""

from __future__ import annotations

import base64
import math

import pytest
import torch

from gradlint.capture.moments import weight_moments
from gradlint.capture.quick import is_large, products
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


@pytest.mark.parametrize(
    "shape", [(300, 200), (64, 32, 3, 3), (64, 64, 7, 7), (128, 256, 1, 1), (700, 9, 5), (20, 30, 3, 3, 3)]
)
def test_the_sums_of_a_large_weight_by_products_are_those_in_float64(shape):
    weight = 0.02 * torch.randn(shape, generator=torch.Generator().manual_seed(0)) + 0.003
    exact, fast = weight_moments(weight), weight_moments(weight, products)
    assert fast.keys() == exact.keys()
    assert fast["sums"] == pytest.approx(exact["sums"], rel=1e-5)
    assert fast["total"] == pytest.approx(exact["total"], rel=1e-5)
    for part in ("rows", "columns"):
        for name, vector in exact[part].items():
            other, known = decoded(fast[part][name]), decoded(vector)
            assert other.shape == known.shape
            assert torch.allclose(other, known, rtol=1e-4, atol=1e-5 * float(known.abs().mean()))


def decoded(text):
    return torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.float32)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1.0, 1e6, 1e25])
@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_statistics_of_a_large_weight_are_right_at_any_scale(scale, shift):
    weight = scale * (torch.randn(200, 200, generator=torch.Generator().manual_seed(0)) + shift)
    weight[0, :100] = 0.0
    param, wide = statistics("w", weight), weight.double()
    assert param.mean == pytest.approx(float(wide.mean()), rel=1e-4, abs=1e-6 * scale)
    assert param.std == pytest.approx(float(wide.std(correction=0)), rel=1e-5)
    assert param.rms == pytest.approx(float(wide.square().mean().sqrt()), rel=1e-5)
    assert param.zero_share == 100 / 40_000
    assert param.moments["sums"]["01"] == pytest.approx(float(wide.square().sum()), rel=1e-5)


def test_a_mask_of_logits_is_no_kernel_to_be_summed_by_matrices_of_as_many_rows():
    assert is_large(torch.zeros(64, 32, 32, 32))
    assert not is_large(torch.zeros(1, 2, 256, 256))
