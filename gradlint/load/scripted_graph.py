"""TorchScript's graphs as plain data: what torch's C++ holds of a method, read once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

_PYTHON = re.compile(r'File "([^"]+)", line (\d+)|^(/[^\n]*?\.py)\((\d+)\): ', re.MULTILINE)
_TRACER = re.compile(r"/torch/jit/_trace\.py$")
_UNKNOWN = re.compile(r"Unknown reference to ScriptClass ([\w.]+?)\. ")
_MANGLED = re.compile(r"___torch_mangle_\d+\.")


@dataclass(frozen=True)
class Step:
    """One node: `kind` as in "aten::add", the names of its values, and what is known of it without running it.

    `overload` is the operator's; `given` is a constant's value, or the attribute, method or function that is named.
    """

    kind: str
    overload: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    given: Any
    blocks: tuple[Block, ...]
    trace: tuple[tuple[str, int], ...]  # lines of Python that it came from, innermost first
    tensors: frozenset[int] = frozenset()  # positions whose declared type is Tensor
    keywords: tuple[tuple[int, str], ...] = ()  # positions of arguments that are passed by name


@dataclass(frozen=True)
class Block:
    """A graph, or a branch or loop body in one."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]


def block(graph: Any) -> Block:
    """The graph or block with all that it holds."""
    return Block(
        tuple(value.debugName() for value in graph.inputs()),
        tuple(value.debugName() for value in graph.outputs()),
        tuple(_step(node) for node in graph.nodes()),
    )


def read(value: Callable[[], Any]) -> Any:
    """A value of C++'s in Python; a member of an enumeration, whose class is not at hand, as its name."""
    known = torch.jit._state._name_to_pyclass
    added: list[str] = []
    try:
        while True:
            try:
                return value()
            except RuntimeError as error:
                found = _UNKNOWN.search(str(error))
                if found is None or found[1] in added:
                    raise
                added.append(found[1])
                known[found[1]] = _Enumeration(found[1])  # type: ignore[assignment]
    finally:
        for name in added:
            known.pop(name)


class _Enumeration:
    """Stands for a class of which only the members' names matter."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, member: str) -> str:
        return f"{self._name}.{member}"


def type_name(qualified: str) -> str:
    """The class that a module was made of: "Linear" of "__torch__.torch.nn.modules.linear.___torch_mangle_3.Linear"."""
    return _MANGLED.sub("", qualified).rpartition(".")[2]


def _step(node: Any) -> Step:
    kind: str = node.kind()
    schema = node.schema() if kind.startswith(("aten::", "prim::")) else ""
    head = schema.partition("(")[0]
    return Step(
        kind,
        head.partition(".")[2],
        tuple(value.debugName() for value in node.inputs()),
        tuple(value.debugName() for value in node.outputs()),
        _given(node, kind),
        tuple(block(inner) for inner in node.blocks()),
        _trace(node.sourceRange()),
        *_declared(schema),
    )


def _declared(schema: str) -> tuple[frozenset[int], tuple[tuple[int, str], ...]]:
    """The positions of tensors, and of arguments that are passed by name."""
    if not schema or schema.startswith("(no schema)"):
        return frozenset(), ()
    arguments = torch._C.parse_schema(schema).arguments
    tensors = frozenset(i for i, a in enumerate(arguments) if str(a.type) in ("Tensor", "Optional[Tensor]"))
    return tensors, tuple((i, a.name) for i, a in enumerate(arguments) if a.kwarg_only)


def _given(node: Any, kind: str) -> Any:
    if kind == "prim::Constant":
        made = node.output().type()
        return made.annotation_str if made.kind() == "FunctionType" else read(node.output().toIValue)
    if kind in ("prim::GetAttr", "prim::SetAttr", "prim::CallMethod"):
        return node.s("name")
    if kind == "prim::isinstance":
        return tuple(str(kept) for kept in node.tys("types"))
    return None


def _trace(text: str) -> tuple[tuple[str, int], ...]:
    """The lines of Python in what a node says of its origin; a trace's own machinery is left out."""
    places: list[tuple[str, int]] = []
    traced = False
    for scripted, line, path, number in _PYTHON.findall(text.partition("Serialized ")[0]):
        if _TRACER.search(path):
            break
        traced = traced or bool(path)
        places.append((scripted or path, int(line or number)))
    return tuple(places if traced else places[::-1])


def flat(graph: Block) -> Iterator[Step]:
    """Every step, those in blocks too."""
    for step in graph.steps:
        yield step
        for inner in step.blocks:
            yield from flat(inner)
