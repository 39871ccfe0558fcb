"""Numerically safe forms in the source: arguments clamped to where a function and its derivative are finite."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.sites import by_site, is_tight, line_of
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import Edit, NoEditError

INSIDE_ONE = frozenset({"acos", "asin", "arccos", "arcsin"})
BELOW = frozenset({"exp", "expm1"})
OPERATORS: dict[str, type[cst.BaseBinaryOp]] = {"pow": cst.Power, "div": cst.Divide, "reciprocal": cst.Divide}


def guarded(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that clamp arguments. Raises NoEditError when one of them is not found."""
    edits: list[Edit] = []
    for group in by_site(changes):
        change = group[0]
        sites = _arguments(syntax, change)
        if not sites:
            raise NoEditError(f"line {line_of(change)} does not write out the argument of {change.old}")
        # what the line does to another argument is as singular: log(p) beside log(1 - p)
        edits += [edit for site in sites for edit in _clamped(syntax, site, change)]
    return edits


def _arguments(syntax: Syntax, change: Change) -> list[cst.BaseExpression]:
    """The arguments on the change's line that its function is singular in, in the order of evaluation."""
    line, found = line_of(change), list[cst.BaseExpression]()
    nodes: list[cst.CSTNode] = [*syntax.all(cst.Call), *syntax.all(cst.BinaryOperation)]
    for node in sorted(nodes, key=lambda node: syntax.span(node)[1]):
        if line in syntax.lines(node) and (argument := _argument(syntax, node, change.old)) is not None:
            found.append(argument)
    return found


def _argument(syntax: Syntax, node: cst.CSTNode, function: str) -> cst.BaseExpression | None:
    if isinstance(node, cst.BinaryOperation):
        wanted = OPERATORS.get(function)
        if wanted is None or not isinstance(node.operator, wanted):
            return None
        return node.left if function == "pow" else node.right
    call = cst.ensure_type(node, cst.Call)
    position = 1 if function == "div" else 0
    given = [arg.value for arg in call.args if arg.keyword is None and not arg.star]
    if syntax.names(call.func) & {f"torch.{function}", f"torch.special.{function}"}:
        return given[position] if len(given) > position else None
    if not isinstance(call.func, cst.Attribute) or call.func.attr.value not in (function, f"{function}_"):
        return None
    if any(name.startswith("torch.") for name in syntax.names(call.func)):
        return None
    operands = [call.func.value, *given]
    return operands[position] if len(operands) > position else None


def _clamped(syntax: Syntax, argument: cst.BaseExpression, change: Change) -> list[Edit]:
    start, end = syntax.span(argument)
    method = f".clamp({_bounds(change)})"
    if argument.lpar:
        end = syntax.text.index(b")", end) + 1  # brackets are no part of an expression's place
    if argument.lpar or is_tight(argument):
        return [Edit(end, end, method)]
    return [Edit(start, start, "("), Edit(end, end, f"){method}")]


def _bounds(change: Change) -> str:
    bound = f"{change.gain:.4g}".replace("e-0", "e-")
    if change.old in INSIDE_ONE:
        return f"-1 + {bound}, 1 - {bound}"
    return f"max={bound}" if change.old in BELOW else f"min={bound}"
