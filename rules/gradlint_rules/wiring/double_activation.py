"""GL904: two activations with no weight between them."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft, Severity
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage

# (outer, inner) → what the pair does. Pairs that a published activation is made of (tanh of softplus) are left out.
RANGES = {
    ("sigmoid", "tanh"): "confines the output to 0.27 … 0.73",
    ("sigmoid", "sigmoid"): "confines the output to 0.50 … 0.73",
    ("sigmoid", "softmax"): "confines the output to 0.50 … 0.73",
    ("sigmoid", "relu"): "confines the output to 0.50 … 1",
    ("tanh", "sigmoid"): "confines the output to 0 … 0.76",
    ("tanh", "tanh"): "confines the output to -0.76 … 0.76",
    ("tanh", "softmax"): "confines the output to 0 … 0.76",
    ("softmax", "softmax"): "confines each share to a factor e of the others",
    ("softmax", "sigmoid"): "confines each share to a factor e of the others",
    ("softmax", "tanh"): "confines each share to a factor e² of the others",
    ("log_softmax", "softmax"): "confines each share to a factor e of the others",
    ("log_softmax", "sigmoid"): "confines each share to a factor e of the others",
    ("log_softmax", "tanh"): "confines each share to a factor e² of the others",
}
REDUNDANT = frozenset({"relu", "relu6", "leaky_relu"})


@rule(code="GL904", name="double-activation", family="wiring", severity="warning", since="0.1.0")
def double_activation(graph: Graph) -> Iterator[Draft]:
    """An activation that reads nothing but another activation."""
    for op in graph.ops:
        inner = passage.producer(graph, op) if op.kind in ("activation", "softmax") else None
        if inner is None or not graph.values[op.outputs[0]].requires_grad:
            continue
        effect, severity = _effect(graph, op, inner)
        if effect:
            yield Draft(
                message=f"{op.function} of {inner.function} {effect}",
                op=op.index,
                ops=(inner.index, op.index),
                severity=severity,
            )


def _effect(graph: Graph, op: Op, inner: Op) -> tuple[str, Severity | None]:
    """What the pair does and how much it matters; "" for a pair that is left alone."""
    if op.function == inner.function and op.function in REDUNDANT:
        return "does nothing that one of them does not", "info"
    effect = RANGES.get((op.function, inner.function), "")
    return ("", None) if effect and passage.is_gate(graph, op) else (effect, None)
