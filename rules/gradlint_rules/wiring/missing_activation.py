"""GL903: two layers with no non-linearity between them, which are one layer."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op, Param
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

LINEAR = passage.SHAPING | {"pad"}
LAYERS = 3  # all in one row: a model of two may be a factorisation that its author wanted
# What a linear map is made of; `add` and `mul` only with a number or a bias.
STRAIGHT = LINEAR | {"linear", "conv", "create", "compare"}


@rule(code="GL903", name="missing-activation", family="wiring", severity="info", since="0.1.0")
def missing_activation(graph: Graph) -> Iterator[Draft]:
    """Pairs of full layers whose product is a layer of the same kind."""
    pairs = [pair for op in graph.ops for pair in _pairs(graph, op)]
    if not pairs:
        return
    first, second = pairs[0]
    yield Draft(
        message=f"{first.module_path or 'a layer'} and {second.module_path or 'the next'} have no activation between "
        f"them and are one linear map" + (f"; so are {len(pairs) - 1} more pairs" if len(pairs) > 1 else ""),
        op=second.index,
        ops=tuple(sorted({op.index for pair in pairs for op in pair})),
        related=diagnosis.related(graph, [first, second], "the layer after it"),
        severity="warning" if len(pairs) >= LAYERS - 1 and _is_linear(graph) else None,
    )


def _is_linear(graph: Graph) -> bool:
    """Whether nothing between the model's inputs and its last layer is more than a linear map."""
    last = max((op.index for op in graph.ops if passage.weight(graph, op) is not None), default=-1)
    return all(op.kind in STRAIGHT or passage.is_scaling(graph, op) for op in graph.ops[: last + 1])


def _pairs(graph: Graph, op: Op) -> Iterator[tuple[Op, Op]]:
    """The op with each layer that directly reads it, where the two could be one."""
    weight = passage.weight(graph, op) if op.kind in ("linear", "conv") else None
    if weight is None:
        return
    readers = list(passage.after(graph, op, LINEAR))
    if len(readers) != 1 or readers[0].kind != op.kind:
        return
    after = passage.weight(graph, readers[0])
    if after is not None and after is not weight and _could_be_one(op, readers[0], weight, after):
        yield op, readers[0]


def _could_be_one(op: Op, reader: Op, weight: Param, after: Param) -> bool:
    """Whether nothing is gained by two: no bottleneck between them (a low-rank factor) and no separable convolution."""
    if op.kind == "conv":
        kernels = (op.attrs.get("kernel"), reader.attrs.get("kernel"))
        separable = op.attrs.get("groups") != 1 or reader.attrs.get("groups") != 1 or kernels[0] != kernels[1]
        return not separable and weight.shape[0] >= min(weight.shape[1], after.shape[0])
    return weight.fan_out >= min(weight.fan_in, after.fan_out)
