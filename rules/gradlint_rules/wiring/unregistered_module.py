"""GL901: layers that are called but that the model does not know as its own."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Module
from gradlint.rule import rule


@rule(code="GL901", name="unregistered-module", family="wiring", severity="error", since="0.1.0")
def unregistered_module(graph: Graph) -> Iterator[Draft]:
    """Modules with parameters of their own that ran but are not in the model's module tree."""
    lost = [module for module in graph.modules if not module.registered and module.called and module.params]
    if not lost:
        return
    ops = [op for op in graph.ops if op.module_path in {module.path for module in lost}]
    yield Draft(
        message=f"{len(lost)} called module{'s' * (len(lost) > 1)} with parameters {_verb(lost)} not registered: "
        "no optimiser, device move or checkpoint will reach them",
        op=ops[0].index if ops else None,
        module=lost[0].path,
        ops=tuple(op.index for op in ops),
        predicted={"modules": len(lost)},
    )


def _verb(lost: list[Module]) -> str:
    return "is" if len(lost) == 1 else "are"
