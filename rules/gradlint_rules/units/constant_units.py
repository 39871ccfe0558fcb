"""GL605: activations that give the same output for every sample."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Claim, Draft
from gradlint.graph.ir import Graph, Op
from gradlint.graph.traversal import series_ops
from gradlint.profile import Measurement
from gradlint.rule import rule
from gradlint_rules import diagnosis, passage


@rule(
    code="GL605",
    name="constant-units",
    family="units",
    severity="warning",
    since="0.1.0",
    options={"share": 0.9},
)
def constant_units(graph: Graph, probe: Measurement, options: dict[str, float]) -> Iterator[Draft]:
    """Activations that every path crosses of which `share` of the units or more do not depend on the sample."""
    crossed = set(series_ops(graph))
    found = [
        graph.ops[index]
        for index, units in probe.units.items()
        if index in crossed and units.constant >= options["share"] and not _is_explained(graph, probe, graph.ops[index])
    ]
    if not found:
        return
    worst = max(found, key=lambda op: probe.units[op.index].constant)
    units = probe.units[worst.index]
    yield Draft(
        message=f"{round(units.constant * units.count)} of {units.count} units are the same for every sample",
        op=worst.index,
        ops=tuple(op.index for op in found),
        related=diagnosis.related(graph, found, f"{len(found)} layers like it") if len(found) > 1 else (),
        claim=Claim("constant-share", (worst.index,), options["share"], "above"),
    )


def _is_explained(graph: Graph, probe: Measurement, op: Op) -> bool:
    """Whether the units are dead, which has a rule of its own, or read a weight that is 0 and about to move."""
    layer = passage.layer(graph, op)
    weight = None if layer is None else passage.weight(graph, layer)
    started_at_zero = weight is not None and weight.abs_max == 0.0
    return started_at_zero or probe.units[op.index].dead >= probe.units[op.index].constant > 0
