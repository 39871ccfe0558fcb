"""GL501: a deep stretch without a skip connection that loses or amplifies the gradient."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.probe.health import ASPECT, plainness
from gradlint.probe.route import chain
from gradlint.profile import Signal
from gradlint.rule import rule
from gradlint_rules import diagnosis

LAYERS = 12  # below a dozen, norm and init suffice


@rule(code="GL501", name="missing-skip", family="architecture", severity="warning", since="0.1.0")
def missing_skip(graph: Graph, signal: Signal) -> Iterator[Draft]:
    """A stretch of weights that no path goes around, when the gradient over it makes training suffer."""
    found = diagnosis.diagnose(graph, signal, "vanishing", "exploding", "blow-up")
    if found is None:
        yield from _too_deep(graph)
        return
    if found.kind == "blow-up" or len(found.weighted) < LAYERS or any(_merges(graph, op) for op in found.ops):
        return
    verb = "loses" if found.decades < 0 else "gains"
    yield Draft(
        message=f"{len(found.weighted)} layers in a row without a skip connection: the gradient {verb} "
        f"{abs(found.decades):.1f} decades",
        op=found.weighted[0].index,
        module=found.module,
        ops=found.indices,
        claim=found.claim(),
        numbers=found.numbers(),
        severity=found.severity,
        factors=found.factors,
    )


def _too_deep(graph: Graph) -> Iterator[Draft]:
    """A chain in which signal and gradient keep their size, but that is too long for the width of its layers."""
    ratio = plainness(graph)
    if ratio is None or ratio <= ASPECT[0]:
        return
    layers = [graph.ops[index] for index in chain(graph)]
    yield Draft(
        message=f"{len(layers)} layers in a row without a skip connection, {ratio:.2f} times as many as the units of "
        "one: the gradient arrives, but plain nets this deep for their width train badly",
        op=layers[0].index,
        module=diagnosis.common(layers) or None,
        ops=tuple(op.index for op in layers),
        related=diagnosis.related(graph, layers, f"the last of {len(layers)}"),
        predicted={"depth-over-width": ratio},
    )


def _merges(graph: Graph, op: Op) -> bool:
    """Whether two paths meet at the op."""
    return op.kind in ("add", "concat") and len(set(graph.data_inputs(op))) > 1
