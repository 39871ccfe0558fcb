"""GL602: bounded activations that sit at their bounds because what goes in is too large."""

from __future__ import annotations

import math
from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage

# Width of the part of each function that has a slope: σ′ and tanh′ are below 2 % of their maximum beyond it.
SLOPE = {"sigmoid": 6.0, "tanh": 3.0, "hardsigmoid": 3.0, "hardtanh": 1.0, "softsign": 10.0}


@rule(
    code="GL602",
    name="saturated-units",
    family="units",
    severity="warning",
    since="0.1.0",
    options={"widths": 1.5},
)
def saturated_units(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Bounded activations after a layer whose output varies between samples by more than their sloping part."""
    sizes = {op.index: size for op in graph.ops if (size := _spread(graph, probe, op)) is not None}
    found = [
        graph.ops[index] for index, size in sizes.items() if size > options["widths"] * SLOPE[graph.ops[index].function]
    ]
    if not found:
        return
    worst = max(found, key=lambda op: sizes[op.index] / SLOPE[op.function])
    layers = [layer for op in found if (layer := passage.layer(graph, op)) is not None]
    yield Draft(
        message=f"what goes into this {worst.function} varies by ±{sizes[worst.index]:.3g}, and beyond "
        f"±{SLOPE[worst.function]:g} it has no slope",
        op=worst.index,
        ops=tuple(sorted({op.index for op in (*found, *layers)})),
        related=diagnosis.related(graph, found, f"{len(found)} activations like it") if len(found) > 1 else (),
        measured={"pre_activation_spread": sizes[worst.index]},
    )


def _spread(graph: Graph, probe: Measurement, op: Op) -> float | None:
    """The standard deviation between samples of what a layer feeds into a bounded activation."""
    layer, value = (passage.layer(graph, op), passage.source(graph, op)) if op.function in SLOPE else (None, None)
    if layer is None or value is None or passage.weight(graph, layer) is None:
        return None
    size, same = probe.profile.activation.get(value), probe.profile.correlation.get(value)
    if size is None or not math.isfinite(size) or size > 30:
        return None
    return 10**size * math.sqrt(max(0.0, 1.0 - (same if same is not None and math.isfinite(same) else 0.0)))
