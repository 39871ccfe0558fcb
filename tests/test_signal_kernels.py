"""Gaussian kernels of scalar functions against closed forms and against sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlint.signal import table as tables
from gradlint.signal.distribution import _interpolated, law_of
from gradlint.signal.kernels import SCORES, expectation, kernel
from gradlint.signal.scalar import FUNCTIONS, Scalar, compose, erf, product, scalar_function, weighted_sum
from gradlint.signal.transfer_maximum import _density

SMOOTH = ("sigmoid", "tanh", "gelu", "silu", "softplus", "mish", "elu", "logsigmoid", "erf")  # no kink at zero


def named(name: str) -> Scalar:
    found = scalar_function(name, {})
    assert found is not None
    return found


def pair(name: Scalar, rho: float, mean: float = 0.0, variance: float = 1.0) -> float:
    values, _ = kernel(name, np.array([mean]), np.array([variance]), np.array([[rho]]))
    return float(values[0, 0])


@pytest.mark.parametrize("rho", [-0.95, -0.3, 0.0, 0.5, 0.97, 1.0])
def test_relu_kernel_is_the_arc_cosine_kernel_of_cho_and_saul(rho: float) -> None:
    angle = math.acos(rho)
    expected = (math.sin(angle) + (math.pi - angle) * math.cos(angle)) / (2 * math.pi)
    assert pair(named("relu"), rho) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rho", [-0.5, 0.0, 0.5, 0.95])
def test_step_kernel_is_the_orthant_probability(rho: float) -> None:
    expected = 0.25 + math.asin(rho) / (2 * math.pi)
    assert pair(named("relu").derivative, rho) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("rho", [-0.98, -0.6, 0.0, 0.6, 0.89, 0.91, 0.999])
def test_kernels_agree_with_a_two_dimensional_quadrature(name: str, rho: float) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    weights = weights / weights.sum()
    function = named(name)
    first = function.value(0.3 + 1.2 * nodes)[:, None]
    second = function.value(0.3 + 1.2 * (rho * nodes[:, None] + math.sqrt(1 - rho**2) * nodes[None, :]))
    expected = float((weights[:, None] * weights[None, :] * first * second).sum())
    assert pair(function, rho, 0.3, 1.44) == pytest.approx(expected, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_slope_is_the_derivative_of_its_function(name: str) -> None:
    function = scalar_function(name, {"exponent": 3.0})
    assert function is not None
    z = np.linspace(0.113, 2.317, 41)
    step = 1e-6
    numeric = (function.value(z + step) - function.value(z - step)) / (2 * step)
    assert function.slope(z) == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_sums_products_and_compositions_differentiate_by_their_rules() -> None:
    z, step = np.linspace(-2.0, 2.0, 21) + 0.01, 1e-6
    silu = product(compose(named("identity"), named("identity")), named("sigmoid"))
    assert silu.value(z) == pytest.approx(named("silu").value(z))
    for function in (silu, weighted_sum(named("tanh"), named("gelu"), -0.7), compose(named("tanh"), named("gelu"))):
        numeric = (function.value(z + step) - function.value(z - step)) / (2 * step)
        assert function.slope(z) == pytest.approx(numeric, rel=1e-5, abs=1e-7)


@given(st.floats(-7.0, 7.0))
def test_erf_is_exact_to_ten_digits(x: float) -> None:
    assert float(erf(np.array([x]))[0]) == pytest.approx(math.erf(x), abs=1e-10)


@settings(max_examples=40)
@given(st.sampled_from(SMOOTH), st.floats(-1.0, 1.0), st.floats(0.01, 4.0), st.floats(-1.0, 1.0))
def test_a_pair_never_correlates_more_than_an_entry_with_itself(
    name: str, mean: float, variance: float, rho: float
) -> None:
    function = named(name)
    second = expectation(function, mean, variance)[1]
    assert abs(pair(function, rho, mean, variance)) <= second * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("count", [2.25, 6.6, 8.622, 9.0])
@pytest.mark.parametrize("share", [0.0, 0.18, 0.21, 0.5, 1.0])
def test_the_weight_of_being_the_largest_of_a_mean_number_of_entries_averages_to_one(count, share):
    """Windows at a border hold fewer entries, so that their mean number is no integer."""
    at, density = _density(count, share)
    normal = np.exp(-0.5 * at**2) / math.sqrt(2.0 * math.pi)
    assert float((density * normal).sum() * (at[1] - at[0])) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("rounding", [-4e-16, 0.0, 4e-16])
def test_an_entry_of_a_sum_that_a_rectifier_made_zero_is_zero(rounding: float) -> None:
    rectified = np.maximum(SCORES, 0.0)
    mean, square = expectation(_interpolated(rectified), 0.0, 1.0)
    law = law_of(rectified, tables.constant(tables.dims_of((4, 8)), square, mean**2), mean * (1.0 + rounding))
    assert law is not None
    assert np.all(law.function.value(SCORES[SCORES < 0.0]) == 0.0)
