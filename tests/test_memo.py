from __future__ import annotations

import gc

from gradlint.graph.ir import Graph
from gradlint.graph.memo import remembered

CALLS: list[int] = []


@remembered
def size(graph: Graph) -> int:
    CALLS.append(len(graph.ops))
    return len(graph.ops)


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
