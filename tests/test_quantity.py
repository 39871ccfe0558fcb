from __future__ import annotations

import math
from dataclasses import replace

import pytest

from gradlint.graph.ir import Graph, Param
from gradlint.profile import Measurement, ParamMeasure, Profile, Signal, Units
from gradlint.quantity import QUANTITIES

PARAMS = {
    "a": Param("a", (10, 10), "float32", True, 10, 10, rms=0.1),
    "b": Param("b", (10, 1), "float32", True, 10, 1, rms=1.0),
    "meta": Param("meta", (10, 1), "float32", True, 10, 1),
}
GRAPH = Graph((), (), PARAMS, (), ())
PROFILE = Profile(
    activation={0: 0.0, 1: 2.0},
    gradient={0: -3.0, 1: -1.0},
    params={"a": -4.0, "b": -1.0, "meta": -1.0},
    correlation={1: 0.99},
)
SIGNAL = Signal(PROFILE, "mse", zeros={"frozen-out": "multiplied by zero"})
MEASUREMENT = Measurement(
    PROFILE,
    {"a": ParamMeasure(-4.0, -1.0, "ok"), "b": ParamMeasure(-1.0, 0.0, "ok"), "head": ParamMeasure(0.0, 0.0, "frozen")},
    {3: Units(8, dead=0.25, saturated=0.5, constant=0.75), 5: Units(8, dead=0.5, saturated=0.0, constant=0.0)},
    "ce", 4.6, 2.3, 0.0, -1.0, extremes={0: (-2.0, 3.0)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "subject", "number"),
    [
        ("gradient-change", (0, 1), -2.0),
        ("activation-change", (0, 1), 2.0),
        ("activation-size", (0, 1), 2.0),
        ("gradient-size", (0, 1), -1.0),
        ("relative-gradient", ("a", "b"), -3.0),
        ("top-relative-gradient", ("a", "b"), -1.0),
        ("elasticity-excess", ("b", "a"), 3.0),
        ("sample-collapse", (1,), -2.0),
        ("depth-scale", (0, 7, 1), 1.0 / math.log(10.0)),
    ],
)
def test_a_quantity_reads_a_prediction_and_a_measurement_alike(
    name: str, subject: tuple[int, ...], number: float
) -> None:
    function = QUANTITIES[name].function
    assert function(GRAPH, SIGNAL, subject) == pytest.approx(number)
    assert function(GRAPH, MEASUREMENT, subject) == pytest.approx(number)


@pytest.mark.parametrize(
    ("name", "subject", "number"),
    [
        ("dead-share", (3, 5), 0.5),
        ("saturated-share", (3, 5), 0.5),
        ("constant-share", (3, 5), 0.75),
        ("loss-above-chance", (), math.log10(2)),
        ("output-spread", (1,), -1.0),
        ("least-entry", (0, 1), -2.0),
        ("greatest-entry", (0, 1), 3.0),
    ],
)
def test_some_quantities_are_measured_only(name: str, subject: tuple[int, ...], number: float) -> None:
    assert QUANTITIES[name].function(GRAPH, MEASUREMENT, subject) == pytest.approx(number)


def test_the_predicted_spread_of_the_output_leaves_out_what_the_samples_share() -> None:
    assert QUANTITIES["output-spread"].function(GRAPH, SIGNAL, (1,)) == pytest.approx(2.0 - 1.0)


@pytest.mark.parametrize("name", [name for name in QUANTITIES if name not in ("loss-above-chance", "output-spread")])
def test_what_is_unknown_is_none(name: str) -> None:
    subject = ("meta",) if "relative" in name or "elasticity" in name else (7, 8)
    assert QUANTITIES[name].function(GRAPH, SIGNAL, subject) is None


def test_a_frozen_parameter_has_no_gradient_to_judge() -> None:
    assert QUANTITIES["relative-gradient"].function(GRAPH, MEASUREMENT, ("head",)) is None


def test_the_ratio_of_two_vanished_gradients_is_unknown() -> None:
    signal = Signal(Profile(gradient={0: -math.inf, 1: -math.inf}), "mse")
    assert QUANTITIES["gradient-change"].function(GRAPH, signal, (0, 1)) is None


def test_an_overflow_is_larger_than_any_limit() -> None:
    signal = Signal(Profile(activation={0: math.nan}, gradient={0: math.nan}), "mse")
    assert QUANTITIES["activation-size"].function(GRAPH, signal, (0,)) == math.inf
    assert QUANTITIES["gradient-size"].function(GRAPH, signal, (0,)) == math.inf


def test_a_gradient_that_is_not_finite_is_larger_than_any_other() -> None:
    probe = replace(MEASUREMENT, params={**MEASUREMENT.params, "a": ParamMeasure(math.nan, -1.0, "nonfinite")})
    assert QUANTITIES["elasticity-excess"].function(GRAPH, probe, ("a", "b")) == math.inf


def test_a_gradient_that_keeps_its_size_has_no_depth_scale() -> None:
    signal = Signal(Profile(gradient={0: -1.0, 1: -1.0}), "mse")
    assert QUANTITIES["depth-scale"].function(GRAPH, signal, (0, 1)) == math.inf


def test_a_parameter_is_no_subject_for_a_quantity_about_values() -> None:
    with pytest.raises(TypeError, match=r"a\.weight"):
        QUANTITIES["gradient-size"].function(GRAPH, SIGNAL, ("a.weight",))


def test_every_quantity_is_described() -> None:
    assert [name for name, quantity in QUANTITIES.items() if len(quantity.description) < 10] == []
