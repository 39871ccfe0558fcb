"""Skips in a forward: a block's input, projected where its shape changes, in a sum with what the block makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.sites import at_line, is_class, is_pure, line_of
from gradlint.fix.edits.syntax import Syntax, inside
from gradlint.fix.edits.text import STATEMENT, Edit, NoEditError, line_end

OUTER = 3  # the rank of what closes after all else, and -3 of what opens before it
LAYERS = ("Linear", "Conv1d", "Conv2d", "Conv3d")


def projection(syntax: Syntax, layer: cst.Call, group: Sequence[Change], identity: str) -> str:
    """The layer that projects a block's input, from the widths of the block's first layer; empty for an identity.

    `identity` is what some blocks of the same source take instead. Raises NoEditError for widths not written out.
    """
    strides = {change.stride for change in group}
    given = [arg.value for arg in layer.args if arg.keyword is None and not arg.star][:2]
    if strides == {0}:
        return ""
    if len(strides - {0}) > 1 or len(given) < 2 or not all(map(is_pure, given)):
        raise NoEditError(f"line {syntax.lines(layer).start} does not write out the widths of its layers")
    first, last = map(syntax.source, given)
    kind = next(kind for kind in LAYERS if is_class(syntax, layer, kind))
    stride = max(strides)
    size = "" if kind == "Linear" else ", 1" if stride == 1 else f", 1, stride={stride}"
    made = f"{syntax.owner('torch.nn')}.{kind}({first}, {last}{size}, bias=False)"
    return f"{identity} if {first} == {last} else {made}" if 0 in strides else made


def around_calls(syntax: Syntax, group: Sequence[Change]) -> list[Edit]:
    """The edits that add the input of the calls of one line to what they make. Raises NoEditError without a place."""
    change = group[0]
    if change.end is None or (len({each.place for each in group}) != change.of):
        raise NoEditError(f"line {line_of(change)} calls layers that get no skip, too")
    if change.end.line == line_of(change):
        found = [call for call in at_line(syntax, change.end.line) if _depth(syntax, call, change.size)]
        whole = [call for call in found if not any(_feeds(syntax, call, other) for other in found)]
        further = [call for call in whole if change.of > 1 and isinstance(syntax.parent(call), cst.Arg)]
        if len(whole) != 1 or further:
            raise NoEditError(f"the calls of line {line_of(change)} are not written one inside the other")
        return _around_nested(syntax, whole[0], group)
    return _around_statements(syntax, group)


def _projected(syntax: Syntax, group: Sequence[Change], call: cst.Call, x: str) -> tuple[str, list[Edit]]:
    """The block's input as it is added, and the edits that make its projection beside the layer that is called."""
    if not any(change.stride for change in group):
        return x, []
    func, owner = call.func, next((p for p, _ in syntax.around(call) if isinstance(p, cst.ClassDef)), None)
    if owner is None or not isinstance(func, cst.Attribute) or syntax.source(func.value) != "self":
        raise NoEditError(f"line {line_of(group[0])} does not call its layer by an attribute")
    layer = _made_as(syntax, owner, func.attr.value)
    made = projection(syntax, layer, group, f"{syntax.owner('torch.nn')}.Identity()")
    name, statement = f"self.{syntax.fresh(f'{func.attr.value}_skip')}", syntax.statement(layer)
    end = line_end(syntax.text, syntax.span(statement)[1])
    text = f"{syntax.newline}{syntax.indent(statement)}{name} = {made}"
    return f"{name}({x})", [Edit(end, end, text, STATEMENT)]


def _made_as(syntax: Syntax, owner: cst.ClassDef, attribute: str) -> cst.Call:
    """The call that makes what the attribute of the class holds."""
    found = [value for name, value in _attributes(syntax, owner) if name == f"self.{attribute}"]
    layer = found[0] if len(found) == 1 else None
    if not isinstance(layer, cst.Call) or not any(is_class(syntax, layer, kind) for kind in LAYERS):
        raise NoEditError(f"self.{attribute} is assigned no layer, or several")
    return layer


def _attributes(syntax: Syntax, owner: cst.ClassDef) -> Iterator[tuple[str, cst.BaseExpression]]:
    """What the statements of a class assign to names, tuples of names by their items."""
    for assign in inside(owner, cst.Assign):
        for target in (each.target for each in assign.targets):
            if isinstance(target, cst.Tuple) and isinstance(assign.value, cst.Tuple):
                pairs = zip(target.elements, assign.value.elements, strict=False)
                yield from ((syntax.source(one.value), other.value) for one, other in pairs)
            else:
                yield syntax.source(target), assign.value


def _argument(syntax: Syntax, call: cst.Call) -> cst.BaseExpression | None:
    """What the call is about: the tensor of a method that no module of torch's holds, else the first argument."""
    func = call.func
    if isinstance(func, cst.Attribute) and isinstance(func.value, cst.Call):
        return func.value
    if call.args and call.args[0].keyword is None and not call.args[0].star:
        return call.args[0].value
    return func.value if isinstance(func, cst.Attribute) and not call.args else None


