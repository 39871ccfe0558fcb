"""Tables of second moments hold what the entries of real arrays show, under every relabelling."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradlint.signal import layout, patterns
from gradlint.signal import table as tables
from gradlint.signal.field import Field, from_sums, outer
from gradlint.signal.patterns import Array
from gradlint.signal.table import Profile, Table


def exact(array: Array) -> Field:
    """The exact table of an array, through the sums that a parameter's moments hold."""
    axes = range(array.ndim)
    sums = {}
    for size in range(array.ndim + 1):
        for kept in itertools.combinations(axes, size):
            rest = tuple(axis for axis in axes if axis not in kept)
            sums["".join(map(str, kept))] = float((array.sum(axis=rest) ** 2).sum())
    return from_sums(array.shape, sums, float(array.sum()))


def drawn(*shape: int, seed: int = 0) -> Array:
    random = np.random.default_rng(seed)
    scales = [
        random.uniform(0.5, 2.0, size=[n if i == axis else 1 for i, n in enumerate(shape)])
        for axis in range(len(shape))
    ]
    return np.asarray(random.normal(0.3, 1.0, shape) * np.prod(np.broadcast_arrays(*scales), axis=0))


def close(table: Table, array: Array) -> None:
    """The table's square, and the mean square of any sum over whole dimensions, are those of the array."""
    assert table.shape == array.shape
    assert table.square == pytest.approx(float((array**2).mean()))
    for size in range(1, array.ndim + 1):
        for dims in itertools.combinations(range(array.ndim), size):
            assert tables.mean(table, dims).square == pytest.approx(float((array.mean(axis=dims) ** 2).mean()))


def test_a_known_array_has_its_exact_table() -> None:
    array = drawn(4, 3, 5)
    close(exact(array).table, array)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_permuting_the_table_is_permuting_the_array(order: tuple[int, ...]) -> None:
    array = drawn(4, 3, 5)
    close(tables.permute(exact(array).table, order), np.transpose(array, order))


@pytest.mark.parametrize("shape", [(12, 5), (4, 15), (60,), (1, 4, 3, 5, 1), (4, 1, 15)])
def test_merging_dimensions_by_a_view_is_exact(shape: tuple[int, ...]) -> None:
    array = drawn(4, 3, 5)
    close(tables.reshape(exact(array).table, shape), array.reshape(shape))


def test_a_view_and_the_view_back_are_the_identity() -> None:
    table = exact(drawn(4, 6, 5)).table
    there = tables.reshape(table, (4, 2, 3, 5))
    back = tables.regroup(tables.reshape(there, (4, 6, 5)), table.dims)
    assert back.values == pytest.approx(table.values)


def test_factors_that_do_not_nest_fall_back_to_exchangeable_entries() -> None:
    array = drawn(6, 4)
    table = tables.reshape(exact(array).table, (4, 6))
    assert table.shape == (4, 6)
    assert table.square == pytest.approx(float((array**2).mean()))


def test_summing_is_the_adjoint_of_broadcasting() -> None:
    array = drawn(4, 1, 5)
    table = exact(array).table
    wide = tables.expand(table, tables.dims_of((2, 4, 3, 5)))
    assert wide.square == pytest.approx(table.square)
    assert tables.sum_to(wide, table.dims).square == pytest.approx(table.square * 36.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 5))
def test_parts_side_by_side_keep_their_own_moments(first: int, second: int, rows: int) -> None:
    a, b = drawn(rows, first, seed=1), 3.0 * drawn(rows, second, seed=2)
    joined = layout.concatenated([exact(a), exact(b)], 1)
    assert joined.shape == (rows, first + second)
    assert joined.table.square == pytest.approx(float((np.concatenate([a, b], 1) ** 2).mean()))
    cut = layout.restricted(joined.table, 1, first, second)
    assert cut.square == pytest.approx(float((b**2).mean()))


def test_a_single_index_that_is_cut_off_takes_its_pairs_along() -> None:
    token, patches = 10.0 * drawn(4, 1, seed=1), drawn(4, 6, seed=2)
    joined = layout.concatenated([exact(token), exact(patches)], 1)
    cut = layout.restricted(joined.table, 1, 1, 6)
    assert np.allclose(cut.values, exact(patches).table.values)


def test_the_average_of_the_others_leaves_an_index_itself_out() -> None:
    table = Table(tables.dims_of((4,)), np.ones((2, 2)), Profile(0, (1, 3)))
    different, same = outer(table, np.array([10.0, 2.0])).T
    assert np.allclose(same, [100.0, 4.0])
    assert np.allclose(different, [10.0 * 2.0, 2.0 * (10.0 + 2.0 + 2.0) / 3.0])


def test_classes_along_the_outermost_axis_survive_a_merge() -> None:
    joined = layout.concatenated([exact(drawn(4, 1, 3, seed=1)), exact(10.0 * drawn(4, 2, 3, seed=2))], 1)
    merged = tables.merge_dim(tables.reshape(joined.table, (4, 9)), 1)
    assert merged.profile is not None and merged.profile.counts == (3, 6)
    assert np.allclose(merged.squares, joined.table.squares)
    assert np.allclose(tables.reshape(merged, (4, 3, 3)).squares, joined.table.squares)


def test_what_is_put_back_is_zero_elsewhere() -> None:
    part = exact(drawn(4, 2)).table
    whole = layout.embedded(part, tables.dims_of((4, 6)), 1, 3)
    assert whole.square == pytest.approx(part.square * 2.0 / 6.0)
    assert layout.restricted(whole, 1, 3, 2).square == pytest.approx(part.square)
    assert layout.restricted(whole, 1, 0, 3).square == 0.0


@pytest.mark.parametrize("axes", [(0,), (1,), (2, 0), (0, 1, 2)])
def test_pairs_of_indices_are_counted_by_the_axes_that_they_share(axes: tuple[int, ...]) -> None:
    sizes = (2, 3, 4)
    values = np.random.default_rng(0).normal(size=(2, 2, 2, 2))
    pairs = [list(itertools.product(range(sizes[axis]), repeat=2)) for axis in axes]
    kept = [axis for axis in range(3) if axis not in axes]
    everything, different = [], []
    for chosen in itertools.product(*pairs):
        index: list[slice | int] = [slice(None)] * 4
        for axis, (i, j) in zip(axes, chosen, strict=True):
            index[axis + 1] = int(i == j)
        everything.append(values[tuple(index)])
        if any(i != j for i, j in chosen):
            different.append(values[tuple(index)])
    assert np.shape(everything[0]) == (2, *(2 for _ in kept))
    np.testing.assert_allclose(patterns.pair_sum(values, axes, sizes), np.sum(everything, axis=0))
    np.testing.assert_allclose(patterns.average(values, axes, sizes), np.mean(everything, axis=0))
    np.testing.assert_allclose(patterns.joint(values, axes, sizes)[1], np.mean(different, axis=0))
    np.testing.assert_allclose(patterns.across(values[:, 1], [0]), values[:, None, 1])
