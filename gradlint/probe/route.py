"""Which way a signal takes from the inputs to an output, and which weights stand on every way."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered
from gradlint.graph.mixing import mixing

# Ops that carry the signal through a weight. Gains and shifts (norms, layer scale, position tables) do not, and an
# embedding is where the signal starts: each of its rows sees few samples, so its gradient does not compare.
WEIGHTED = frozenset({"linear", "conv", "matmul", "recurrent", "custom"})
BARRIERS = frozenset({"compare", "create"})
# Operands that choose, count or normalise, but do not pass the signal on.
CONTROL = frozenset(
    {"mask", "target", "running_mean", "running_var", "index", "indices", "attn_mask", "bias", "weight"}
)
FLOATING = ("float", "bfloat", "complex")

# The number of a weight, or None for one that is not judged (frozen, unused, unknown).
Number = Callable[[str], float | None]

_LAYER = re.compile(r"_l(\d+)(?:_reverse)?$")


@dataclass(frozen=True)
class Route:
    """The ops of one way from an input to an output, first to last, and the value that leaves each one.

    `width` is the smallest number among the weights on it, and `weakest` is the parameter that has it.
    """

    ops: tuple[int, ...]
    values: tuple[int, ...]
    width: float
    weakest: str


@dataclass(frozen=True)
class _Reach:
    """How a value is reached: from an input without passing a weight (`bare`), and the widest way past a weight."""

    bare: bool = False
    width: float = -math.inf
    weakest: str = ""
    source: int | None = None  # the value before, on that way

    @property
    def weighted(self) -> bool:
        return bool(self.weakest)


def carried(graph: Graph, op: Op) -> list[int]:
    """Value ids of the operands whose signal the op passes on: floating, and neither parameters nor controls."""
    if op.kind in BARRIERS:
        return []
    return [
        value
        for value, role in zip(op.inputs, op.roles, strict=True)
        if graph.values[value].origin in ("op", "input")
        and graph.values[value].dtype.startswith(FLOATING)
        and (role not in CONTROL or graph.values[value].requires_grad)
    ]


@remembered
def weights(graph: Graph) -> Mapping[int, tuple[str, ...]]:
    """Per op that carries the signal through a weight, the trainable weights with two or more dimensions it reads.

    A weight that is computed from parameters alone (weight norm, spectral norm, a product of low-rank factors) counts
    for the op that uses it.
    """
    computed = _computed(graph)
    found = {}
    for op in graph.ops:
        if op.kind not in WEIGHTED or not op.outputs or op.outputs[0] in computed:
            continue
        paths = [*op.params, *(path for value in op.inputs for path in computed.get(value, ()))]
        trainable = [path for path in dict.fromkeys(paths) if _is_weight(graph, path)]
        if trainable:
            found[op.index] = tuple(trainable)
    return found


@remembered
def applications(graph: Graph) -> Mapping[str, int]:
    """Per weight how often one run applies it: the ops of `weights`, a recurrent op once for each time step."""
    counts: dict[str, int] = {}
    for index, paths in weights(graph).items():
        for path in paths:
            counts[path] = counts.get(path, 0) + _steps(graph, graph.ops[index])
    return counts


def _steps(graph: Graph, op: Op) -> int:
    value = graph.operand(op, "input") if op.kind == "recurrent" else None
    if value is None or op.attrs.get("cell") or op.attrs.get("packed") or len(value.shape) < 2:
        return 1
    return max(1, value.shape[1 if op.attrs.get("batch_first") and len(value.shape) == 3 else 0])


def width(paths: tuple[str, ...], number: Number) -> tuple[float, str] | None:
    """The number of an op with these weights and the one that sets it: the best of each layer, the worst of the layers.

    The weights of one layer of a recurrent op are alternatives (its hidden weights get nothing from a single step);
    its layers are in series.
    """
    layers: dict[str, tuple[float, str]] = {}
    for path in paths:
        value = number(path)
        layer = match.group(1) if (match := _LAYER.search(path)) else ""
        if value is not None and not math.isnan(value):
            layers[layer] = max(layers.get(layer, (value, path)), (value, path))
    return min(layers.values()) if layers else None


def widest(graph: Graph, number: Number) -> Route | None:
    """The way whose smallest weight is largest; of several outputs the one that fares worst; None when none is judged.

    The smallest number on the best way equals the largest number in the worst cut (Edmonds & Fulkerson 1970), so one
    dead branch beside a live one does not count, and two dead ones do. Ways that pass no weight are left out.
    """
    reach = _reaches(graph, number)
    ends = [value for value in graph.outputs if reach.get(value, _Reach()).weighted]
    differentiable = [value for value in ends if graph.values[value].requires_grad]
    if not ends:
        return None
    end = min(differentiable or ends, key=lambda value: reach[value].width)
    return _trace(graph, reach, end)


@remembered
def series(graph: Graph) -> tuple[int, ...]:
    """Indices of the weighted ops that every way from an input to the first output passes, in order."""
    mine = weights(graph)
    ends = [v for v in graph.outputs if graph.values[v].dtype.startswith(FLOATING)]
    ends = [v for v in ends if graph.values[v].requires_grad] or ends
    if not ends:
        return ()
    before = _count_before(graph)
    after = _count_after(graph, ends[0])
    total = before.get(ends[0], 0)
    return tuple(
        index
        for index in sorted(mine)
        if total and sum(before.get(v, 0) * after.get(v, 0) for v in graph.ops[index].outputs) == total
    )


def chain(graph: Graph, around: Collection[int] = ()) -> tuple[int, ...]:
    """The hidden layers in series: the ops of `series` but the last, a weight that several ops share counted once.

    `around` are ops that something else leads the signal past.
    """
    mine = weights(graph)
    first: dict[tuple[str, ...], int] = {}
    for index in series(graph)[:-1]:
        first.setdefault(mine[index], index)
    return tuple(index for index in first.values() if index not in around)


def aspect(graph: Graph, around: Collection[int] = ()) -> float:
    """Depth over width: how many hidden layers are in series over the median number of units they have.

    A layer of n units changes the norms of signal and gradient by a random factor whose logarithm has a variance of
    about 5/n with ReLU, and a chain of L adds them up to 5 L/n (Hanin 2018; Hanin & Rolnick 2018, "How to start
    training"). L/n is what a net's departure from its mean is expanded in, and at 1 it is as large as the mean
    (Roberts, Yaida & Hanin 2022, The principles of deep learning theory). A unit is an entry of a sample's output.
    """
    layers = chain(graph, around)
    if not layers:
        return 0.0
    return len(layers) / statistics.median(math.prod(graph.values[graph.ops[i].outputs[0]].shape[1:]) for i in layers)


@remembered
def merges(graph: Graph) -> tuple[int, ...]:
    """Values that every way from an input to the first output passes and where ways meet that passed a weight or none.

    Whatever lies before such a value learns through it alone, also where a way beside all weights leads past them.
    """
    ends = [v for v in graph.outputs if graph.values[v].dtype.startswith(FLOATING)]
    ends = [v for v in ends if graph.values[v].requires_grad] or ends
    if not ends:
        return ()
    before, after = _count_before(graph), _count_after(graph, ends[0])
    total = before.get(ends[0], 0)
    reach = _reaches(graph, lambda path: 0.0)
    met = [op for op in graph.ops if op.kind == "add" and len(carried(graph, op)) > 1]
    values = [v for op in met for v in op.outputs if reach.get(v, _Reach()).weighted]
    return tuple(v for v in values if total and before.get(v, 0) * after.get(v, 0) == total)


def is_source(graph: Graph, op: Op) -> bool:
    """Whether no gradient passes back through the op, so that its output counts as an input: detached or frozen."""
    if op.kind == "embedding" or not op.outputs:
        return True
    return _tracks(graph) and not any(graph.values[v].requires_grad for v in op.outputs)


def _is_weight(graph: Graph, path: str) -> bool:
    param = graph.params.get(path)
    return param is not None and param.requires_grad and len(param.shape) >= 2


def _computed(graph: Graph) -> dict[int, tuple[str, ...]]:
    """Values computed from parameters, buffers and constants alone, and the parameters behind each one."""
    known: dict[int, tuple[str, ...]] = {}
    for op in graph.ops:
        origins = [graph.values[v].origin for v in op.inputs]
        if all(o in ("param", "buffer", "constant") or v in known for o, v in zip(origins, op.inputs, strict=True)):
            paths = [*op.params, *(path for v in op.inputs for path in known.get(v, ()))]
            known |= {value: tuple(dict.fromkeys(paths)) for value in op.outputs}
    return known


def _tracks(graph: Graph) -> bool:
    """Whether the graph knows which values get a gradient (a graph that was not recorded may not)."""
    return any(value.requires_grad for value in graph.values if value.origin == "op")


def _sources(graph: Graph) -> list[int]:
    """The inputs that a signal starts at: floating ones that do more than mix what was made of others."""
    return [v for v in graph.inputs if graph.values[v].dtype.startswith(FLOATING) and v not in mixing(graph)]


def _reaches(graph: Graph, number: Number) -> dict[int, _Reach]:
    mine = weights(graph)
    tracked = _tracks(graph)
    reach = {v: _Reach(bare=True) for v in _sources(graph)}
    for op in graph.ops:
        arrived = [(v, reach[v]) for v in carried(graph, op) if v in reach]
        if not arrived and op.kind != "embedding":
            continue
        result = _step(op, arrived, width(mine.get(op.index, ()), number))
        cut = tracked and not any(graph.values[v].requires_grad for v in op.outputs)
        reach |= {value: _Reach(bare=True) if cut else result for value in op.outputs}
    return reach


def _step(op: Op, arrived: list[tuple[int, _Reach]], own: tuple[float, str] | None) -> _Reach:
    best = max((entry for entry in arrived if entry[1].weighted), key=lambda entry: entry[1].width, default=None)
    bare = op.kind == "embedding" or any(entry.bare for _, entry in arrived)
    if own is None:
        return _Reach(bare, *_carry(best))
    if bare:
        source = next((value for value, entry in arrived if entry.bare), None)
        return _Reach(False, *own, source)
    if best is None or own[0] <= best[1].width:
        return _Reach(False, *own, best[0] if best else None)
    return _Reach(False, *_carry(best))


def _carry(best: tuple[int, _Reach] | None) -> tuple[float, str, int | None]:
    return (-math.inf, "", None) if best is None else (best[1].width, best[1].weakest, best[0])


def _trace(graph: Graph, reach: Mapping[int, _Reach], end: int) -> Route:
    values = list(_back(reach, end))[::-1]
    ops = tuple(producer for v in values if (producer := graph.values[v].producer) is not None)
    return Route(
        ops, tuple(v for v in values if graph.values[v].producer is not None), reach[end].width, reach[end].weakest
    )


def _back(reach: Mapping[int, _Reach], end: int) -> Iterator[int]:
    value: int | None = end
    while value is not None and value in reach:
        yield value
        value = reach[value].source


def _count_before(graph: Graph) -> dict[int, int]:
    """Per value the number of ways to it from an input."""
    tracked = _tracks(graph)
    count = dict.fromkeys(_sources(graph), 1)
    for op in graph.ops:
        ways = sum(count.get(v, 0) for v in carried(graph, op))
        if op.kind == "embedding" or (ways and tracked and not any(graph.values[v].requires_grad for v in op.outputs)):
            ways = 1
        count |= dict.fromkeys(op.outputs, ways)
    return count


def _count_after(graph: Graph, end: int) -> dict[int, int]:
    """Per value the number of ways from it to the end."""
    count = {end: 1}
    for op in reversed(graph.ops):
        ways = sum(count.get(v, 0) for v in op.outputs)
        if ways:
            for value in carried(graph, op):
                count[value] = count.get(value, 0) + ways
    return count
