"""GL707: a softmax that runs over the samples of the batch instead of over the classes."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage

LOSSES = frozenset({"ce", "nll"})  # they take the classes from axis 1, and the samples from axis 0


@rule(code="GL707", name="softmax-over-samples", family="output", severity="error", since="0.1.0")
def softmax_over_samples(graph: Graph, loss: str) -> Iterator[Draft]:
    """A softmax along axis 0 of class scores that a layer makes of a batch, or of attention scores of a batch."""
    value = passage.output(graph)
    last = None if value is None else passage.before(graph, value.id, passage.KEEPING)
    for op in graph.ops:
        if op.kind != "softmax" or op.attrs.get("dim") != 0 or not graph.values[op.outputs[0]].requires_grad:
            continue
        if (op is last and loss in LOSSES and _of_classes(graph, op)) or _of_attention(graph, op):
            samples = graph.values[op.outputs[0]].shape[0]
            yield Draft(
                message=f"{op.function} over the {samples} samples of the batch (dim 0): what a sample gets depends on "
                "the others",
                op=op.index,
                ops=(op.index,),
                predicted={"samples": samples},
            )


def _of_classes(graph: Graph, op: Op) -> bool:
    """Whether the scores lie as samples × classes, and the model's input has these samples on its axis 0 as well."""
    shape = graph.values[op.outputs[0]].shape
    return len(shape) > 1 and shape[0] > 1 and shape[1] > 1 and _is_batched(graph, shape[0])


def _of_attention(graph: Graph, op: Op) -> bool:
    """Whether the scores are products within each sample, which axis 0 counts."""
    shape, made = graph.values[op.outputs[0]].shape, passage.producer(graph, op, passage.KEEPING, scaled=True)
    batched = len(shape) > 2 and shape[0] > 1 and _is_batched(graph, shape[0])
    return batched and made is not None and made.kind == "matmul" and _is_within_samples(graph, made)


def _is_within_samples(graph: Graph, product: Op) -> bool:
    """Whether both factors have the axis 0 of the product: a batch of products, not one with a common matrix."""
    shapes = [graph.values[v].shape for v in graph.data_inputs(product)]
    samples = graph.values[product.outputs[0]].shape[0]
    return len(shapes) == 2 and all(len(shape) > 2 and shape[0] == samples for shape in shapes)


def _is_batched(graph: Graph, samples: int) -> bool:
    return all(graph.values[v].shape[:1] == (samples,) for v in graph.inputs)
