"""GL902: parameters that shape the output but that no gradient can reach."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft, Severity
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage

# A gradient is defined and zero everywhere.
STEPS = frozenset({"sign", "round", "floor", "ceil", "trunc", "heaviside"})
# Written by the author, who may have wanted it; then the parameters behind it should be frozen as well.
WISHED = frozenset({"detach", "data"})
# What features pass on the way to a layer.
FEATURES = passage.SHAPING | {"activation", "norm", "pool", "pad", "resize", "concat"}
NOTHING = -30.0  # log10(g/w) of a parameter without a gradient, which is measured as -inf


@rule(code="GL902", name="broken-gradient", family="wiring", severity="error", since="0.1.0")
def broken_gradient(graph: Graph) -> Iterator[Draft]:
    """Trainable parameters whose every way to the output passes a step that has no gradient (argmax, rounding, int)."""
    reached = _reached(graph)
    if not reached:
        return
    yield from _withheld(graph, reached)
    yield from _taken_out(graph, reached)
    cuts: dict[str, list[tuple[Op, list[str]]]] = {}
    for op in graph.ops:
        cut = [v for v in _read(op) if graph.values[v].requires_grad and v not in reached]
        lost = _behind(graph, cut, reached) if cut and _breaks(graph, op) else []
        if lost:
            cuts.setdefault(op.function, []).append((op, lost))
    yield from (_draft(graph, places) for places in cuts.values())


def _draft(graph: Graph, places: list[tuple[Op, list[str]]]) -> Draft:
    """One finding for all places of a function, about the one that cuts off most: a later one hides the earlier."""
    op, most = max(places, key=lambda place: len(place[1]))
    lost = list(dict.fromkeys([*most, *(path for _, behind in places for path in behind)]))
    readers = (reader.index for reader in graph.ops if set(lost) & set(reader.params))
    where = f", at {len(places)} places" if len(places) > 1 else ""
    return Draft(
        message=f"{op.function} cuts {len(lost)} parameter{'s' * (len(lost) > 1)} off from the gradient, "
        f"{lost[0]} first{where}",
        op=op.index,
        ops=tuple(sorted({*(place.index for place, _ in places), *readers})),
        claim=Claim("relative-gradient", (lost[0],), NOTHING, "below"),
        predicted={"parameters": len(lost)},
        severity=_wished(graph, [place for place, _ in places]) if op.function in WISHED else None,
    )


def _read(op: Op) -> list[int]:
    """The values whose numbers an op reads: of what noise is made like (`torch.randn_like(x)`) only the shape is."""
    return [value for value, role in zip(op.inputs, op.roles, strict=True) if role != "like"]


def _taken_out(graph: Graph, reached: set[int]) -> Iterator[Draft]:
    """Trainable parameters that are only ever used through numbers that Python took out of the graph."""
    lost = _behind(graph, sorted(graph.reads), reached)
    if not lost:
        return
    read = next(value for value in sorted(graph.reads) if lost[0] in _behind(graph, [value], reached))
    op = graph.op_of(read)
    readers = {reader.index for reader in graph.ops if set(lost) & set(reader.params)}
    yield Draft(
        message=f"item() takes {len(lost)} parameter{'s' * (len(lost) > 1)} out of the graph as a number, "
        f"{lost[0]} first: no gradient reaches {'them' if len(lost) > 1 else 'it'}",
        op=None if op is None else op.index,
        module=None if op is not None else lost[0].rpartition(".")[0],
        ops=tuple(sorted(readers)),
        claim=Claim("relative-gradient", (lost[0],), NOTHING, "below"),
        predicted={"parameters": len(lost)},
    )


def _withheld(graph: Graph, reached: set[int]) -> Iterator[Draft]:
    """Trainable parameters that are only ever read under `no_grad`."""
    learning = {graph.values[v].name for v in reached if graph.values[v].origin == "param"}
    ops = [op for op in graph.ops if not op.grad_enabled and _used(graph, op)]
    lost = {path: op for op in ops for path in op.params if path not in learning and graph.params[path].requires_grad}
    if not lost:
        return
    readers = sorted({op.index for op in ops if lost.keys() & set(op.params)})
    first = next(iter(lost))
    yield Draft(
        message=f"{len(lost)} trainable parameter{'s' * (len(lost) > 1)} only run under no_grad, {first} first: "
        "they are given to the optimiser and never change",
        op=readers[0],
        ops=tuple(readers),
        claim=Claim("relative-gradient", (first,), NOTHING, "below"),
        predicted={"parameters": len(lost)},
        severity="warning" if _feeds(graph, readers) else _wished(graph, [graph.ops[index] for index in readers]),
    )


def _feeds(graph: Graph, readers: list[int]) -> bool:
    """Whether a layer that learns reads what these ops made as features, alone or beside others.

    What is subtracted (a target) or added (a bias, a mask, positions) is no feature.
    """
    made = {value for index in readers for value in graph.ops[index].outputs}
    for op in graph.ops:
        if made.intersection(op.inputs) and op.index not in readers:
            if op.grad_enabled and op.kind in ("linear", "conv", "recurrent") and passage.weight(graph, op) is not None:
                return True
            if not op.grad_enabled or op.kind in FEATURES:
                made.update(op.outputs)
    return False


def _wished(graph: Graph, cutting: list[Op]) -> Severity:
    """How much a cut that the author wrote matters: a target that another branch learns from is a note."""
    cut = {op.index for op in cutting}
    fed = set(graph.inputs)
    for op in graph.ops:
        if op.index not in cut and fed.intersection(op.inputs):
            fed.update(op.outputs)
    return "warning" if fed.isdisjoint(graph.outputs) else "info"


def _reached(graph: Graph) -> set[int]:
    """Values that a gradient flows back to from an output."""
    reached = {v for v in graph.outputs if graph.values[v].requires_grad}
    for op in reversed(graph.ops):
        if op.function not in STEPS and reached.intersection(op.outputs):
            reached.update(v for v in op.inputs if graph.values[v].requires_grad)
    return reached


def _breaks(graph: Graph, op: Op) -> bool:
    """Whether the op itself stops the gradient; inside `no_grad` nothing does."""
    if not op.grad_enabled:
        return False
    wanted = [v for v in op.outputs if graph.values[v].consumers or v in graph.outputs]  # not the values of a topk
    stops = op.function in STEPS or not any(graph.values[v].requires_grad for v in wanted)
    return stops and _used(graph, op)


def _used(graph: Graph, op: Op) -> bool:
    """Whether what the op made has any part in an output."""
    wanted = set(op.outputs)
    for later in graph.ops[op.index + 1 :]:
        if wanted.intersection(later.inputs):
            wanted.update(later.outputs)
    return not wanted.isdisjoint(graph.outputs)


def _behind(graph: Graph, cut: list[int], reached: set[int]) -> list[str]:
    """Trainable parameters that these values were computed from and that nothing else gives a gradient."""
    behind = set(cut)
    for op in reversed(graph.ops):
        if behind.intersection(op.outputs):
            behind.update(v for v in op.inputs if graph.values[v].requires_grad and v not in reached)
    return [graph.values[v].name for v in sorted(behind) if graph.values[v].origin == "param"]
