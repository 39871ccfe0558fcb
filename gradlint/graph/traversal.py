"""Paths through a graph: what a gradient flows along, which ops every path crosses, which are skipped, what is a gate.

Everything is plain data and linear in the number of ops, unless said otherwise.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

from gradlint.graph.ir import Graph, Op

Predicate = Callable[[Op], bool]

WEIGHTED = frozenset({"linear", "conv", "recurrent", "embedding"})
TRANSPARENT = frozenset({"reshape", "permute", "copy", "expand", "slice", "split", "dropout", "concat", "pad"})
_CUT = frozenset({"create", "compare"})
_DETACHED = frozenset({"detach", "set"})
_NO_GRADIENT_ROLES = frozenset(
    {"mask", "like", "overwritten", "sizes", "shape", "dtype", "index", "indices", "batch_sizes", "offsets", "target"}
)
_START = -1  # stands for everything before the first op of a path


@dataclass(frozen=True)
class Flow:
    """The differentiable data edges between ops, and the ops on a path from the model's inputs (`fed`).

    `before[i]` and `after[i]` are op indices in ascending order; `entries` are the ops where a path begins.
    """

    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    entries: tuple[int, ...]
    fed: frozenset[int]


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


_flows: dict[int, tuple[weakref.ref[Graph], Flow]] = {}


def flow(graph: Graph) -> Flow:
    """The differentiable edges of the graph; computed once for each graph."""
    known = _flows.get(id(graph))
    if known is not None and known[0]() is graph:
        return known[1]
    found = _flow(graph)
    key = id(graph)
    _flows[key] = (weakref.ref(graph, lambda _: _flows.pop(key, None)), found)
    return found


def differentiable(graph: Graph, op: Op, place: int) -> bool:
    """Whether a gradient at the op's output flows on to its input number `place`."""
    if not _passes_gradients(op):
        return False
    value, role = graph.values[op.inputs[place]], op.roles[place].partition(".")[0]
    if role in _NO_GRADIENT_ROLES and not (role == "mask" and value.requires_grad):
        return False  # a mask with a gradient is a learned bias on attention logits
    return _is_floating(value.dtype)


def predecessors(graph: Graph, op: int) -> tuple[int, ...]:
    """The ops whose outputs the op reads and sends a gradient to."""
    return flow(graph).before[op]


def successors(graph: Graph, op: int) -> tuple[int, ...]:
    """The ops that read the op's outputs and send it a gradient."""
    return flow(graph).after[op]


def is_weighted(op: Op) -> bool:
    """Whether the op applies a weight: a linear map, convolution, recurrent network or embedding."""
    return op.kind in WEIGHTED


def main_outputs(graph: Graph) -> tuple[int, ...]:
    """The output that training is about: the one named "loss", else the first floating one."""
    floating = [value for value in graph.outputs if _is_floating(graph.values[value].dtype)]
    for name, value in zip(graph.output_names, graph.outputs, strict=False):
        if name == "loss" and value in floating:
            return (value,)
    return tuple(floating[:1])


def reaches_output(graph: Graph, outputs: Iterable[int] | None = None) -> frozenset[int]:
    """The ops that a gradient at the outputs (value ids; all of the model's by default) flows back to."""
    ends = _producers(graph, graph.outputs if outputs is None else outputs)
    reached = _closure(ends, flow(graph).before)
    return frozenset(op for op in reached if _passes_gradients(graph.ops[op]))


def series_ops(graph: Graph, outputs: Iterable[int] | None = None) -> tuple[int, ...]:
    """The ops that every path from the model's inputs to the outputs (`main_outputs` by default) crosses.

    In topological order such an op is one that no edge of these paths jumps over.
    """
    paths = flow(graph)
    ends = _producers(graph, main_outputs(graph) if outputs is None else outputs)
    on = sorted(paths.fed & _closure(ends, paths.before))
    if not on:
        return ()
    place = {op: position for position, op in enumerate(on)}
    last = max(place[end] for end in ends if end in place)
    jumps = [0] * (len(on) + 2)

    def jump(start: int, stop: int) -> None:
        if stop - start > 1:
            jumps[start + 1] += 1
            jumps[stop] -= 1

    for op in on:
        for following in paths.after[op]:
            if following in place:
                jump(place[op], place[following])
    for entry in paths.entries:
        jump(_START, place.get(entry, _START))
    for end in ends & place.keys():
        jump(place[end], last + 1)
    return tuple(op for op, covered in zip(on, _running(jumps), strict=False) if covered == 0)


