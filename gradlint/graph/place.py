"""Where in the user's file an op is to be found."""

from __future__ import annotations

from gradlint.graph.ir import Graph, Op, Span


def place(graph: Graph, op: Op) -> Span | None:
    """The line to point at: where one of torch's own modules was constructed, else where the call was made.

    A call inside `nn.Sigmoid` was made by torch, so the line that put the module there says more; a call in the forward
    of the user's own module is its own line.
    """
    builtin = any(module.path == op.module_path and module.builtin for module in graph.modules)
    return (op.constructed or op.span) if builtin else (op.span or op.constructed)
