"""GL302: an init scaled by the fan of the wrong side."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis

GAINS = (2.0, 1.0, 1 / 3)  # variance × fan of He, LeCun or Xavier, and torch's default
CLOSE = 0.03  # decades within which a standard deviation counts as one of these
APART = 0.2  # decades of standard deviation that the two fans make a difference of, at least
LAYERS = 2
SHARE = 0.5  # of the decades lost or gained that the wrong fan must explain


@rule(code="GL302", name="wrong-fan", family="init", severity="warning", since="0.1.0")
def wrong_fan(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Layers of an ailing stretch whose init is that of a published scheme with the number of outputs as its fan."""
    found = diagnosis.diagnose(graph, signal, "vanishing", "exploding", "blow-up")
    if found is None:
        return
    wrong = [layer for layer in found.layers if _swapped(layer)]
    lost = sum(0.5 * math.log10(layer.param.fan_in / _given(layer)) for layer in wrong)
    if len(wrong) < LAYERS or abs(lost) < SHARE * abs(found.decades):
        return
    ops = [layer.op for layer in wrong]
    yield Draft(
        message=f"the init of {len(wrong)} layers counts their outputs ({_given(wrong[0])}) in place of their inputs "
        f"({wrong[0].param.fan_in}): {abs(lost):.1f} decades in all",
        op=ops[0].index,
        module=diagnosis.common(ops) or None,
        ops=found.indices,
        related=diagnosis.related(graph, ops, "the last of them"),
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
        cause="large-init" if found.decades > 0 else "vanishing-init",
    )


def _swapped(layer: diagnosis.Layer) -> bool:
    """Whether the weight's spread fits the fan of the wrong side and not that of the right one."""
    std, right, wrong = layer.param.std, layer.param.fan_in, _given(layer)
    if not std or abs(0.5 * math.log10(right / wrong)) < APART:
        return False
    return _fits(std, wrong) and not _fits(std, right)


def _given(layer: diagnosis.Layer) -> int:
    """The fan that torch's `fan_out` mode counts: all outputs, whatever the groups."""
    shape = layer.param.shape
    field = math.prod(shape[2:])
    sides = (shape[0] * field, shape[1] * field)
    return max(1, next((side for side in sides if side != layer.param.fan_in), layer.param.fan_in))


def _fits(std: float, fan: int) -> bool:
    return any(abs(math.log10(std * math.sqrt(fan / gain))) < CLOSE for gain in GAINS)
