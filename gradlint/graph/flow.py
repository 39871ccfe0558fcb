"""What a gradient flows along: the differentiable edges of a graph, and the paths that start at the model's inputs."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

from gradlint.graph.ir import Graph, Op
from gradlint.graph.mixing import mixing

WEIGHTED = frozenset({"linear", "conv", "recurrent", "embedding"})
CUT = frozenset({"create", "compare"})
_DETACHED = frozenset({"detach", "set"})
_NO_GRADIENT_ROLES = frozenset(
    {"mask", "like", "overwritten", "sizes", "shape", "dtype", "index", "indices", "batch_sizes", "offsets", "target"}
)


@dataclass(frozen=True)
class Flow:
    """The differentiable data edges between ops, and the ops on a path from the model's inputs (`fed`).

    `before[i]` and `after[i]` are op indices in ascending order; `entries` are the ops where a path begins.
    """

    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]
    entries: tuple[int, ...]
    fed: frozenset[int]


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
    if not passes_gradients(op):
        return False
    value, role = graph.values[op.inputs[place]], op.roles[place].partition(".")[0]
    if role in _NO_GRADIENT_ROLES and not (role == "mask" and value.requires_grad):
        return False  # a mask with a gradient is a learned bias on attention logits
    return is_floating(value.dtype)


def is_weighted(op: Op) -> bool:
    """Whether the op applies a weight: a linear map, convolution, recurrent network or embedding."""
    return op.kind in WEIGHTED


def _flow(graph: Graph) -> Flow:
    before: list[tuple[int, ...]] = []
    after: list[list[int]] = [[] for _ in graph.ops]
    entries: list[int] = []
    fed: set[int] = set()
    touched = set(graph.inputs)  # values that depend on an input in any way
    for op in graph.ops:
        sources = {graph.values[v].producer for i, v in enumerate(op.inputs) if differentiable(graph, op, i)}
        reached = tuple(sorted(s for s in sources if s is not None and passes_gradients(graph.ops[s])))
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
    if op.kind in CUT:
        return False
    if _reads_input(graph, op):
        return True
    learned = graph.values[op.outputs[0]].requires_grad
    return learned and any(
        role == "input" and value in touched for value, role in zip(op.inputs, op.roles, strict=True)
    )


def _late_entries(graph: Graph, entries: list[int], fed: set[int]) -> tuple[int, ...]:
    """Ops on a path that also read a floating input directly, together with those where a path only begins."""
    direct = {op for value in graph.inputs for op in graph.values[value].consumers if op in fed}
    return tuple(sorted({op for op in direct if _reads_input(graph, graph.ops[op])} | set(entries)))


def _reads_input(graph: Graph, op: Op) -> bool:
    return any(
        graph.values[value].origin == "input" and value not in mixing(graph) and differentiable(graph, op, place)
        for place, value in enumerate(op.inputs)
    )


def passes_gradients(op: Op) -> bool:
    """Whether the op sends any gradient back: it computes something differentiable, and not under no_grad."""
    return op.kind not in CUT and op.function not in _DETACHED and op.grad_enabled


def is_floating(dtype: str) -> bool:
    """Whether tensors of the dtype (by torch's name) can have a gradient."""
    return dtype.startswith(("float", "bfloat", "complex"))
