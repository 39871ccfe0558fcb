"""GL703: a rectifier on the last layer, which leaves half of the targets out of reach and can die for good."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage

FEATURES = 64  # units from which a layer as wide as the one before it is taken for a hidden one
AROUND = frozenset({"softmax", "activation"})  # a softmax or sigmoid on top of the rectifier is still the output


@rule(code="GL703", name="rectified-output", family="output", severity="warning", since="0.1.0")
def rectified_output(graph: Graph) -> Iterator[Draft]:
    """A rectifier between the last weight and the model's output."""
    value = passage.output(graph)
    op = None if value is None else passage.before(graph, value.id, scaled=True)
    if op is not None and op.kind in AROUND and not passage.is_rectifier(op):
        op = passage.producer(graph, op)
    layer = None if op is None or not passage.is_rectifier(op) else _layer(graph, op)
    if op is None or layer is None:
        return
    yield Draft(
        message=f"{op.function} on the output units: one that is off for every sample never gets a gradient again",
        op=op.index,
        ops=(op.index,),
        numbers={"dead-share": (op.index,)},
        severity="info" if _hidden(graph, layer) else None,
    )


def _hidden(graph: Graph, layer: Op) -> bool:
    """Whether the layer looks like one from the middle of a net: as many units as it reads, and many of them.

    Nets cut off there give features to other models (VGG's, for a perceptual loss), not predictions.
    """
    param, units = passage.weight(graph, layer), passage.features(graph, layer) or 0
    return param is not None and units >= FEATURES and len(param.shape) > 1 and param.shape[0] == param.shape[1]


def _layer(graph: Graph, op: Op) -> Op | None:
    """The weighted layer that the rectifier reads: a norm or a sum of two branches in between keeps units from dying.

    A bias added by hand and a product with something fixed (a graph's adjacency) mix samples, not units.
    """
    layer = passage.producer(graph, op)
    while layer is not None and (source := _mixed(graph, layer)) is not None:
        layer = passage.before(graph, source)
    weighted = layer is not None and layer.kind in ("linear", "conv") and passage.weight(graph, layer) is not None
    return layer if weighted else None


def _mixed(graph: Graph, op: Op) -> int | None:
    """The one operand that a gradient flows back to, of a product with fixed numbers or a sum with a bias."""
    learned = [v for v in graph.data_inputs(op) if graph.values[v].requires_grad]
    fixed = op.kind == "matmul" or (op.kind == "add" and len(graph.data_inputs(op)) == 1)
    return learned[0] if fixed and len(learned) == 1 else None
