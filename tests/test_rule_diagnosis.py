"""When a stretch of a model counts as ill, and how far it reaches."""

from __future__ import annotations

import pytest

from gradlint.graph.ir import Op
from gradlint.probe.health import Health
from gradlint_rules.diagnosis import common, extended, verdict


def health(**statistics: float) -> Health:
    return Health(state="healthy", kind="none", **statistics)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("m", "delta", "severity"),
    [
        (-2.9, -9.0, None),
        (-3.4, -2.5, "info"),
        (-3.4, -4.5, "info"),
        (-3.6, -4.5, "warning"),
        (-5.5, -2.5, "warning"),
        (-6.5, -2.5, "error"),
        (-9.0, -1.0, None),
    ],
)
def test_a_gradient_is_lost_when_it_is_small_and_was_larger(m: float, delta: float, severity: str | None) -> None:
    found = verdict(health(m=m, delta=delta))
    assert (found and found[1]) == severity


@pytest.mark.parametrize(
    ("statistics", "expected"),
    [
        ({"c": 1.9, "s": 1.4}, None),
        ({"c": 2.5}, ("exploding", "warning", 2.0)),
        ({"c": 3.5}, ("exploding", "error", 3.0)),
        ({"s": 2.0}, ("blow-up", "warning", 1.5)),
        ({"c": 2.5, "s": 3.5}, ("blow-up", "error", 3.0)),
        ({"c": 2.5, "m": -7.0, "delta": -3.0}, ("vanishing", "error", -6.0)),
    ],
)
def test_the_worst_ailment_is_told_with_its_limit(
    statistics: dict[str, float], expected: tuple[str, str, float] | None
) -> None:
    assert verdict(health(**statistics)) == expected


def test_a_stretch_takes_in_neighbours_that_change_as_it_does() -> None:
    sigmoid, weight = -0.6, -0.24
    chain = [0.0, 0.0, *(sigmoid, weight) * 6, 0.0]
    assert extended(chain, 4, 12) == (2, 14)


def test_a_stretch_leaves_out_neighbours_that_hardly_change() -> None:
    assert extended([-0.05, -0.05, -3.0, -3.0, -0.05], 2, 4) == (2, 4)


def test_an_infinite_step_is_a_stretch_of_its_own() -> None:
    assert extended([-1.0, float("-inf"), -1.0], 1, 2) == (1, 2)


@pytest.mark.parametrize(
    ("paths", "module"),
    [(["net.0", "net.3"], "net"), (["a.b.c", "a.b.d"], "a.b"), (["head", "trunk.0"], ""), (["block10", "block1"], "")],
)
def test_the_module_of_a_stretch_holds_all_of_it(paths: list[str], module: str) -> None:
    ops = [Op(i, "linear", "linear", (), (), (), module_path=path) for i, path in enumerate(paths)]
    assert common(ops) == module
