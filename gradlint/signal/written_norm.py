"""Norms written out as arithmetic: x·rsqrt(mean(x²) + ε) and (x − mean)/√(var + ε), found from the op that divides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradlint.graph import Graph, Op

HOPS = 8
SQUARES = frozenset({"square"})
DEVIATIONS = frozenset({"var", "std"})
PASSED = frozenset({"clamp", "to", "float", "clone", "contiguous"})
THROUGH = frozenset({"sqrt", "rsqrt", "clamp", "reciprocal", "to", "float", "clone", "contiguous"})


@dataclass(frozen=True)
class Written:
    """A norm of value `source` over `dims`, with ε as written."""

    source: int
    dims: tuple[int, ...]
    eps: float
    centred: bool
    length: bool = False  # divided by the root of the sum, not of the mean


def written(graph: Graph, op: Op) -> Written | None:
    """The norm that a product or quotient completes, or None when it is something else."""
    if op.kind != "mul" or len(op.inputs) != 2:
        return None
    pairs = [(op.inputs[0], op.inputs[1])]
    if op.function == "mul":
        pairs.append((op.inputs[1], op.inputs[0]))
    for numerator, divisor in pairs:
        found = _matched(graph, numerator, divisor, inverse=op.function == "mul")
        if found is not None:
            return found
    return None


def _matched(graph: Graph, numerator: int, divisor: int, *, inverse: bool) -> Written | None:
    chain = _chain(graph, divisor)
    if chain is None:
        return None
    reduce, functions, eps = chain
    if inverse != bool({"rsqrt", "reciprocal"} & functions or "pow-" in functions):
        return None
    value = _plain(graph, numerator)
    centre = _centred_source(graph, value)
    measured = _plain(graph, reduce.inputs[0])
    dims = reduce.attrs.get("dims")
    if not isinstance(dims, Sequence) or not reduce.attrs.get("keepdim"):
        return None
    axes = tuple(int(dim) for dim in dims)
    if reduce.function == "norm" and reduce.attrs.get("p", 2) in (2, None) and not functions - PASSED:
        return Written(value, axes, eps**2, centred=False, length=True) if measured == value else None
    if reduce.function == "sum" and _squared(graph, measured) == value:
        return Written(value, axes, eps, centred=False, length=True)
    if reduce.function in DEVIATIONS and measured in (value, centre) and centre is not None:
        return Written(centre, axes, eps, centred=True)
    squared = _squared(graph, measured)
    if centre is not None and squared is not None and _centred_source(graph, squared) == centre:
        value = squared
    if reduce.function == "mean" and squared == value:
        return Written(value if centre is None else centre, axes, eps, centred=centre is not None)
    return None


def _chain(graph: Graph, value: int) -> tuple[Op, set[str], float] | None:
    """From a divisor back to the reduction it is computed from: the functions on the way and the ε that is added."""
    functions, eps = set[str](), 0.0
    for _ in range(HOPS):
        op = graph.op_of(value)
        if op is None or not op.inputs:
            return None
        if op.kind == "reduce":
            return op, functions, eps
        name, number = op.function, op.attrs.get("scalar")
        if op.kind == "add" and len(op.inputs) == 1 and isinstance(number, int | float):
            eps += float(number)
        elif name == "pow" and op.attrs.get("exponent") in (0.5, -0.5):
            functions.add("pow-" if op.attrs.get("exponent") == -0.5 else "sqrt")
        elif name in THROUGH:
            functions.add(name)
        else:
            return None
        value = op.inputs[0]
    return None


def _plain(graph: Graph, value: int) -> int:
    """The value behind copies."""
    for _ in range(HOPS):
        op = graph.op_of(value)
        if op is None or op.kind != "copy" or op.function == "detach" or not op.inputs:
            return value
        value = op.inputs[0]
    return value


def less_mean(graph: Graph, op: Op) -> tuple[int, tuple[int, ...]] | None:
    """x and the dimensions where the op is x − mean(x) over them."""
    if op.kind != "add" or len(op.inputs) != 2 or not op.outputs:
        return None
    source = _centred_source(graph, op.outputs[0])
    mean = graph.op_of(op.inputs[1])
    dims = None if mean is None else mean.attrs.get("dims")
    if source is None or mean is None or not isinstance(dims, Sequence) or not mean.attrs.get("keepdim"):
        return None
    return source, tuple(int(dim) for dim in dims)


def _centred_source(graph: Graph, value: int) -> int | None:
    """x where the value is x − mean(x)."""
    op = graph.op_of(value)
    if op is None or op.kind != "add" or op.function != "sub" or len(op.inputs) != 2 or op.attrs.get("reversed"):
        return None
    source, mean = _plain(graph, op.inputs[0]), graph.op_of(op.inputs[1])
    if mean is None or mean.kind != "reduce" or mean.function != "mean" or _plain(graph, mean.inputs[0]) != source:
        return None
    return source


def _squared(graph: Graph, value: int) -> int | None:
    """x where the value is x²."""
    op = graph.op_of(value)
    if op is None or not op.inputs:
        return None
    double = op.function == "mul" and len(op.inputs) == 2 and op.inputs[0] == op.inputs[1]
    if op.function in SQUARES or (op.function == "pow" and op.attrs.get("exponent") == 2) or double:
        return _plain(graph, op.inputs[0])
    return None