def _depth(syntax: Syntax, call: cst.Call, number: int) -> cst.BaseExpression | None:
    """What goes into the innermost of so many calls, each the argument of the next; None when there are fewer."""
    node: cst.BaseExpression | None = call
    for _ in range(number):
        if not isinstance(node, cst.Call):
            return None
        node = _argument(syntax, node)
    return node if isinstance(node, (cst.Name, cst.Attribute, cst.Subscript)) and is_pure(node) else None


def _feeds(syntax: Syntax, inner: cst.Call, outer: cst.Call) -> bool:
    return outer is not inner and any(parent is outer for parent, _ in syntax.around(inner))


def _innermost(syntax: Syntax, call: cst.Call, number: int) -> cst.Call:
    """The innermost of so many calls, each the argument of the next."""
    node: cst.BaseExpression | None = call
    for _ in range(number - 1):
        node = _argument(syntax, node) if isinstance(node, cst.Call) else None
    return cst.ensure_type(node or call, cst.Call)


def _around_nested(syntax: Syntax, call: cst.Call, group: Sequence[Change]) -> list[Edit]:
    """`x = f(g(x))` becomes `x = x + f(g(x))`."""
    change, source = group[0], _depth(syntax, call, group[0].size)
    assert source is not None
    x = syntax.source(source)
    if change.partial and not isinstance(syntax.parent(call), cst.Arg):  # else what gets no skip is called around it
        _no_projection(group)
        return _where_alike(syntax, call, x)
    added, made = _projected(syntax, group, _innermost(syntax, call, change.size), x)
    return [*made, *_sum(syntax, call, added, alone=_is_alone(syntax, call))]


def _no_projection(group: Sequence[Change]) -> None:
    if any(change.stride for change in group):
        raise NoEditError(f"line {line_of(group[0])} calls layers that get no projection, too")


def _where_alike(syntax: Syntax, call: cst.Call, x: str) -> list[Edit]:
    """The call's result gets a name, and the sum's becomes what the call was assigned to, where the shapes agree."""
    statement = syntax.statement(call)
    target = _assigned(syntax, call, statement)
    if not target:
        raise NoEditError(f"line {syntax.lines(call).start} assigns its block to no name")
    fresh, (start, end) = syntax.fresh("y"), syntax.span(statement)
    line = f"{syntax.newline}{syntax.indent(statement)}"
    return [
        Edit(start, syntax.span(call)[0], f"{fresh} = "),
        Edit(end, end, f"{line}{target} = {x} + {fresh} if {x}.shape == {fresh}.shape else {fresh}", STATEMENT),
    ]


def _around_statements(syntax: Syntax, group: Sequence[Change]) -> list[Edit]:
    """The block's calls in several statements: its input is kept before the first and added in the last."""
    change = group[0]
    line = change.end.line if change.end else 0
    firsts = [c for c in at_line(syntax, line_of(change)) if _depth(syntax, c, 1)]
    lasts = [c for c in at_line(syntax, line) if _depth(syntax, c, 1) and _assigned(syntax, c, syntax.statement(c))]
    firsts = [c for c in firsts if not any(_feeds(syntax, c, o) for o in lasts)]
    if len(firsts) != 1 or len(lasts) != 1:
        raise NoEditError(f"the block of line {line_of(change)} is not written one call a statement")
    first, source = syntax.statement(firsts[0]), _depth(syntax, firsts[0], 1)
    if not _follows(syntax, first, syntax.statement(lasts[0])) or source is None:
        raise NoEditError(f"the block of line {line_of(change)} ends elsewhere")
    name, start = syntax.fresh("skip"), syntax.span(first)[0]
    added, made = _projected(syntax, group, firsts[0], syntax.source(source))
    kept = Edit(start, start, f"{name} = {added}{syntax.newline}{syntax.indent(first)}")
    if change.partial:
        _no_projection(group)
        return [kept, *_where_alike(syntax, lasts[0], name)]
    return [*made, kept, *_sum(syntax, lasts[0], name, alone=True)]


def _follows(syntax: Syntax, first: cst.CSTNode, last: cst.CSTNode) -> bool:
    """Whether the last statement runs after the first one: in the same block, or under a test in it."""
    for parent, _ in syntax.around(last):
        if parent is syntax.parent(first):
            return True
        if not isinstance(parent, (cst.If, cst.IndentedBlock, cst.Else)):
            return False
    return False


def _sum(syntax: Syntax, call: cst.Call, added: str, *, alone: bool) -> list[Edit]:
    start, end = syntax.span(call)
    opening, closing = ("", "") if alone else ("(", ")")
    edits = [Edit(start, start, f"{opening}{added} + ", -OUTER)]
    return edits if alone else [*edits, Edit(end, end, closing, OUTER)]


def _assigned(syntax: Syntax, call: cst.Call, statement: cst.CSTNode) -> str:
    """The name that the statement assigns the call to; empty for any other statement."""
    body = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    small = body[0] if len(body) == 1 else None
    if not isinstance(small, cst.Assign) or small.value is not call or len(small.targets) != 1:
        return ""
    return syntax.source(small.targets[0].target)


def _is_alone(syntax: Syntax, call: cst.Call) -> bool:
    """Whether a sum can stand in the call's place without brackets."""
    return isinstance(syntax.parent(call), (cst.Return, cst.Assign, cst.Arg))
