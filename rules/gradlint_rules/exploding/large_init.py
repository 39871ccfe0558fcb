"""GL204: weights too large for the activations between them."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op, Param
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

SHARE = 0.5  # of the decades gained on the stretch that the weights' surplus gain must explain
SURPLUS = 0.3  # mean log10 surplus from which it is the weights that drive bounded activations to their bounds
GAIN = 2.5  # of one layer in front of a bounded activation; the default is 0.58, LeCun 1, Xavier for tanh 1.7
DRIVEN = 3.0  # RMS before a bounded activation: beyond it σ′ < 0.05 for most entries


@rule(code="GL204", name="large-init", family="exploding", severity="warning", since="0.1.0")
def large_init(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """Layers whose init amplifies the signal where it explodes or blows up, or drives activations to their bounds."""
    found = diagnosis.diagnose(graph, signal, "vanishing", "exploding", "blow-up")
    large = [] if found is None else [layer for layer in found.layers if layer.excess > 0]
    if found is not None and large and _explains(found, sum(layer.excess for layer in large)):
        yield _amplifying(graph, found, large)
    else:
        yield from _saturating(graph, signal)


def _amplifying(graph: Graph, found: diagnosis.Diagnosis, large: list[diagnosis.Layer]) -> Draft:
    surplus = sum(layer.excess for layer in large)
    gain = 10 ** (surplus / len(large))
    ops = [layer.op for layer in large]
    return Draft(
        message=f"the init of {len(large)} layer{'s' * (len(large) > 1)} is too large: {gain:.2g} times the gain that "
        f"the activations need, {surplus:.1f} decades in all",
        op=ops[0].index,
        module=diagnosis.common(ops) or None,
        ops=found.indices,
        related=diagnosis.related(graph, ops, f"gain {large[-1].gain:.2g}"),
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
    )


def _explains(found: diagnosis.Diagnosis, surplus: float) -> bool:
    if found.kind == "vanishing":
        return bool(found.saturating) and surplus > SURPLUS * len(found.layers)
    return surplus >= SHARE * abs(found.decades)


def _saturating(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """One finding for all layers that drive the bounded activation after them far into its bounds."""
    driven = [pair for op in graph.ops if (pair := _driven(graph, signal, op)) is not None]
    if not driven:
        return
    layer, param, size = max(driven, key=lambda pair: pair[2])
    value = layer.outputs[0]
    yield Draft(
        message=f"the init drives the bounded activation after {layer.module_path or 'the layer'} to its bounds: gain "
        f"{_gain(param):.2g}, pre-activation RMS {10**size:.2g}",
        op=layer.index,
        ops=tuple(found.index for found, _, _ in driven),
        claim=Claim("activation-size", (value,), math.log10(DRIVEN), "above"),
        predicted={"gain": _gain(param)},
    )


def _driven(graph: Graph, signal: Signal, op: Op) -> tuple[Op, Param, float] | None:
    """The layer in front of a bounded activation, its weight and its predicted log10 RMS, when both are too large."""
    if op.kind != "activation" or op.function not in diagnosis.SATURATING:
        return None
    layer = passage.layer(graph, op)
    param = None if layer is None else passage.weight(graph, layer)
    if layer is None or param is None or _gain(param) < GAIN:
        return None
    size = signal.profile.activation.get(layer.outputs[0])
    return (layer, param, size) if size is not None and size > math.log10(DRIVEN) else None


def _gain(param: Param) -> float:
    return (param.rms or 0.0) * math.sqrt(max(1, param.fan_in))
