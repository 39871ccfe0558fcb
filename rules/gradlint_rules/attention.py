"""Where a model attends, and how large the logits are that its softmax reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gradlint.graph.ir import Graph, Op
from gradlint.graph.memo import remembered
from gradlint.quantity import QUANTITIES, Facts
from gradlint_rules import passage

FEW = 8  # keys from which freezing on one of them is a loss of choice
HOPS = 10  # ops between queries or keys and their norm
MASKING = frozenset({"masked_fill", "where"})


@dataclass(frozen=True)
class Attention:
    """An attention: its op, the quantity and subject that its logits are, how many keys a query has, and its scale.

    `scale` is the number that the products of queries and keys are multiplied with, and `width` how many entries a
    query has; None where the logits are no plain product.
    """

    op: Op
    quantity: str
    subject: tuple[int, ...]
    keys: int
    scale: float | None
    width: int | None
    normed: bool = False  # queries and keys pass a norm of their own, whose gains set the size of the logits

    def size(self, graph: Graph, facts: Facts) -> float | None:
        """log10 RMS of the logits."""
        return QUANTITIES[self.quantity].function(graph, facts, self.subject)

    @property
    def weights(self) -> tuple[int, ...]:
        """The subject of "attention-focus": the weights and how many keys they are for; empty for a fused attention."""
        return () if self.op.kind == "attention" else (self.op.outputs[0], self.keys)

    @property
    def limit(self) -> float:
        """log10 of the RMS √(2 ln n) of the logits at which a softmax over n keys freezes on one of them.

        Independent normal logits are a random energy model (Derrida 1981), whose entropy per key vanishes there.
        """
        return 0.5 * math.log10(2 * math.log(self.keys))


@remembered
def attentions(graph: Graph) -> tuple[Attention, ...]:
    """The fused attentions and the softmaxes that weigh values by products of queries and keys, of FEW keys or more."""
    return tuple(found for op in graph.ops if (found := _attention(graph, op)) is not None and found.keys >= FEW)


def _attention(graph: Graph, op: Op) -> Attention | None:
    if op.kind == "attention":
        key, scale = graph.operand(op, "key"), op.attrs.get("scale")
        if key is None or not isinstance(scale, int | float):
            return None
        normed = all(_is_normed(graph, v.id) for role in ("query", "key") if (v := graph.operand(op, role)) is not None)
        return Attention(op, "attention-logits", (op.index,), key.shape[-2], float(scale), key.shape[-1], normed)
    if (
        op.kind != "softmax"
        or op.function != "softmax"
        or not any(r.kind == "matmul" for r in passage.after(graph, op))
    ):
        return None
    return _written(graph, op)


def _written(graph: Graph, op: Op) -> Attention | None:
    """An attention that is written out: the product behind the softmax, seen through masks, scales and shapes."""
    scale, value, logits = 1.0, op.inputs[0], op.inputs[0]
    for seen in _behind(graph, op):
        if seen.kind == "matmul":
            data = [graph.values[v] for v in graph.data_inputs(seen)]
            if len(data) < 2 or not all(v.requires_grad for v in data):
                return None
            keys = graph.values[op.outputs[0]].shape
            dim = op.attrs.get("dim")
            count = keys[dim] if isinstance(dim, int) else keys[-1]
            normed = all(_is_normed(graph, v.id) for v in data)
            width = data[0].shape[-1]
            return Attention(op, "activation-size", (logits,), count, scale * _early(graph, seen), width, normed)
        scalar = seen.attrs.get("scalar")
        if seen.kind == "mul" and isinstance(scalar, int | float) and scalar:
            scale *= abs(scalar) if seen.function == "mul" else 1 / abs(scalar)
        elif seen.kind == "mul":
            scale = math.nan  # by a parameter or another tensor: what the scale is cannot be said
        value = seen.inputs[0]
        if seen.function in MASKING or seen.kind == "add":
            logits = value  # without what a mask or a bias adds
    return None


def _behind(graph: Graph, op: Op) -> Iterator[Op]:
    """The ops from the softmax back to the product, the product included."""
    value = op.inputs[0]
    for _ in range(12):
        seen = graph.op_of(value)
        if seen is None:
            return
        masking = seen.function in MASKING or seen.kind in ("add", "mul")
        if seen.kind != "matmul" and not masking and seen.kind not in passage.SHAPING:
            return
        yield seen
        following = [v for v in graph.data_inputs(seen) if graph.values[v].requires_grad]
        if seen.kind == "matmul" or not following:
            return
        value = following[0]


def _is_normed(graph: Graph, value: int) -> bool:
    """Whether a norm made the queries or keys, up to a rotation of positions (RoPE) and shapes."""
    for _ in range(HOPS):
        op = graph.op_of(value)
        if op is None or op.kind not in passage.SHAPING | {"norm", "add", "mul", "concat"}:
            return False
        if op.kind == "norm":
            return True
        value = op.inputs[0]
    return False


def _early(graph: Graph, product: Op) -> float:
    """What the queries and keys were multiplied with before their product."""
    scale = 1.0
    for value in graph.data_inputs(product)[:2]:
        for _ in range(4):
            op = graph.op_of(value)
            if op is None or (op.kind != "mul" and op.kind not in passage.SHAPING):
                break
            scalar = op.attrs.get("scalar")
            if op.kind == "mul" and isinstance(scalar, int | float) and scalar:
                scale *= abs(scalar) if op.function == "mul" else 1 / abs(scalar)
            elif op.kind == "mul":
                return math.nan
            value = op.inputs[0]
    return scale
