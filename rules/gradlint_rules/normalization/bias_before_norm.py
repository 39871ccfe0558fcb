"""GL402: a bias that the normalisation after it takes away again."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

# Norms that subtract the mean over the axes along which a bias is constant: per channel over batch and space.
CENTRING = frozenset({"batch_norm", "instance_norm"})


@rule(code="GL402", name="bias-before-norm", family="normalization", severity="info", since="0.1.0")
def bias_before_norm(graph: Graph) -> Iterator[Draft]:
    """Layers with a trainable bias whose output only a batch or instance norm reads."""
    found = [op for op in graph.ops if op.kind in ("linear", "conv") and _is_wasted(graph, op)]
    if not found:
        return
    size = sum(param.shape[0] for op in found if (param := graph.param(op, "bias")) is not None)
    where = f"{len(found)} layers have" if len(found) > 1 else "a layer have"
    yield Draft(
        message=f"{size} biases of {where} no effect: the norm after each takes its mean off again",
        op=found[0].index,
        module=diagnosis.common(found) or None,
        ops=tuple(op.index for op in found),
        predicted={"biases": size},
    )


def _is_wasted(graph: Graph, op: Op) -> bool:
    bias = graph.param(op, "bias")
    if bias is None or not bias.requires_grad:
        return False
    readers = list(passage.after(graph, op, passage.KEEPING))
    return bool(readers) and all(_centres(reader) for reader in readers)


def _centres(reader: Op) -> bool:
    return reader.kind == "norm" and reader.function in CENTRING and bool(reader.attrs.get("batch_stats", True))
