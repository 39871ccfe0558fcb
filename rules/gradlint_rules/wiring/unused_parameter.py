"""GL908: trainable parameters that the run never reads."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph
from gradlint.rule import rule


@rule(code="GL908", name="unused-parameter", family="wiring", severity="info", since="0.1.0")
def unused_parameter(graph: Graph) -> Iterator[Draft]:
    """Trainable parameters that no recorded operation takes."""
    read = {path for op in graph.ops for path in op.params} | {graph.values[value].name for value in graph.reads}
    read |= {other for path in read if path in graph.params for other in graph.params[path].shared_by}
    unused = [path for path, param in graph.params.items() if param.requires_grad and path not in read]
    if not unused:
        return
    owners = sorted({path.rpartition(".")[0] for path in unused})
    yield Draft(
        message=f"{len(unused)} trainable parameters of {len(owners)} modules are never read, {unused[0]} first",
        module=owners[0],
        predicted={"parameters": len(unused)},
    )
