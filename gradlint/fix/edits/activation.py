"""Activations swapped in the source: constructions, calls, methods, and the classes and names that choose one."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.choice import chosen, key_of
from gradlint.fix.edits.scope import root
from gradlint.fix.edits.sites import at_end, at_line, by_site, is_tight, line_of, selected
from gradlint.fix.edits.spelling import ARGUMENTS, CLASSES, METHODS, SELF_TAUGHT, classes, functions
from gradlint.fix.edits.spelling import new_class as _class
from gradlint.fix.edits.spelling import new_function as _function
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import Edit, NoEditError

MOST_ASSIGNED = 4  # modules that are put into their places one by one


def swapped(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that put the new activations in the old ones' places. Raises NoEditError when a place is not found."""
    edits: list[Edit] = []
    for group in by_site(changes):
        try:
            edits += _at_line(syntax, group)
        except NoEditError as error:
            edits += _assigned(syntax, group, error)
    return edits


def called(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits of calls of a module that serves elsewhere, too: `self.act(x)` as a function, or its argument alone."""
    edits: list[Edit] = []
    for group in by_site(changes):
        change = group[0]
        sites = [call for call in at_line(syntax, line_of(change)) if _is_attribute(call.func, change.old)]
        for site in selected(sites, group):
            edits += _written_call(syntax, site, change)
    return edits


def _is_attribute(node: cst.BaseExpression, name: str) -> bool:
    return isinstance(node, cst.Attribute) and node.attr.value == name


def _at_line(syntax: Syntax, group: Sequence[Change]) -> list[Edit]:
    """The edits for the activations that one line makes."""
    change = group[0]
    write = _written_call if change.name else _written_module
    sites = _sites(syntax, change)
    whole = len(group) == change.of
    if not sites or any(key_of(syntax, site) for site in sites):
        if not whole:
            raise NoEditError("other activations are chosen at the same place")
        return chosen(syntax, change, key_of(syntax, sites[0]) if sites else None)
    if len(sites) == 1 and (test := at_end(syntax, sites[0], group)):
        return _if(syntax, sites[0], test, write(syntax, sites[0], change))
    return [edit for site in selected(sites, group) for edit in write(syntax, site, change)]


def _if(syntax: Syntax, site: cst.Call, test: str, edits: Sequence[Edit]) -> list[Edit]:
    """The edits of a call made where the test holds, and the call as it is elsewhere."""
    start, end = syntax.span(site)
    inner = [edit for edit in edits if start <= edit.start and edit.end <= end]
    text = syntax.text[start:end]
    for edit in sorted(inner, key=lambda edit: edit.key, reverse=True):
        text = text[: edit.start - start] + edit.text.encode() + text[edit.end - start :]
    written = f"{text.decode()} if {test} else {syntax.source(site)}"
    alone = isinstance(syntax.parent(site), (cst.Assign, cst.Return, cst.Arg))
    return [syntax.replace(site, written if alone else f"({written})"), *(e for e in edits if e not in inner)]


def _assigned(syntax: Syntax, group: Sequence[Change], error: NoEditError) -> list[Edit]:
    """A few modules of a Sequential put into their places at the end of the model's `__init__`."""
    places = dict.fromkeys(change.module for change in group)
    if len(places) > MOST_ASSIGNED or not all(name.endswith("]") for name in places):
        raise error
    scope = root(syntax, group[0].types[1], None)
    new, imports = _class(syntax, group[0].new)
    arguments = ARGUMENTS.get(group[0].new, "")
    return [*imports, *scope.appended([f"{scope.named(name)} = {new}({arguments})" for name in places])]


def _sites(syntax: Syntax, change: Change) -> list[cst.Call]:
    """The calls on the change's line that construct or call its activation."""
    calls = at_line(syntax, line_of(change))
    wanted = functions(change.old) if change.name else classes(change.old)
    found = [call for call in calls if syntax.names(call.func) & wanted]
    if change.name.startswith("torch.Tensor."):  # what F.sigmoid and F.tanh call
        return sorted(
            [*found, *(call for call in calls if _is_method(syntax, call, change.old))],
            key=lambda call: syntax.span(call)[1],
        )
    return found


def _is_method(syntax: Syntax, call: cst.Call, function: str) -> bool:
    func = call.func
    named = isinstance(func, cst.Attribute) and func.attr.value in (function, f"{function}_")
    return named and not any(name.startswith("torch.") for name in syntax.names(func))


def _written_module(syntax: Syntax, call: cst.Call, change: Change) -> list[Edit]:
    """`nn.Sigmoid()` becomes `nn.ReLU()`; one that goes leaves its Sequential, or becomes nn.Identity()."""
    if change.new == "identity" and (removed := _removed(syntax, call)):
        return [removed]
    arguments = (change.new in ARGUMENTS and _dim(syntax, call)) or _arguments(call, change.new)
    if isinstance(call.func, cst.Attribute):
        new, imports = f"{syntax.source(call.func.value)}.{CLASSES[change.new]}", list[Edit]()
    else:
        new, imports = _class(syntax, change.new)
    if arguments == _source_of_arguments(syntax, call):
        return [syntax.replace(call.func, new), *imports]
    return [syntax.replace(call, f"{new}({arguments})"), *imports]


def _arguments(call: cst.Call, function: str) -> str:
    """What the new activation takes over of the old one's arguments."""
    if function in ARGUMENTS:
        return ARGUMENTS[function]
    inplace = any(arg.keyword and arg.keyword.value == "inplace" and _is_true(arg.value) for arg in call.args)
    return "inplace=True" if inplace and function in SELF_TAUGHT else ""


def _dim(syntax: Syntax, call: cst.Call) -> str:
    """The axis that the old activation is told to normalise along, as it is written."""
    given = (arg for arg in call.args if arg.keyword is not None and arg.keyword.value == "dim")
    return next((syntax.source(arg).rstrip(", ") for arg in given), "")


def _is_true(node: cst.BaseExpression) -> bool:
    return isinstance(node, cst.Name) and node.value == "True"


def _source_of_arguments(syntax: Syntax, call: cst.Call) -> str:
    return ", ".join(syntax.source(arg).rstrip(", ") for arg in call.args)


def _removed(syntax: Syntax, call: cst.Call) -> Edit | None:
    """The edit that takes a member out of a Sequential or a list; None when the call is no member of one."""
    member = syntax.parent(call)
    owner = syntax.parent(member) if member is not None else None
    members: Sequence[cst.CSTNode] = ()
    if isinstance(owner, cst.Call) and syntax.names(owner.func) & {"torch.nn.Sequential"}:
        members = owner.args
    elif isinstance(owner, cst.List):
        members = owner.elements
    values = [each.value for each in members if isinstance(each, (cst.Arg, cst.Element))]
    place = next((i for i, value in enumerate(values) if value is call), 0)
    if not place or len(values) != len(members):
        return None
    return Edit(syntax.span(values[place - 1])[1], syntax.span(call)[1], "")


def _written_call(syntax: Syntax, call: cst.Call, change: Change) -> list[Edit]:
    """`F.sigmoid(x)` and `x.sigmoid()` with another function, or the argument alone."""
    if change.name.startswith("torch.Tensor.") and _is_method(syntax, call, change.old):
        return _written_method(syntax, call, change)
    given = next((arg for arg in call.args if arg.keyword is None or arg.keyword.value == "input"), None)
    if given is None or given.star:
        raise NoEditError("the argument of the activation is not written out")
    if change.new == "identity":
        return _kept(syntax, call, given.value)
    new, imports = _function(syntax, change.new, syntax.source(call.func))
    arguments = (change.new in ARGUMENTS and _dim(syntax, call)) or _arguments(call, change.new)
    if len(call.args) == 1 and not arguments:
        return [syntax.replace(call.func, new), *imports]
    inner = syntax.span(call)[1] - 1
    last = syntax.span(given.value)[1]
    return [
        syntax.replace(call.func, new),
        Edit(last, inner, f", {arguments}" if arguments else ""),
        *imports,
    ]


def _written_method(syntax: Syntax, call: cst.Call, change: Change) -> list[Edit]:
    func = cst.ensure_type(call.func, cst.Attribute)
    if change.new == "identity":
        return _kept(syntax, call, func.value)
    if change.new in METHODS:
        start, _ = syntax.span(func.attr)
        return [Edit(start, syntax.span(call)[1], f"{change.new}{'_' * func.attr.value.endswith('_')}()")]
    new, imports = _function(syntax, change.new)
    extra = f", {ARGUMENTS[change.new]}" if change.new in ARGUMENTS else ""
    return [syntax.replace(call, f"{new}({syntax.source(func.value)}{extra})"), *imports]


def _kept(syntax: Syntax, call: cst.Call, value: cst.BaseExpression) -> list[Edit]:
    """The call replaced by its argument, in brackets unless it binds as tightly as a call."""
    tight = is_tight(value)
    (start, end), (first, last) = syntax.span(call), syntax.span(value)
    return [Edit(start, first, "" if tight else "("), Edit(last, end, "" if tight else ")")]
