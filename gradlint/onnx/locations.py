"""Where a node comes from: module scope and source line that an exporter wrote beside it, else the node's own name."""

from __future__ import annotations

import ast
import re
import sysconfig
from typing import Any

from gradlint.graph.ir import Span
from gradlint.onnx.program import Place

SCOPES, CLASSES, TRACE = (f"pkg.torch.onnx.{name}" for name in ("name_scopes", "class_hierarchy", "stack_trace"))
_LINE = re.compile(r'File "([^"\n]+)", line (\d+)')
_LIBRARY = ("/site-packages/", "/dist-packages/", f"{sysconfig.get_path('stdlib')}/")


def place(node: Any) -> Place:
    """The place of a node of the file."""
    told = {entry.key: entry.value for entry in node.metadata_props}
    name = node.name or next(iter(node.output), node.op_type)
    if SCOPES in told:
        scopes, classes = _names(told[SCOPES]), _names(told.get(CLASSES, "[]"))
        depth = max(len(scopes) - 1, 0)
        path = scopes[depth - 1] if depth else ""
        kind = classes[depth - 1].rpartition(".")[2] if depth and len(classes) >= depth else ""
        return Place(path, kind, span(told.get(TRACE, "")), name)
    return Place(_scope(name), "", span(told.get(TRACE, "")), name)


def types(node: Any) -> dict[str, str]:
    """The qualified class name of every module that the node stands in, by path."""
    told = {entry.key: entry.value for entry in node.metadata_props}
    scopes, classes = _names(told.get(SCOPES, "[]")), _names(told.get(CLASSES, "[]"))
    return dict(zip(scopes[:-1], classes[:-1], strict=False))


def span(trace: str) -> Span | None:
    """The innermost line of a stack trace that is the user's, else the innermost of a library but torch."""
    lines = [(path.replace("\\", "/"), int(line)) for path, line in reversed(_LINE.findall(trace))]
    own = (line for line in lines if not any(part in line[0] for part in _LIBRARY) and not line[0].startswith("<"))
    others = (line for line in lines if "/torch/" not in line[0] and not line[0].startswith((_LIBRARY[2], "<")))
    found = next(own, None) or next((line for line in others if "-packages/" in line[0]), None)
    return None if found is None else Span(*found)


def _names(text: str) -> list[str]:
    """A printed list of strings."""
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    return [str(item) for item in found] if isinstance(found, (list, tuple)) else []


def _scope(name: str) -> str:
    """The module path in a node's name: "/layer1/layer1.0/conv1/Conv" is layer1.0.conv1.

    torch's older exporter repeats the names of containers in those of their children.
    """
    path = ""
    for part in (part for part in name.split("/")[:-1] if part):
        before, _, last = path.rpartition(".")
        if last and part.startswith(f"{last}."):
            path = before
        path = f"{path}.{part}" if path else part
    return path
