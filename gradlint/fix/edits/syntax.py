"""The user's file as a concrete syntax tree with places, parents and qualified names: what edits are computed from."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeVar, cast

import libcst as cst
from libcst.metadata import (
    ByteSpanPositionProvider,
    MetadataWrapper,
    ParentNodeProvider,
    PositionProvider,
    QualifiedNameProvider,
)

from gradlint.fix.edits.text import Edit, NoEditError, SourceFile, line_end

Node = TypeVar("Node", bound=cst.CSTNode)


class Syntax:
    """A parsed file. Raises NoEditError when it cannot be parsed."""

    def __init__(self, source: SourceFile) -> None:
        try:
            wrapper = MetadataWrapper(cst.parse_module(source.text.decode()), unsafe_skip_copy=True)
        except cst.ParserSyntaxError as error:
            raise NoEditError("the file cannot be parsed") from error
        self.text = source.text
        self.module = wrapper.module
        self._places = wrapper.resolve(PositionProvider)
        self._spans = wrapper.resolve(ByteSpanPositionProvider)
        self._parents = wrapper.resolve(ParentNodeProvider)
        self._names = wrapper.resolve(QualifiedNameProvider)
        self._nodes = list(_walk(self.module))

    def all(self, kind: type[Node]) -> list[Node]:
        """Every node of a kind, in the order in which their evaluation ends."""
        return sorted((n for n in self._nodes if isinstance(n, kind)), key=lambda node: self.span(node)[1])

    def names(self, node: cst.CSTNode) -> set[str]:
        """The qualified names of an expression: "torch.nn.Sigmoid"."""
        found = self._names.get(node)
        return {name.name for name in (found() if callable(found) else found or ())}

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """First and last-plus-one byte."""
        found = self._spans[node]
        return found.start, found.start + found.length

    def lines(self, node: cst.CSTNode) -> range:
        """The 1-based lines that the node covers."""
        place = self._places[node]
        return range(place.start.line, place.end.line + 1)

    def source(self, node: cst.CSTNode) -> str:
        """The node as the user wrote it."""
        start, end = self.span(node)
        return self.text[start:end].decode()

    def replace(self, node: cst.CSTNode, text: str) -> Edit:
        """The edit that puts text in the node's place."""
        return Edit(*self.span(node), text)

    def parent(self, node: cst.CSTNode) -> cst.CSTNode | None:
        """The node around this one; None for the module."""
        return self._parents.get(node)

    def around(self, node: cst.CSTNode) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
        """The nodes around this one, innermost first, each with its child on the way."""
        child, parent = node, self.parent(node)
        while parent is not None:
            yield parent, child
            child, parent = parent, self.parent(parent)

    def alias(self, name: str) -> str | None:
        """How the file may write a module of torch's at its top level: "nn" for "torch.nn"; None when it cannot."""
        bound = dict(self._imports())
        parts = name.split(".")
        for cut in range(len(parts), 0, -1):
            if (head := ".".join(parts[:cut])) in bound:
                return ".".join([bound[head], *parts[cut:]])
        return None

    def owner(self, name: str) -> str:
        """How the file may write a module of torch's. Raises NoEditError when it imports none of it."""
        owner = self.alias(name)
        if owner is None:
            raise NoEditError(f"the file does not import {name}")
        return owner

    def fresh(self, name: str) -> str:
        """The name, or with a number behind it where the file has it already."""
        names = (f"{name}{number or ''}" for number in range(100))
        return next(each for each in names if not re.search(rf"\b{re.escape(each)}\b", self.text.decode()))

    @property
    def newline(self) -> str:
        """The file's line end."""
        return self.module.default_newline

    def statement(self, node: cst.CSTNode) -> cst.CSTNode:
        """The statement that the node belongs to."""
        kinds = (cst.SimpleStatementLine, cst.BaseCompoundStatement)
        return next((parent for parent, _ in self.around(node) if isinstance(parent, kinds)), node)

    def appending(self, statement: cst.CSTNode) -> cst.Call | None:
        """The call when the statement is `NAME.append(…)` and nothing else."""
        body = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
        call = body[0].value if len(body) == 1 and isinstance(body[0], cst.Expr) else None
        func = call.func if isinstance(call, cst.Call) else None
        appends = isinstance(func, cst.Attribute) and func.attr.value == "append"
        return (
            call if isinstance(call, cst.Call) and appends and len(call.args) == 1 and not call.args[0].star else None
        )

    def before(self, node: cst.CSTNode) -> int:
        """The start of the top-level statement around the node, decorators included."""
        top = next((child for parent, child in self.around(node) if parent is self.module), node)
        decorators = top.decorators if isinstance(top, (cst.ClassDef, cst.FunctionDef)) else ()
        return min(self.span(each)[0] for each in (top, *decorators))

    def imported(self, statement: str) -> Edit:
        """The edit that adds an import after the last one of torch."""
        lines = [line for line in self.module.body if self._is_torch_import(line)]
        if not lines:
            raise NoEditError("the file imports torch nowhere at its top level")
        end = line_end(self.text, self.span(lines[-1])[1])
        return Edit(end, end, f"{self.module.default_newline}{statement}")

    def indent(self, node: cst.CSTNode) -> str:
        """The white space before the line that the node starts on."""
        start = self.span(node)[0]
        line = max(self.text.rfind(b"\n", 0, start), self.text.rfind(b"\r", 0, start)) + 1
        blank = self.text[line:start]
        return blank[: len(blank) - len(blank.lstrip())].decode()

    def end(self, node: cst.CSTNode) -> int:
        """The end of the last line of a node's last statement, comment included."""
        inside = (n for n in _walk(node) if isinstance(n, (cst.SimpleStatementLine, cst.SimpleStatementSuite)))
        return line_end(self.text, max(self.span(n)[1] for n in inside))

    def _is_torch_import(self, line: cst.CSTNode) -> bool:
        found = isinstance(line, cst.SimpleStatementLine) and isinstance(line.body[0], (cst.Import, cst.ImportFrom))
        return found and "torch" in self.source(line)

    def _imports(self) -> Iterator[tuple[str, str]]:
        statements = [line.body for line in self.module.body if isinstance(line, cst.SimpleStatementLine)]
        for small in (each for body in statements for each in body):
            if isinstance(small, cst.Import):
                for item in small.names:
                    full = item.evaluated_name
                    alias = item.evaluated_alias
                    yield (full, alias) if alias else (full.split(".")[0], full.split(".")[0])
            elif isinstance(small, cst.ImportFrom) and not isinstance(small.names, cst.ImportStar) and small.module:
                origin = self.source(small.module)
                for item in small.names:
                    yield f"{origin}.{item.evaluated_name}", item.evaluated_alias or item.evaluated_name


@lru_cache(maxsize=4)
def parsed(source: SourceFile) -> Syntax:
    """The file's syntax, kept for its further fixes. Raises NoEditError when it cannot be parsed."""
    return Syntax(source)


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _walk(child)


def string(node: cst.CSTNode | None) -> str | None:
    """The value of a plain string literal, None for anything else."""
    if not isinstance(node, cst.SimpleString):
        return None
    value = node.evaluated_value
    return value if isinstance(value, str) else None


def inside(node: cst.CSTNode, kind: type[Node]) -> Iterable[Node]:
    """The nodes of a kind below this one, itself included."""
    return cast(Iterable[Node], (n for n in _walk(node) if isinstance(n, kind)))
