"""GL406: batch norms in a net that regresses an image, whose absolute values they take away."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.traversal import reaches_output
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

LOSSES = frozenset({"mse", "l1", "smooth_l1", "huber"})
CENTRING = frozenset({"batch_norm", "instance_norm"})
COLOURS = 4  # channels of an image: grey, grey + alpha, RGB, RGBA


@rule(code="GL406", name="batchnorm-regression", family="normalization", severity="info", since="0.1.0")
def batchnorm_regression(graph: Graph, loss: str) -> Iterator[Draft]:
    """Batch norms between an image and an image of the same kind under a loss on the difference."""
    end = passage.output(graph)
    if loss not in LOSSES or end is None or len(end.shape) != 4 or end.shape[1] > COLOURS:
        return
    fed = [graph.values[v].shape for v in graph.inputs]
    if not any(len(shape) == 4 and shape[:2] == end.shape[:2] and end.shape[2] >= shape[2] for shape in fed):
        return
    reached = reaches_output(graph, [end.id])
    norms = [op for op in graph.ops if op.index in reached and _is_batch_norm(op)]
    if norms:
        yield Draft(
            message=f"{len(norms)} batch norms between an image and an image: what they subtract depends on the batch, "
            "so that brightness and contrast are lost; a layer norm, or none, keeps them",
            op=norms[0].index,
            module=diagnosis.common(norms) or None,
            ops=tuple(op.index for op in norms),
            predicted={"norms": len(norms)},
        )


def _is_batch_norm(op: Op) -> bool:
    return op.kind == "norm" and op.function in CENTRING and bool(op.attrs.get("batch_stats", True))
