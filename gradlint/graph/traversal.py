"""Paths through a graph: what a gradient flows along, which ops every path crosses, which are skipped, what is a gate.

Everything is plain data and linear in the number of ops, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gradlint.graph.flow import CUT, Flow, differentiable, flow, is_floating, is_weighted, passes_gradients
from gradlint.graph.ir import Graph, Op
from gradlint.graph.merge import Merge, between, merges, residuals

__all__ = [
    "Flow",
    "Merge",
    "Predicate",
    "between",
    "bypassed",
    "chains",
    "depth",
    "differentiable",
    "flow",
    "is_gate",
    "is_output",
    "is_rescaling",
    "is_weighted",
    "longest_path",
    "main_outputs",
    "makers",
    "merges",
    "predecessors",
    "reaches_output",
    "residuals",
    "series_ops",
    "successors",
]

Predicate = Callable[[Op], bool]

REARRANGING = frozenset({"copy", "reshape", "permute"})  # the same numbers in another place
TRANSPARENT = frozenset({"reshape", "permute", "copy", "expand", "slice", "split", "dropout", "concat", "pad"})
_START = -1  # stands for everything before the first op of a path


def predecessors(graph: Graph, op: int) -> tuple[int, ...]:
    """The ops whose outputs the op reads and sends a gradient to."""
    return flow(graph).before[op]


def successors(graph: Graph, op: int) -> tuple[int, ...]:
    """The ops that read the op's outputs and send it a gradient."""
    return flow(graph).after[op]


def main_outputs(graph: Graph) -> tuple[int, ...]:
    """The output that training is about: the one named "loss", else the first floating one."""
    floating = [value for value in graph.outputs if is_floating(graph.values[value].dtype)]
    for name, value in zip(graph.output_names, graph.outputs, strict=False):
        if name == "loss" and value in floating:
            return (value,)
    return tuple(floating[:1])


def makers(graph: Graph, value: int) -> tuple[Op, ...]:
    """The ops that made the numbers of the value, past ops that rearrange them; () for a leaf.

    That is one op, except where parts are put together that were all made by the same function (the steps of a decoder,
    the scales of a detector): then the ops of the parts, in order.
    """
    last = _unmoved(graph, value)
    waiting, parts = [value], list[Op]()
    while waiting:
        op = _unmoved(graph, waiting.pop())
        if op is not None and op.kind == "concat":
            waiting += reversed(op.inputs)
        elif op is None or (parts and (op.kind, op.function) != (parts[0].kind, parts[0].function)):
            return () if last is None else (last,)
        else:
            parts.append(op)
    return tuple({op.index: op for op in parts}.values())


def reaches_output(graph: Graph, outputs: Iterable[int] | None = None) -> frozenset[int]:
    """The ops that a gradient at the outputs (value ids; all of the model's by default) flows back to."""
    ends = _producers(graph, graph.outputs if outputs is None else outputs)
    reached = _closure(ends, flow(graph).before)
    return frozenset(op for op in reached if passes_gradients(graph.ops[op]))


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


def _unmoved(graph: Graph, value: int) -> Op | None:
    op = graph.op_of(value)
    while op is not None and op.kind in REARRANGING and graph.data_inputs(op):
        op = graph.op_of(graph.data_inputs(op)[0])
    return op


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
            elif op.kind not in CUT:
                return False
    return found


def _is_gating(graph: Graph, op: Op, value: int) -> bool:
    others = [v for v in op.inputs if v != value and graph.values[v].origin in ("op", "input")]
    if op.kind in ("mul", "matmul"):
        return bool(others) and op.attrs.get("function") != "div"
    return op.function == "lerp" and value in op.inputs[2:]


def _is_loss(graph: Graph, op: Op, value: int) -> bool:
    return op.kind == "loss"
