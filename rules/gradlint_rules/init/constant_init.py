"""GL303: layers in series, or multiplied with each other, whose weights are all one number, so that none can learn."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op, Param
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

# One way only: where two paths meet, the other one can break the symmetry.
ONE_WAY = passage.SHAPING | {"activation", "norm", "pool", "pad", "softmax", "reduce", "resize", "elementwise"}
EQUAL = 1e-6  # std ÷ largest entry below which all entries count as one number


@rule(code="GL303", name="constant-init", family="init", severity="error", since="0.1.0")
def constant_init(graph: Graph) -> Iterator[Draft]:
    """Pairs of layers in series that are both initialised to a constant, and factors that are both 0."""
    yield from _products(graph)
    pairs = [(op, reader) for op in graph.ops for reader in _pairs(graph, op)]
    if not pairs:
        return
    ops = [graph.ops[index] for index in sorted({op.index for pair in pairs for op in pair})]
    value = passage.weight(graph, ops[0])
    number = 0.0 if value is None or value.mean is None else value.mean
    yield Draft(
        message=f"all weights of {len(ops)} layers in a row are {number:.3g}: their units stay copies of each other"
        if number
        else f"all weights of {len(ops)} layers in a row are 0: none of them ever gets a gradient",
        op=ops[0].index,
        module=diagnosis.common(ops) or None,
        ops=tuple(op.index for op in ops),
        related=diagnosis.related(graph, ops, f"the last of {len(ops)}"),
        predicted={"layers": len(ops), "value": number},
        cause="constant-init" if number else "zero-init",
    )


def _products(graph: Graph) -> Iterator[Draft]:
    """Layers of zeros whose outputs are multiplied with each other and read by nothing else: ∂(u·v) = v∂u + u∂v = 0."""
    for op in graph.ops:
        data = dict.fromkeys(graph.data_inputs(op)) if op.kind in ("mul", "matmul") else {}
        factors = [passage.before(graph, value) for value in data]
        silent = [factor for factor in factors if factor is not None and _silent(graph, factor, op)]
        if len(silent) == len(data) > 1:
            yield Draft(
                message=f"all weights of {len(silent)} layers that are multiplied with each other are 0: "
                "none of them ever gets a gradient",
                op=silent[0].index,
                ops=(*sorted(factor.index for factor in silent), op.index),
                related=diagnosis.related(graph, silent, "the other factor"),
                predicted={"layers": len(silent), "value": 0.0},
                cause="zero-init",
            )


def _silent(graph: Graph, op: Op, reader: Op) -> bool:
    """Whether all that the op computes with is trainable and 0, and only the reader reads what it made."""
    params = [graph.params[path] for path in op.params if path in graph.params]
    zero = bool(params) and all(param.abs_max == 0 and param.requires_grad for param in params)
    return zero and list(passage.after(graph, op)) == [reader]


def _pairs(graph: Graph, op: Op) -> Iterator[Op]:
    """The constant layers that read a constant layer of several units and nothing else."""
    mine = passage.weight(graph, op)
    if mine is None or not _constant(mine) or (passage.features(graph, op) or 2) < 2:
        return
    for reader in passage.after(graph, op, ONE_WAY, biased=True):
        weight = passage.weight(graph, reader)
        if weight is not None and weight is not mine and _constant(weight):
            yield reader


def _constant(param: Param) -> bool:
    if param.std is None or param.abs_max is None or not param.requires_grad:
        return False
    return param.std <= EQUAL * param.abs_max
