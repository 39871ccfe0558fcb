"""GL906: a tensor that wants a gradient but is no parameter of the model."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule


@rule(code="GL906", name="unregistered-parameter", family="wiring", severity="error", since="0.1.0")
def unregistered_parameter(graph: Graph) -> Iterator[Draft]:
    """Tensors with requires_grad that the run reads and that `model.parameters()` does not list."""
    found = [(op, value) for op in graph.ops for value in op.inputs if _is_lost(graph, op, value)]
    if not found:
        return
    op, value = found[0]
    tensors = len({v for _, v in found})
    shape = "×".join(str(size) for size in graph.values[value].shape) or "one number"
    yield Draft(
        message=f"{tensors} trainable tensor{'s' * (tensors > 1)} ({shape}) not registered as a "
        "parameter: no optimiser will reach it",
        op=op.index,
        ops=tuple(sorted({reader.index for reader, _ in found})),
        predicted={"tensors": tensors},
    )


def _is_lost(graph: Graph, op: Op, value: int) -> bool:
    """Whether the op reads a leaf that requires a gradient and is neither a parameter nor an input."""
    known = graph.values[value]
    return known.requires_grad and known.producer is None and known.origin in ("constant", "buffer")
