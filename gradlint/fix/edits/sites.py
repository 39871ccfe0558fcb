"""Where the source makes something: the calls of a line, and which of them a change is about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import NoEditError

TIGHT = (cst.Name, cst.Call, cst.Attribute, cst.Subscript)  # bind as tightly as a call does


def at_line(syntax: Syntax, line: int) -> list[cst.Call]:
    """The calls whose function stands on the line, in the order of their evaluation."""
    return [call for call in syntax.all(cst.Call) if line in syntax.lines(call.func)]


def constructions(syntax: Syntax, line: int, name: str) -> list[cst.Call]:
    """The calls on the line that construct a module of this class of torch's."""
    return [call for call in at_line(syntax, line) if is_class(syntax, call, name)]


def is_class(syntax: Syntax, call: cst.Call, name: str) -> bool:
    """Whether the call constructs a module of this class of torch's."""
    return any(found.startswith("torch.nn.") and found.endswith(f".{name}") for found in syntax.names(call.func))


def by_site(changes: Iterable[Change]) -> list[list[Change]]:
    """The changes that are about alike sites of one line."""
    return [list(group) for _, group in groupby(sorted(changes, key=_place), key=_place)]


def _place(change: Change) -> tuple[Any, ...]:
    return (change.span.line if change.span else 0), change.old, change.name != "", change.new


def selected(sites: Sequence[cst.Call], group: Sequence[Change]) -> list[cst.Call]:
    """The sites that a group of changes means. Raises NoEditError where the line makes others that should stay."""
    change = group[0]
    if not sites:
        raise NoEditError(f"line {line_of(change)} does not write out its {change.old or change.name}")
    if len(sites) == change.of:
        return [sites[each.place] for each in group]
    if len({each.place for each in group}) != change.of:
        raise NoEditError(f"line {line_of(change)} makes {change.old or change.name} that should stay, too")
    return list(sites)


def at_end(syntax: Syntax, site: cst.CSTNode, group: Sequence[Change]) -> str:
    """What tells the last pass of the loop around a site from the others, where the changes are about one or the other.

    `fc is self.layers[-1]`, or with `not`; empty where they are about something else, or the loop is another one.
    """
    of, places = group[0].of, {change.place for change in group}
    last, rest = places == {of - 1}, places == set(range(of - 1))
    loop = next((parent for parent, _ in syntax.around(site) if isinstance(parent, (cst.For, cst.FunctionDef))), None)
    if of < 2 or not (last or rest) or not isinstance(loop, cst.For):
        return ""
    layers: cst.BaseExpression = loop.iter
    target: cst.BaseExpression = loop.target
    if isinstance(layers, cst.Call) and syntax.source(layers.func) == "enumerate" and isinstance(target, cst.Tuple):
        layers, target = layers.args[0].value, target.elements[-1].value
    if not isinstance(target, cst.Name) or not isinstance(layers, cst.Attribute) or not is_pure(layers):
        return ""
    return f"{target.value} is {'' if last else 'not '}{syntax.source(layers)}[-1]"


def line_of(change: Change) -> int:
    """The line of a change; 0 when it has none."""
    return change.span.line if change.span else 0


def is_tight(node: cst.BaseExpression) -> bool:
    """Whether a method can be called on the expression as it stands: brackets around it are no part of its place."""
    return isinstance(node, TIGHT)


def is_pure(node: cst.BaseExpression) -> bool:
    """Whether the expression may be written twice: names, attributes, numbers, and arithmetic of them."""
    if isinstance(node, (cst.Name, cst.Integer)):
        return True
    if isinstance(node, cst.Attribute):
        return is_pure(node.value)
    if isinstance(node, cst.BinaryOperation):
        return is_pure(node.left) and is_pure(node.right)
    if isinstance(node, cst.Subscript):
        inner = [e.slice.value for e in node.slice if isinstance(e.slice, cst.Index)]
        return len(inner) == len(node.slice) and all(map(is_pure, [node.value, *inner]))
    return isinstance(node, cst.UnaryOperation) and is_pure(node.expression)