def bypassed(graph: Graph, ops: Iterable[int], outputs: Iterable[int] | None = None) -> bool:
    """Whether a path from the model's inputs to the outputs (`main_outputs` by default) avoids all of the ops."""
    paths, avoided = flow(graph), frozenset(ops)
    ends = _producers(graph, main_outputs(graph) if outputs is None else outputs) - avoided
    starts = [entry for entry in paths.entries if entry not in avoided]
    return bool(_closure(starts, paths.after, avoided) & ends & paths.fed)


def longest_path(graph: Graph, weight: Predicate = is_weighted) -> tuple[int, ...]:
    """The path from the model's inputs with the most ops that `weight` holds for (weight ops by default)."""
    before = flow(graph).before
    best: dict[int, int] = {}
    came: dict[int, int] = {}
    for op in sorted(flow(graph).fed):
        previous = max((p for p in before[op] if p in best), key=lambda p: best[p], default=_START)
        came[op] = previous
        best[op] = best.get(previous, 0) + int(weight(graph.ops[op]))
    end = max(best, key=lambda op: (best[op], -op), default=_START)
    return _trace(end, came)


def depth(graph: Graph, weight: Predicate = is_weighted) -> int:
    """How many weight ops the longest path holds."""
    return sum(weight(graph.ops[op]) for op in longest_path(graph, weight))


def chains(graph: Graph, member: Predicate, through: Predicate) -> tuple[tuple[int, ...], ...]:
    """Maximal chains of member ops, each reached from the one before through ops that `through` holds for alone.

    An op belongs to one chain at most; longer chains come first.
    """
    before = flow(graph).before
    length: dict[int, int] = {}  # members of the best chain that ends at, or passes through, the op
    head: dict[int, int] = {}  # the last member of that chain
    came: dict[int, int] = {}
    for op in graph.ops:
        is_member = member(op)
        if not is_member and not through(op):
            continue
        previous = max((p for p in before[op.index] if p in length), key=lambda p: length[p], default=_START)
        if is_member:
            length[op.index] = length.get(previous, 0) + 1
            head[op.index] = op.index
            came[op.index] = head.get(previous, _START)
        elif previous != _START:
            length[op.index], head[op.index] = length[previous], head[previous]
    return _disjoint(sorted(came, key=lambda op: (-length[op], -op)), came)


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


def is_gate(graph: Graph, value: int) -> bool:
    """Whether the value is only used to scale another data path: as a factor, a mixing weight or attention weights."""
    return _all_uses(graph, value, _is_gating)


def is_output(graph: Graph, op: int) -> bool:
    """Whether the op's outputs go to the model's outputs, or into a loss, with nothing but rearranging in between."""
    outputs = frozenset(graph.outputs)
    return all(_all_uses(graph, value, _is_loss, outputs) for value in graph.ops[op].outputs[:1])


def is_rescaling(op: Op) -> bool:
    """Whether the op multiplies by a number or adds one: `0.5 * x`, `1 - x`."""
    return op.kind in ("add", "mul") and isinstance(op.attrs.get("scalar"), (int, float)) and len(op.inputs) == 1


# ---------------------------------------------------------------------------------------------------------------------


def _flow(graph: Graph) -> Flow:
    before: list[tuple[int, ...]] = []
    after: list[list[int]] = [[] for _ in graph.ops]
    entries: list[int] = []
    fed: set[int] = set()
    touched = set(graph.inputs)  # values that depend on an input in any way
    for op in graph.ops:
        sources = {graph.values[v].producer for i, v in enumerate(op.inputs) if differentiable(graph, op, i)}
        reached = tuple(sorted(source for source in sources if source is not None))
        before.append(reached)
        for source in reached:
            after[source].append(op.index)
        if any(value in touched for value in op.inputs):
            touched.update(op.outputs)
        if any(source in fed for source in reached):
            fed.add(op.index)
        elif _is_entry(graph, op, touched):
            entries.append(op.index)
            fed.add(op.index)
    return Flow(tuple(before), tuple(map(tuple, after)), _late_entries(graph, entries, fed), frozenset(fed))


