"""Activations that the source chooses elsewhere: a class handed over (`act_layer=nn.Sigmoid`), or a name for one."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.spelling import CLASSES, classes, functions
from gradlint.fix.edits.spelling import new_class as _class
from gradlint.fix.edits.spelling import new_function as _function
from gradlint.fix.edits.syntax import Syntax, inside, string
from gradlint.fix.edits.text import Edit, NoEditError


def key_of(syntax: Syntax, node: cst.CSTNode) -> str | None:
    """The string under which a table or a comparison chooses this node; None when it is not chosen by one."""
    for parent, child in syntax.around(node):
        if isinstance(parent, (cst.FunctionDef, cst.ClassDef)):
            return None
        if isinstance(parent, cst.DictElement) and parent.value is child and (key := string(parent.key)) is not None:
            return key
        if isinstance(parent, cst.If) and parent.body is child and (key := _compared(parent.test)) is not None:
            return key
        if isinstance(parent, cst.MatchCase) and isinstance(parent.pattern, cst.MatchValue):
            return string(parent.pattern.value)
    return None


def chosen(syntax: Syntax, change: Change, key: str | None = None) -> list[Edit]:
    """The edits where the activation of the change is chosen, by `key` when that is known."""
    if change.new == "identity":
        raise NoEditError("the activation is chosen elsewhere")
    if key is None:
        references = _references(syntax, change)
        keys = {found for node in references if (found := key_of(syntax, node)) is not None}
        if not keys and references:
            return [edit for node in references for edit in _referred(syntax, node, change)]
        key = next(iter(keys)) if len(keys) == 1 else None
    names = (change.old, CLASSES.get(change.old, ""))
    if key is None and _by_attribute(syntax, change):
        pairs = zip(names, (change.new, CLASSES[change.new]), strict=True)
        return _named(syntax, {old: new for old, new in pairs if old})
    if key is None:
        raise NoEditError("where the activation is chosen was not found")
    return _named(syntax, {key: _other_key(syntax, key, change)})


def _references(syntax: Syntax, change: Change) -> list[cst.BaseExpression]:
    """Where the activation is handed over as a value: to the names that the change's line calls, or the only place."""
    wanted = functions(change.old) if change.name else classes(change.old)
    nodes: list[cst.BaseExpression] = [*syntax.all(cst.Attribute), *syntax.all(cst.Name)]
    found = [node for node in nodes if syntax.names(node) & wanted and _is_value(syntax, node)]
    called = set(_called(syntax, change))
    fitting = [node for node in found if _receiver(syntax, node) in called]
    return fitting or (found if len(found) == 1 else [n for n in found if key_of(syntax, n) is not None])


def _called(syntax: Syntax, change: Change) -> Iterator[str]:
    """The last names of what is called on the change's line, and what they were assigned from."""
    line = change.span.line if change.span else 0
    for call in syntax.all(cst.Call):
        if line in syntax.lines(call.func):
            yield syntax.source(call.func).rpartition(".")[2]


def _is_value(syntax: Syntax, node: cst.CSTNode) -> bool:
    """Whether the node is a value that is handed over: an argument, a default, an entry of a dict, an assigned one."""
    parent = syntax.parent(node)
    if isinstance(parent, cst.Param):
        return parent.default is node
    kinds = (cst.Arg, cst.Assign, cst.AnnAssign, cst.DictElement)
    return isinstance(parent, kinds) and parent.value is node


def _receiver(syntax: Syntax, node: cst.CSTNode) -> str:
    """The name that the value is handed over to; empty for a positional argument."""
    parent = syntax.parent(node)
    if isinstance(parent, cst.Param):
        return parent.name.value
    if isinstance(parent, cst.Arg):
        return parent.keyword.value if parent.keyword else ""
    if isinstance(parent, cst.Assign):
        return syntax.source(parent.targets[0].target).rpartition(".")[2]
    return syntax.source(parent.target).rpartition(".")[2] if isinstance(parent, cst.AnnAssign) else ""


def _referred(syntax: Syntax, node: cst.BaseExpression, change: Change) -> list[Edit]:
    if change.name:
        new, imports = _function(syntax, change.new, syntax.source(node))
    elif isinstance(node, cst.Attribute):
        new, imports = f"{syntax.source(node.value)}.{CLASSES[change.new]}", []
    else:
        new, imports = _class(syntax, change.new)
    return [syntax.replace(node, new), *imports]


def _by_attribute(syntax: Syntax, change: Change) -> bool:
    """Whether the file takes activations from torch by name: getattr(nn, name)."""
    calls = (call for call in syntax.all(cst.Call) if syntax.source(call.func) == "getattr" and len(call.args) > 1)
    owners = {"torch", "torch.nn", "torch.nn.functional"}
    return any(syntax.names(call.args[0].value) & owners for call in calls)


def _named(syntax: Syntax, names: dict[str, str]) -> list[Edit]:
    """The edits of the strings that choose: values, not the keys they are compared or looked up with."""
    edits = []
    for node in syntax.all(cst.SimpleString):
        value = string(node)
        if value in names and (_is_value(syntax, node) or _is_attribute(syntax, node)):
            text = syntax.source(node)
            edits.append(syntax.replace(node, text.replace(value, names[value])))
    if not edits:
        raise NoEditError("where the activation is named was not found")
    return edits


def _is_attribute(syntax: Syntax, node: cst.CSTNode) -> bool:
    parent = syntax.parent(node)
    call = syntax.parent(parent) if isinstance(parent, cst.Arg) else None
    return isinstance(call, cst.Call) and syntax.source(call.func) == "getattr"


def _other_key(syntax: Syntax, key: str, change: Change) -> str:
    """The key under which the same table or chain of comparisons has the new activation."""
    wanted = functions(change.new) if change.name else classes(change.new)
    nodes: list[cst.CSTNode] = [*syntax.all(cst.Attribute), *syntax.all(cst.Name)]
    found = [k for node in nodes if syntax.names(node) & wanted and (k := key_of(syntax, node)) is not None]
    if not found:
        raise NoEditError(f"nothing is chosen by another name than {key!r}")
    return found[0]


def _compared(test: cst.BaseExpression) -> str | None:
    """The one string that a test compares with."""
    found = [
        string(target.comparator)
        for comparison in inside(test, cst.Comparison)
        for target in comparison.comparisons
        if isinstance(target.operator, cst.Equal)
    ]
    return found[0] if len(found) == 1 else None
