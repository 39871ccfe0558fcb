"""What was computed of equal arrays is not computed again."""

from __future__ import annotations

import numpy as np
import pytest

from gradlint.signal.patterns import Array
from gradlint.signal.recall import LARGEST, recalled

CALLS: list[int] = []


@recalled
def scaled(values: Array, factor: float) -> tuple[Array, float]:
    CALLS.append(values.size)
    return values * factor, factor


def test_equal_arrays_are_looked_at_once() -> None:
    CALLS.clear()
    first, second = scaled(np.arange(3.0), 2.0), scaled(np.arange(3.0), 2.0)
    assert first is second
    assert CALLS == [3]


@pytest.mark.parametrize("other", [np.arange(1.0, 4.0), np.arange(3.0)[None], np.arange(3.0)[:2]])
def test_other_entries_and_other_shapes_are_other_arrays(other: Array) -> None:
    scaled(np.arange(3.0), 2.0)
    np.testing.assert_array_equal(scaled(other, 2.0)[0], other * 2.0)


def test_what_is_remembered_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        scaled(np.arange(3.0), 2.0)[0][0] = 7.0


def test_large_arrays_are_not_remembered() -> None:
    CALLS.clear()
    values = np.zeros(LARGEST + 1)
    assert scaled(values, 2.0) is not scaled(values, 2.0)
    assert len(CALLS) == 2
