"""Where statements about a finished model go: the end of its class's `__init__`, or after it was assigned to a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.sites import at_line
from gradlint.fix.edits.syntax import Syntax, inside
from gradlint.fix.edits.text import STATEMENT, Edit, NoEditError, line_end
from gradlint.graph.ir import Span


@dataclass(frozen=True)
class Scope:
    """A place of the file, what the model is called there, and its class where the place is in `__init__`.

    `returned` is the expression that a function returns where the model has no name yet.
    """

    syntax: Syntax
    model: str
    at: cst.CSTNode
    owner: cst.ClassDef | None = None
    returned: cst.BaseExpression | None = None

    def named(self, expression: str) -> str:
        """The expression for one of the model's parts as it is written here: "net[3]" for "self[3]"."""
        return self.model + expression.removeprefix("self")

    def appended(self, lines: Sequence[str]) -> list[Edit]:
        """The edits that add statements here."""
        syntax, indent = self.syntax, self.syntax.indent(self.at)
        if self.returned is not None:
            start, value = syntax.span(self.at)[0], syntax.span(self.returned)[0]
            lines = [*lines, f"return {self.model}"]
            end = syntax.span(self.returned)[1]
            return [Edit(start, value, f"{self.model} = "), Edit(end, end, self._text(lines, indent), STATEMENT)]
        inner = indent + syntax.module.default_indent if self.owner is not None else indent
        end = syntax.end(self.at) if self.owner is not None else line_end(syntax.text, syntax.span(self.at)[1])
        return [Edit(end, end, self._text(lines, inner), STATEMENT)]

    def _text(self, lines: Sequence[str], indent: str) -> str:
        return "".join(f"{self.syntax.newline}{indent}{line}" for line in lines)


def root(syntax: Syntax, name: str, span: Span | None) -> Scope:
    """The scope of the model of this class, which the line of `span` constructs. Raises NoEditError without one."""
    classes = [node for node in syntax.all(cst.ClassDef) if node.name.value == name]
    if len(classes) == 1:
        return Scope(syntax, "self", constructor(classes[0]), classes[0])
    calls = [call for call in at_line(syntax, span.line if span else 0) if _is_named(call, name)]
    statement = syntax.statement(calls[0]) if len(calls) == 1 else None
    body = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    small = body[0] if len(body) == 1 else None
    if isinstance(small, cst.Assign) and small.value is calls[0] and len(small.targets) == 1 and statement:
        return Scope(syntax, syntax.source(small.targets[0].target), statement)
    if isinstance(small, cst.Return) and small.value is calls[0] and statement:
        return Scope(syntax, syntax.fresh("model"), statement, returned=small.value)
    raise NoEditError(f"the file has no class {name} with an __init__")


def _is_named(call: cst.Call, name: str) -> bool:
    func = call.func
    return (
        (func.attr if isinstance(func, cst.Attribute) else func).value == name
        if isinstance(func, (cst.Attribute, cst.Name))
        else False
    )


def constructor(owner: cst.ClassDef) -> cst.FunctionDef:
    """The class's `__init__`. Raises NoEditError without one that calls its instance self."""
    found = [f for f in owner.body.body if isinstance(f, cst.FunctionDef) and f.name.value == "__init__"]
    if len(found) != 1 or not isinstance(found[0].body, cst.IndentedBlock):
        raise NoEditError(f"the file has no class {owner.name.value} with an __init__")
    if [param.name.value for param in found[0].params.params][:1] != ["self"]:
        raise NoEditError("__init__ does not call its instance self")
    return found[0]


def held(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that wrap what attributes are assigned: `self.blocks = nn.ModuleList([…])`. Raises NoEditError."""
    edits = []
    for change in changes:
        owners = [node for node in syntax.all(cst.ClassDef) if node.name.value == change.types[1]]
        found = [
            node.value
            for owner in owners
            for node in inside(owner, cst.Assign)
            if [syntax.source(target.target) for target in node.targets] == [f"self.{change.old}"]
        ]
        if len(owners) != 1 or len(found) != 1:
            raise NoEditError(f"self.{change.old} is assigned at {len(found)} places")
        start, end = syntax.span(found[0])
        opening = f"{syntax.owner('torch.nn')}.{change.new}("
        empty = isinstance(found[0], (cst.List, cst.Dict)) and not found[0].elements
        edits += (
            [Edit(start, end, f"{opening})")] if empty else [Edit(start, start, opening, -4), Edit(end, end, ")", 4)]
        )
    return edits
