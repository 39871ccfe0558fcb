"""GL909: a plain tensor used as the weight of a layer, which nothing ever trains."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op, Value
from gradlint.rule import rule
from gradlint_rules import passage

WEIGHTS = frozenset({"other", "weight"})  # the right operand of x @ W: a graph's adjacency stands on the left
FEATURES = frozenset({"sin", "cos"})  # random Fourier features are fixed on purpose (Rahimi & Recht 2007)


@rule(code="GL909", name="untrained-weight", family="wiring", severity="warning", since="0.1.0")
def untrained_weight(graph: Graph) -> Iterator[Draft]:
    """Matrices that are neither parameter, buffer nor input, and that data is multiplied with from the right."""
    found = [(op, value) for op in graph.ops if (value := _weight(graph, op)) is not None]
    if not found:
        return
    first, value = found[0]
    names = sorted({value.name for _, value in found if value.name})
    shape = "×".join(map(str, value.shape))
    yield Draft(
        message=f"{len({value.id for _, value in found})} matri{'x' if len(found) == 1 else 'ces'} ({shape}) used as a "
        f"weight but neither parameter nor buffer{': ' + ', '.join(names) if names else ''}",
        op=first.index,
        ops=tuple(op.index for op, _ in found),
        predicted={"tensors": len(found)},
    )


def _weight(graph: Graph, op: Op) -> Value | None:
    """The matrix of numbers that the op multiplies its data with, when a layer's weight would stand there."""
    if op.kind not in ("matmul", "linear"):
        return None
    for value, role in zip((graph.values[v] for v in op.inputs), op.roles, strict=True):
        learnable = value.origin == "constant" and role in WEIGHTS and not value.requires_grad
        if learnable and len(value.shape) == 2 and min(value.shape) > 1 and value.dtype.startswith(("float", "bfloat")):
            return None if any(reader.function in FEATURES for reader in _readers(graph, op)) else value
    return None


def _readers(graph: Graph, op: Op) -> Iterator[Op]:
    """What reads the product, seen through a shift and a scale."""
    return passage.after(graph, op, passage.SHAPING | {"add", "mul", "concat"})
