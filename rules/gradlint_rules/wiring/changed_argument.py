"""GL912: a module that changes its argument in place while the caller goes on reading it."""

from __future__ import annotations

from collections.abc import Iterator

from gradlint.finding import Draft
from gradlint.graph.ir import Graph, Op
from gradlint.rule import rule
from gradlint_rules import passage

BOUNDED = frozenset({"activation", "dropout"})  # in place, they take something away for good


@rule(code="GL912", name="changed-argument", family="wiring", severity="info", since="0.1.0")
def changed_argument(graph: Graph) -> Iterator[Draft]:
    """In-place activations at the head of a module whose argument is read outside that module afterwards."""
    for op in graph.ops:
        if not op.inplace or op.kind not in BOUNDED or not graph.values[op.outputs[0]].requires_grad:
            continue
        home = _home(graph, op)
        readers = [reader for reader in passage.consumers(graph, op) if home and not _within(reader.module_path, home)]
        inside = [reader for reader in passage.consumers(graph, op) if home and _within(reader.module_path, home)]
        if inside and readers:
            other = readers[0].module_path or "its caller"
            yield Draft(
                message=f"{home} starts with a {op.function or op.kind} in place, so what {other} reads of the same "
                "tensor afterwards is changed too",
                op=op.index,
                ops=(op.index, readers[0].index),
                numbers={"activation-change": (op.inputs[0], op.outputs[0])},
            )


def _home(graph: Graph, op: Op) -> str:
    """The outermost module that holds the op but not what made its argument; "" when that is the activation itself."""
    made = graph.op_of(op.inputs[0])
    outside = "" if made is None else made.module_path
    parts, own = op.module_path.split("."), op.module_path
    for end in range(1, len(parts)):  # the whole path is the activation's own module
        home = ".".join(parts[:end])
        if not _within(outside, home):
            return home
    return "" if _is_activation(graph, own) or _within(outside, own) else own


def _is_activation(graph: Graph, path: str) -> bool:
    return any(module.path == path and module.builtin for module in graph.modules)


def _within(path: str, home: str) -> bool:
    return path == home or path.startswith(f"{home}.")
