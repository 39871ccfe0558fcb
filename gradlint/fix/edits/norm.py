"""Norms in the source, after the layers that a line makes: as a further member, an attribute, or around the layer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.sites import by_site, constructions, is_class, is_pure, line_of, selected
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import STATEMENT, Edit, NoEditError, line_end

WIDTHS = ("out_features", "out_channels")  # what torch's layers call the number of their outputs
INNER = -1  # the rank of what closes right after the layer, and 1 of what opens right before it


def normalised(syntax: Syntax, changes: Sequence[Change], within: Collection[cst.Call] = ()) -> list[Edit]:
    """The edits that put norms after layers; `within` are those that stand in a row of members that is made anew.

    Raises NoEditError when a layer is not found.
    """
    edits: list[Edit] = []
    for group in by_site(changes):
        change = group[0]
        for site in selected(constructions(syntax, line_of(change), change.old), group):
            edits += _after(syntax, site, change, member=site in within or is_member(syntax, site))
    return edits


def _after(syntax: Syntax, layer: cst.Call, change: Change, *, member: bool) -> list[Edit]:
    norm, end = _norm(syntax, layer, change), syntax.span(layer)[1]
    if member:
        return [Edit(end, end, f", {norm}", INNER)]
    statement = syntax.statement(layer)
    if appended(syntax, layer, statement):
        made = syntax.source(statement)[: syntax.span(layer)[0] - syntax.span(statement)[0]]
        place = line_end(syntax.text, syntax.span(statement)[1])
        return [Edit(place, place, f"{syntax.newline}{syntax.indent(statement)}{made}{norm})", STATEMENT)]
    if (attribute := _attribute(syntax, layer, statement)) and (calls := _calls(syntax, attribute, layer)):
        return _as_attribute(syntax, attribute, calls, norm, statement)
    owner = syntax.owner("torch.nn")
    if name := _local(syntax, layer, statement):
        return _around_use(syntax, name, layer, statement, f"{owner}.Sequential(", f", {norm})")
    if any(map(partial(reads_weight, syntax), syntax.all(cst.Attribute))):
        raise NoEditError("the file asks the layers for their weights")
    start = syntax.span(layer)[0]
    return [Edit(start, start, f"{owner}.Sequential(", 1), Edit(end, end, f", {norm})", INNER)]


def is_member(syntax: Syntax, call: cst.Call) -> bool:
    """Whether the call is an argument of nn.Sequential, or in a list that is unpacked into one."""
    parent = syntax.parent(call)
    owner = syntax.parent(parent) if parent is not None else None
    if isinstance(parent, cst.Arg) and isinstance(owner, cst.Call):
        return is_class(syntax, owner, "Sequential") and not parent.keyword and not parent.star
    if not isinstance(parent, cst.Element) or not isinstance(owner, cst.List):
        return False
    outer = syntax.parent(owner)
    if isinstance(outer, cst.Arg):
        called = syntax.parent(outer)
        return bool(outer.star) and isinstance(called, cst.Call) and is_class(syntax, called, "Sequential")
    target = outer.targets[0].target if isinstance(outer, cst.Assign) else None
    target = outer.target if isinstance(outer, cst.AugAssign) else target
    return target is not None and unpacked(syntax, syntax.source(target))


def appended(syntax: Syntax, call: cst.Call, statement: cst.CSTNode) -> bool:
    """Whether the statement appends the call to a list that is unpacked into nn.Sequential."""
    outer = syntax.appending(statement)
    if outer is None or outer.args[0].value is not call:
        return False
    func = cst.ensure_type(outer.func, cst.Attribute)
    return unpacked(syntax, syntax.source(func.value))


def unpacked(syntax: Syntax, name: str) -> bool:
    """Whether the file unpacks what it calls so into nn.Sequential."""
    return any(
        arg.star == "*" and syntax.source(arg.value) == name
        for call in syntax.all(cst.Call)
        if is_class(syntax, call, "Sequential")
        for arg in call.args
    )


def _norm(syntax: Syntax, layer: cst.Call, change: Change) -> str:
    """The norm's construction, its width as the layer's is written."""
    width = str(change.size)
    by_place = [arg.value for arg in layer.args if arg.keyword is None and not arg.star]
    named = [arg.value for arg in layer.args if arg.keyword is not None and arg.keyword.value in WIDTHS]
    written = named or by_place[1:2]
    if written and is_pure(written[0]) and not any(arg.star for arg in layer.args):
        width = syntax.source(written[0])
    elif change.of > 1:
        raise NoEditError(f"line {line_of(change)} does not write out the widths of its layers")
    groups = f"{change.gain:g}, " if change.new == "GroupNorm" else ""
    return f"{syntax.owner('torch.nn')}.{change.new}({groups}{width})"


def _attribute(syntax: Syntax, layer: cst.Call, statement: cst.CSTNode) -> str:
    """The attribute of self that the statement assigns the layer to; empty for any other statement."""
    body = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    small = body[0] if len(body) == 1 else None
    if not isinstance(small, cst.Assign) or small.value is not layer or len(small.targets) != 1:
        return ""
    target = small.targets[0].target
    named = isinstance(target, cst.Attribute) and syntax.source(target.value) == "self"
    return syntax.source(target) if named else ""


def _local(syntax: Syntax, layer: cst.Call, statement: cst.CSTNode) -> str:
    """The variable that the statement assigns the layer to; empty for any other statement."""
    body = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    small = body[0] if len(body) == 1 else None
    if not isinstance(small, cst.Assign) or small.value is not layer or len(small.targets) != 1:
        return ""
    target = small.targets[0].target
    return target.value if isinstance(target, cst.Name) else ""


def _around_use(
    syntax: Syntax, name: str, layer: cst.Call, statement: cst.CSTNode, opening: str, closing: str
) -> list[Edit]:
    """A Sequential of the layer and its norm where the variable is handed over, its only use by itself."""
    body = syntax.parent(statement)
    inside_body = [n for n in syntax.all(cst.Name) if n.value == name and any(p is body for p, _ in syntax.around(n))]
    used = [n for n in inside_body if isinstance(syntax.parent(n), (cst.Arg, cst.Element, cst.Return))]
    if len(used) != 1:
        raise NoEditError(f"{name} is handed over at {len(used)} places")
    start, end = syntax.span(used[0])
    return [Edit(start, start, opening, 1), Edit(end, end, closing, INNER)]


def reads_weight(syntax: Syntax, node: cst.Attribute) -> bool:
    """Whether a loop or a helper asks a layer for its weight without asking for its class first."""
    if node.attr.value not in ("weight", "bias") or not isinstance(node.value, cst.Name) or node.value.value == "self":
        return False
    return not any(
        isinstance(parent, cst.If) and parent.body is child and "isinstance" in syntax.source(parent.test)
        for parent, child in syntax.around(node)
    )


def _calls(syntax: Syntax, attribute: str, layer: cst.Call) -> list[cst.Call]:
    """The calls of the attribute in the class that constructs the layer."""
    around = next((parent for parent, _ in syntax.around(layer) if isinstance(parent, cst.ClassDef)), None)
    inside = (c for c in syntax.all(cst.Call) if any(parent is around for parent, _ in syntax.around(c)))
    return [call for call in inside if syntax.source(call.func) == attribute]


def _as_attribute(
    syntax: Syntax, attribute: str, calls: Sequence[cst.Call], norm: str, statement: cst.CSTNode
) -> list[Edit]:
    """A norm of its own beside the layer, called around each of the layer's calls."""
    name = syntax.fresh(f"{attribute}_norm")
    place = line_end(syntax.text, syntax.span(statement)[1])
    edits = [Edit(place, place, f"{syntax.newline}{syntax.indent(statement)}{name} = {norm}", STATEMENT)]
    for call in calls:
        start, end = syntax.span(call)
        edits += [Edit(start, start, f"{name}(", 1), Edit(end, end, ")", INNER)]
    return edits
