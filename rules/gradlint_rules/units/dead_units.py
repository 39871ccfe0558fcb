"""GL601: units of a rectifier that are off for every sample."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.probe.route import widest
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage


@rule(
    code="GL601",
    name="dead-units",
    family="units",
    severity="warning",
    since="0.1.0",
    options={"share": 0.9},
)
def dead_units(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Rectifiers on the widest way from input to output of which too many units are off for every sample."""
    route = widest(graph, lambda path: 0.0)
    on_route = set(route.ops) if route else set()
    dead = [
        graph.ops[index]
        for index, units in probe.units.items()
        if index in on_route and passage.is_rectifier(graph.ops[index]) and units.dead >= options["share"]
    ]
    if not dead:
        return
    worst = max(dead, key=lambda op: probe.units[op.index].dead)
    units = probe.units[worst.index]
    off = f"{round(units.dead * units.count)} of {units.count} units are off for every sample"
    yield Draft(
        message=off + _by_bias(graph, worst),
        op=worst.index,
        ops=_with_layers(graph, dead),
        related=diagnosis.related(graph, dead, f"{len(dead)} layers like it") if len(dead) > 1 else (),
        measured={"dead-share": units.dead},
        severity="error" if units.dead == 1.0 else None,
    )


def _by_bias(graph: Graph, op: Op) -> str:
    """The bias that switches the units off: one far below what weights that keep the signal's size add, ±1."""
    layer = passage.layer(graph, op)
    bias = None if layer is None else graph.param(layer, "bias")
    if bias is None or bias.mean is None or bias.mean > -1.0:
        return ""
    return f": {bias.path} is {bias.mean:.3g} on average"


def _with_layers(graph: Graph, dead: list[Op]) -> tuple[int, ...]:
    """The rectifiers and the layers that feed them."""
    layers = [passage.producer(graph, op) for op in dead]
    return tuple(sorted({op.index for op in (*dead, *layers) if op is not None}))
