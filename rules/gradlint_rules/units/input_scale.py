"""GL606: inputs so large that they drive the first layer's activation to its bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Param
from gradlint.profile import Measurement
from gradlint.quantity import QUANTITIES
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

LARGE = 10.0  # RMS of an input that nobody normalised: UMLAUT and torch-audit draw the line from 1 to 50
GAIN = 2.5  # of the first layer: beyond it the init is to blame as well (`large-init`)
DRIVEN = 3.0  # RMS before a bounded activation: beyond it σ′ < 0.05 for most entries


@rule(code="GL606", name="input-scale", family="units", severity="warning", since="0.1.0")
def input_scale(graph: Graph, probe: Measurement) -> Iterator[Draft]:
    """Bounded activations right after the first layer that the input itself, not the weight, drives to their bounds."""
    yield from _recurrent(graph, probe)
    for op in graph.ops:
        if op.kind != "activation" or op.function not in diagnosis.SATURATING:
            continue
        layer, value = passage.layer(graph, op), passage.source(graph, op)
        given = None if layer is None else passage.model_input(graph, layer)
        param = None if layer is None else passage.weight(graph, layer)
        if value is None or layer is None or given is None or param is None or _gain(param) > GAIN:
            continue
        fed, size = (QUANTITIES["activation-size"].function(graph, probe, (v,)) for v in (given, value))
        if fed is None or size is None or fed < math.log10(LARGE) or size < math.log10(DRIVEN):
            continue
        yield Draft(
            message=f"inputs of RMS {10**fed:.3g} drive the first {op.function} to its bounds: what goes into it has "
            f"RMS {10**size:.3g}",
            op=layer.index,
            ops=(layer.index, op.index),
            claim=Claim("activation-size", (value,), math.log10(DRIVEN), "above"),
            measured={"input_rms": round(10**fed, 3)},
        )
        return


def _recurrent(graph: Graph, probe: Measurement) -> Iterator[Draft]:
    """Recurrent layers whose gates the model's own input drives to their bounds: RMS of the input × gain."""
    for op in graph.ops:
        given = passage.model_input(graph, op) if op.kind == "recurrent" else None
        fed = None if given is None else QUANTITIES["activation-size"].function(graph, probe, (given,))
        width = None if given is None else graph.values[given].shape[-1]
        param = next((p for path in op.params if (p := graph.params[path]).fan_in == width and len(p.shape) > 1), None)
        if given is None or fed is None or param is None or not 0 < _gain(param) <= GAIN:
            continue
        least = max(LARGE, DRIVEN / _gain(param))
        if fed >= math.log10(least):
            yield Draft(
                message=f"inputs of RMS {10**fed:.3g} drive the gates of the {op.function} to their bounds: what goes "
                f"into them has RMS {10**fed * _gain(param):.3g}",
                op=op.index,
                ops=(op.index,),
                claim=Claim("activation-size", (given,), math.log10(least), "above"),
                measured={"input_rms": round(10**fed, 3)},
            )


def _gain(param: Param) -> float:
    return (param.rms or 0.0) * math.sqrt(max(1, param.fan_in))
