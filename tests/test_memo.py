from __future__ import annotations

import gc

from gradlint.graph.ir import Graph
from gradlint.graph.memo import attached, remembered

CALLS: list[int] = []


@remembered
def size(graph: Graph) -> int:
    CALLS.append(len(graph.ops))
    return len(graph.ops)


@attached
def scaled(graph: Graph, factor: float, power: int) -> float:
    CALLS.append(power)
    return factor**power


def graph() -> Graph:
    return Graph((), (), {}, (), ())


def test_a_graph_is_looked_at_once() -> None:
    CALLS.clear()
    one = graph()
    assert size(one) == size(one) == 0
    assert len(CALLS) == 1


def test_an_equal_graph_is_another_graph() -> None:
    CALLS.clear()
    one, other = graph(), graph()
    size(one)
    size(other)
    assert len(CALLS) == 2


def test_what_was_computed_goes_with_the_graph() -> None:
    CALLS.clear()
    for _ in range(3):
        size(graph())
        gc.collect()
    assert len(CALLS) == 3


def test_other_arguments_are_told_apart_by_value() -> None:
    CALLS.clear()
    one = graph()
    assert [scaled(one, 2.0, 3), scaled(one, 2.0, 3), scaled(one, 2.0, 2), scaled(graph(), 2.0, 3)] == [8, 8, 4, 8]
    assert CALLS == [3, 2, 3]


def test_what_is_attached_goes_with_its_owner() -> None:
    CALLS.clear()
    for _ in range(3):
        scaled(graph(), 2.0, 1)
        gc.collect()
    assert len(CALLS) == 3
