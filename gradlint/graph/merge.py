"""Where branches of a model part and join: skips and other merges, by dominators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from gradlint.graph.flow import Flow, differentiable, flow, is_weighted
from gradlint.graph.ir import Graph, Op

_START = -1  # stands for the model's inputs


@dataclass(frozen=True)
class Merge:
    """An op that joins branches which parted at `fork` (an op, or None for the model's inputs).

    `fewest` and `most` count the weight ops on a path between the two (see `between` for the ops themselves). In
    `fewest`, taking a small part of a tensor counts as two: a step's share of a sequence is no skip around the steps
    before it.
    """

    op: int
    fork: int | None
    fewest: int
    most: int

    @property
    def is_skip(self) -> bool:
        """Whether one branch is an identity or a single projection and another one does more."""
        return self.fewest < self.most and self.fewest <= 1


def merges(graph: Graph) -> tuple[Merge, ...]:
    """Every op that joins two or more branches of the model's paths, with where they parted.

    Every path to an op crosses its dominator, so weights on the shortest and longest path between the two are
    differences of what is counted from the inputs.
    """
    paths = flow(graph)
    dominators, entries = _dominators(paths), frozenset(paths.entries)
    fewest, most = _depths(graph, paths, min, _distance), _depths(graph, paths, max, _weight)
    found = []
    for op in sorted(paths.fed):
        branches = sum(p in paths.fed for p in paths.before[op]) + (op in entries)
        if branches > 1 or len(_fed_values(graph, graph.ops[op], paths)) > 1:
            fork, own = dominators[op], graph.ops[op]
            low = fewest[op] - _distance(graph, own) - fewest[fork]
            high = most[op] - _weight(graph, own) - most[fork]
            found.append(Merge(op, None if fork == _START else fork, low, high))
    return tuple(found)


def between(graph: Graph, merge: Merge) -> tuple[int, ...]:
    """Every op on the branches of a merge, strictly between the fork and the op that joins them."""
    paths = flow(graph)
    fork = _START if merge.fork is None else merge.fork
    seen: set[int] = set()
    queue = [merge.op]
    while queue:
        for source in paths.before[queue.pop()]:
            if source != fork and source in paths.fed and source not in seen:
                seen.add(source)
                queue.append(source)
    return tuple(sorted(seen))


def residuals(graph: Graph) -> tuple[Merge, ...]:
    """The additions that merge a value with a function of itself: identity and projection skips."""
    return tuple(merge for merge in merges(graph) if graph.ops[merge.op].kind == "add" and merge.is_skip)


def _dominators(paths: Flow) -> dict[int, int]:
    """The immediate dominator of each fed op: the last op that all paths from the inputs to it cross (_START: none)."""
    parent: dict[int, int] = {}
    level = {_START: 0}
    entries = frozenset(paths.entries)
    for op in sorted(paths.fed):
        sources = [p for p in paths.before[op] if p in paths.fed]
        joined = _START if op in entries or not sources else sources[0]
        for source in sources[1:]:
            joined = _common(joined, source, parent, level)
        parent[op] = joined
        level[op] = level[joined] + 1
    return parent


def _common(a: int, b: int, parent: dict[int, int], level: dict[int, int]) -> int:
    while a != b:
        if level[a] >= level[b]:
            a = parent[a]
        else:
            b = parent[b]
    return a


def _depths(
    graph: Graph, paths: Flow, choose: Callable[[list[int]], int], length: Callable[[Graph, Op], int]
) -> dict[int, int]:
    """The length of the path from the inputs to each op, itself included, that `choose` (min or max) prefers."""
    depths = {_START: 0}
    entries = frozenset(paths.entries)
    for op in sorted(paths.fed):
        sources = [depths[p] for p in paths.before[op] if p in paths.fed]
        if op in entries or not sources:
            sources.append(0)
        depths[op] = choose(sources) + length(graph, graph.ops[op])
    return depths


def _weight(graph: Graph, op: Op) -> int:
    return int(is_weighted(op))


def _distance(graph: Graph, op: Op) -> int:
    return 2 if _takes_a_part(graph, op) else int(is_weighted(op))


def _takes_a_part(graph: Graph, op: Op) -> bool:
    """Whether the op keeps less than half of its input: one step of a sequence, one of several chunks."""
    if op.kind not in ("slice", "split") or not op.inputs:
        return False
    kept, given = (prod(graph.values[value].shape) for value in (op.outputs[0], op.inputs[0]))
    return 2 * kept < given


def _fed_values(graph: Graph, op: Op, paths: Flow) -> set[int]:
    values = graph.values
    return {v for i, v in enumerate(op.inputs) if values[v].producer in paths.fed and differentiable(graph, op, i)}
