"""A lookup of the row that has the highest score, in the source, as a mixture of rows by their scores."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.sites import at_line, line_of
from gradlint.fix.edits.spelling import new_function
from gradlint.fix.edits.syntax import Syntax, inside
from gradlint.fix.edits.text import Edit, NoEditError

ARGMAX = "argmax"


def softened(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """`table(scores.argmax(-1))` becomes `softmax(scores) @ table.weight`. Raises NoEditError without a place."""
    return [edit for change in changes for edit in _mixed(syntax, change)]


def _mixed(syntax: Syntax, change: Change) -> list[Edit]:
    line = change.end.line if change.end else 0
    chosen = [call for call in at_line(syntax, line) if _scores(syntax, call) is not None]
    looked = [c for c in at_line(syntax, line_of(change)) if _last(c.func) == change.name and len(c.args) == 1]
    if len(chosen) != 1 or len(looked) != 1:
        raise NoEditError(f"line {line_of(change)} does not write out its lookup")
    scores, (lookup,), given = _scores(syntax, chosen[0]), looked, looked[0].args[0].value
    softmax, imports = new_function(syntax, "softmax", syntax.source(chosen[0].func))
    assert scores is not None
    shares = f"{softmax}({syntax.source(scores)}, dim=-1)"
    table = f"{syntax.source(lookup.func)}.weight"
    if given is chosen[0]:
        return [syntax.replace(lookup, _term(syntax, lookup, f"{shares} @ {table}")), *imports]
    if not isinstance(given, cst.Name) or not _serves_once(syntax, chosen[0], given):
        raise NoEditError(f"the index of line {line_of(change)} is read elsewhere, too")
    mixed = _term(syntax, lookup, f"{given.value} @ {table}")
    return [syntax.replace(chosen[0], shares), syntax.replace(lookup, mixed), *imports]


def _scores(syntax: Syntax, call: cst.Call) -> cst.BaseExpression | None:
    """What an argmax is taken of; None for any other call."""
    if "torch.argmax" in syntax.names(call.func):
        return call.args[0].value if call.args and call.args[0].keyword is None and not call.args[0].star else None
    func = call.func
    method = isinstance(func, cst.Attribute) and func.attr.value == ARGMAX
    return func.value if isinstance(func, cst.Attribute) and method else None


def _last(func: cst.BaseExpression) -> str:
    return func.attr.value if isinstance(func, cst.Attribute) else ""


def _serves_once(syntax: Syntax, call: cst.Call, read: cst.Name) -> bool:
    """Whether the call is assigned to the name, which its function has nowhere but there and at one read."""
    assign = syntax.parent(call)
    around = next((parent for parent, _ in syntax.around(call) if isinstance(parent, cst.FunctionDef)), None)
    if not isinstance(assign, cst.Assign) or around is None or len(assign.targets) != 1:
        return False
    target = assign.targets[0].target
    uses = [node for node in inside(around, cst.Name) if node.value == read.value]
    return isinstance(target, cst.Name) and target.value == read.value and len(uses) == 2


def _term(syntax: Syntax, call: cst.Call, text: str) -> str:
    """The product in the call's place, in brackets unless it stands alone."""
    alone = isinstance(syntax.parent(call), (cst.Assign, cst.Return, cst.Arg))
    return text if alone else f"({text})"