def _is_entry(graph: Graph, op: Op, touched: set[int]) -> bool:
    """Whether a path begins here: at a floating input, or where weights first meet something made from other inputs."""
    if op.kind in _CUT:
        return False
    for place, value in enumerate(op.inputs):
        if graph.values[value].origin == "input" and differentiable(graph, op, place):
            return True
        if op.roles[place] == "input" and value in touched and graph.values[op.outputs[0]].requires_grad:
            return True
    return False


def _late_entries(graph: Graph, entries: list[int], fed: set[int]) -> tuple[int, ...]:
    """Ops on a path that also read a floating input directly, together with those where a path only begins."""
    inputs = {value for value in graph.inputs if _is_floating(graph.values[value].dtype)}
    direct = {
        op
        for value in inputs
        for op in graph.values[value].consumers
        if op in fed and any(v == value and differentiable(graph, graph.ops[op], i) for i, v in _places(graph.ops[op]))
    }
    return tuple(sorted(direct | set(entries)))


def _passes_gradients(op: Op) -> bool:
    return op.kind not in _CUT and op.function not in _DETACHED and op.grad_enabled


def _places(op: Op) -> Iterable[tuple[int, int]]:
    return enumerate(op.inputs)


def _is_floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat", "complex"))


def _producers(graph: Graph, values: Iterable[int]) -> frozenset[int]:
    return frozenset(p for p in (graph.values[value].producer for value in values) if p is not None)


def _closure(
    starts: Iterable[int], edges: tuple[tuple[int, ...], ...], avoided: frozenset[int] = frozenset()
) -> frozenset[int]:
    seen = set(starts)
    queue = list(seen)
    while queue:
        for op in edges[queue.pop()]:
            if op not in seen and op not in avoided:
                seen.add(op)
                queue.append(op)
    return frozenset(seen)


def _running(steps: list[int]) -> list[int]:
    total, sums = 0, []
    for step in steps:
        total += step
        sums.append(total)
    return sums


def _trace(end: int, came: dict[int, int]) -> tuple[int, ...]:
    path = []
    while end != _START:
        path.append(end)
        end = came[end]
    return tuple(reversed(path))


def _disjoint(ends: list[int], came: dict[int, int]) -> tuple[tuple[int, ...], ...]:
    found, taken = [], set()
    for end in ends:
        path: list[int] = []
        while end != _START and end not in taken:
            path.append(end)
            end = came[end]
        taken.update(path)
        if path:
            found.append(tuple(reversed(path)))
    return tuple(sorted(found, key=lambda path: (-len(path), path)))


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
    return {v for i, v in _places(op) if values[v].producer in paths.fed and differentiable(graph, op, i)}


def _all_uses(
    graph: Graph,
    value: int,
    wanted: Callable[[Graph, Op, int], bool],
    accepted: frozenset[int] | None = None,
) -> bool:
    """Whether every use of the value, looked at through rearranging ops, is a wanted one, and there is one at all.

    Uses as an output of the model count as wanted when `accepted` holds it, as unwanted when `accepted` is None.
    """
    queue, seen, found = [value], {value}, False
    while queue:
        current = queue.pop()
        if current in graph.outputs:
            if accepted is None:
                return False
            found = True
        for consumer in graph.values[current].consumers:
            op = graph.ops[consumer]
            if wanted(graph, op, current):
                found = True
            elif op.kind in TRANSPARENT or is_rescaling(op):
                following = [output for output in op.outputs if output not in seen]
                seen.update(following)
                queue += following
            elif op.kind not in _CUT:
                return False
    return found


def _is_gating(graph: Graph, op: Op, value: int) -> bool:
    others = [v for v in op.inputs if v != value and graph.values[v].origin in ("op", "input")]
    if op.kind in ("mul", "matmul"):
        return bool(others) and op.attrs.get("function") != "div"
    return op.function == "lerp" and value in op.inputs[2:]


def _is_loss(graph: Graph, op: Op, value: int) -> bool:
    return op.kind == "loss"
