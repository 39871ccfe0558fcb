"""Functions written out in steps that round to 0 or overflow, such as log(softmax(z)): what one function computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from gradlint.fix.candidate import Fuse
from gradlint.graph.ir import Graph, Op

SAME = frozenset({"copy"})
ENTRYWISE = SAME | {"reshape"}  # keeps the order of the entries
Form = Callable[[Graph, Op], Fuse | None]


def fusions(graph: Graph, ops: Iterable[int]) -> tuple[Fuse, ...]:
    """The steps for these ops, and for the calls alike on their lines; none where one of the ops is no such end."""
    named, ends = frozenset(ops), [op for op in graph.ops if op.function in FORMS]
    steps = {op.index: step for op in ends if (step := _fused(graph, op)) is not None}
    found = [op for op in ends if op.index in named or (op.index in steps and steps[op.index].start in named)]
    if any(op.index not in steps for op in found):
        return ()
    beside = [o for op in found for o in ends if o.span == op.span and o.function == op.function and op.span]
    return tuple(dict.fromkeys(steps[op.index] for op in (*found, *beside) if op.index in steps))


def _fused(graph: Graph, op: Op) -> Fuse | None:
    return next((step for form in FORMS[op.function] if (step := form(graph, op)) is not None), None)


def _log_softmax(graph: Graph, op: Op) -> Fuse | None:
    """log(softmax(z)): a share below 1e-45 rounds to 0."""
    inner = _before(graph, op, SAME)
    if inner is None or inner.function != "softmax":
        return None
    return Fuse(inner.index, op.index, "log_softmax", (_axis(inner),))


def _log_sigmoid(graph: Graph, op: Op) -> Fuse | None:
    """log(σ(z)), and log(1 - σ(z)), which is log(σ(-z)): below -17 the latter's argument rounds to 1."""
    inner, function = _before(graph, op, ENTRYWISE), "logsigmoid"
    if inner is not None and inner.function == "sub" and inner.attrs.get("reversed") and inner.attrs.get("scalar") == 1:
        inner, function = _before(graph, inner, ENTRYWISE), "negative_logsigmoid"
    return Fuse(inner.index, op.index, function) if inner is not None and inner.function == "sigmoid" else None


def _log_sum_exp(graph: Graph, op: Op) -> Fuse | None:
    """log(Σ exp(z)): exp overflows float32 above 88.7."""
    total = _before(graph, op, SAME)
    inner = None if total is None or total.function != "sum" else _before(graph, total, SAME)
    if total is None or inner is None or inner.function != "exp":
        return None
    return Fuse(inner.index, op.index, "logsumexp", _dims(total), bool(total.attrs.get("keepdim")))


def _softmax(graph: Graph, op: Op) -> Fuse | None:
    """exp(z) / Σ exp(z): infinity over infinity above 88.7."""
    inner, total = _before(graph, op, SAME), _before(graph, op, SAME, "other")
    summed = None if total is None or total.function != "sum" else _before(graph, total, SAME)
    if total is None or inner is None or summed is None or {inner.function, summed.function} != {"exp"}:
        return None
    alike = graph.data_inputs(inner) == graph.data_inputs(summed) and len(_dims(total)) == 1
    return Fuse(inner.index, op.index, "softmax", _dims(total)) if alike and total.attrs.get("keepdim") else None


def _before(graph: Graph, op: Op, kinds: frozenset[str], role: str = "input") -> Op | None:
    """The op that made what this op reads in a role, seen through ops of these kinds."""
    value = graph.operand(op, role)
    found = None if value is None else graph.op_of(value.id)
    while found is not None and found.kind in kinds:
        data = graph.data_inputs(found)
        found = graph.op_of(data[0]) if data else None
    return found


def _axis(op: Op) -> int:
    dim = op.attrs.get("dim")
    return dim if isinstance(dim, int) else -1


def _dims(op: Op) -> tuple[int, ...]:
    dims = op.attrs.get("dims")
    return tuple(dims) if isinstance(dims, tuple) else ()


FORMS: Mapping[str, tuple[Form, ...]] = {"log": (_log_softmax, _log_sigmoid, _log_sum_exp), "div": (_softmax,)}
