"""GL304: consecutive layers whose weights are nearly all of one sign, so that their units nearly say the same."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op, Param
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage
from gradlint_rules.init.constant_init import ONE_WAY

LAYERS = 2
SIDED = 1.0  # |mean| ÷ std from which on over 84 % of normal weights have one sign; U(0, 1) has 1.7
CHANCE = 4.0  # standard errors of the mean: a matrix of a few entries can be one-sided by chance


@rule(code="GL304", name="one-sided-init", family="init", severity="warning", since="0.1.0")
def one_sided_init(graph: Graph) -> Iterator[Draft]:
    """Layers in series whose weights have a mean larger than their standard deviation."""
    pairs = [(op, reader) for op in graph.ops if _sided(graph, op) for reader in passage.after(graph, op, ONE_WAY)]
    ops = [graph.ops[i] for i in sorted({op.index for a, b in pairs if _sided(graph, b) for op in (a, b)})]
    if len(ops) < LAYERS:
        return
    first = passage.weight(graph, ops[0])
    mean, std = (0.0, 0.0) if first is None else (first.mean or 0.0, first.std or 0.0)
    yield Draft(
        message=f"the weights of {len(ops)} layers in a row are nearly all of one sign (mean {mean:.2g}, "
        f"std {std:.2g}): their units nearly say the same",
        op=ops[0].index,
        module=diagnosis.common(ops) or None,
        ops=tuple(op.index for op in ops),
        related=diagnosis.related(graph, ops, f"the last of {len(ops)}"),
        predicted={"mean_over_std": abs(mean) / std if std else float("inf")},
    )


def _sided(graph: Graph, op: Op) -> bool:
    """Whether the op is a layer of several units with varied but one-sided trainable weights, read as they are.

    The signs of what a weight is computed from (the logarithm of its scale) say nothing of its own.
    """
    param = passage.weight(graph, op)
    if param is None or not param.requires_grad or param.path not in op.params:
        return False
    return (passage.features(graph, op) or 0) > 1 and _one_sided(param)


def _one_sided(param: Param) -> bool:
    if param.mean is None or param.std is None or param.abs_max is None:
        return False
    chance = CHANCE / math.sqrt(max(1, math.prod(param.shape)))
    return param.std > 1e-6 * param.abs_max and abs(param.mean) > max(SIDED, chance) * param.std
