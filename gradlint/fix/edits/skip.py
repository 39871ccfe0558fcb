"""Skips in the source: members of a Sequential in a module that adds its input, or a sum in a forward."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.norm import appended
from gradlint.fix.edits.sites import at_line, by_site, constructions, is_pure, line_of, selected
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import STATEMENT, Edit, NoEditError

OUTER = 3  # the rank of what closes after all else, and -3 of what opens before it
NAME = "Residual"
DOCS = {
    False: "Modules in a row whose input is added to what they make.",
    True: "Modules in a row whose input is added to what they make, where that has its shape.",
}
SUMS = {
    False: ("return x + super().forward(x)",),
    True: ("y = super().forward(x)", "return x + y if x.shape == y.shape else y"),
}

PROJECTED = (
    "class {name}({nn}.Module):",
    '    """Modules in a row whose input, projected where its shape changes, is added to what they make."""',
    "",
    "    def __init__(self, *modules, skip=None):",
    "        super().__init__()",
    "        self.body = {nn}.Sequential(*modules)",
    "        self.skip = {nn}.Identity() if skip is None else skip",
    "",
    "    def forward(self, x):",
    "        return self.skip(x) + self.body(x)",
)


def skipped(syntax: Syntax, changes: Sequence[Change]) -> tuple[list[Edit], list[cst.Call]]:
    """The edits that add skips, and the layers that come to stand in a row of members made anew.

    Raises NoEditError when a block is not found.
    """
    edits, within = list[Edit](), list[cst.Call]()
    rows = [change for change in changes if not change.name]
    for group in by_site(rows):
        change = group[0]
        found = constructions(syntax, line_of(change), change.old)
        starts = found if change.partial and found else selected(found, group)
        name = _residual(syntax, starts[0], rows)
        for start in starts:
            closing = _projection(syntax, start, group)
            edits += [*_around_members(syntax, start, change, name[0], closing), *name[1]]
            within.append(start)
    for group in by_site([change for change in changes if change.name]):
        edits += _around_calls(syntax, group)
    return edits, within


# -- members of a Sequential -------------------------------------------------------------------------------------------


def _projection(syntax: Syntax, start: cst.Call, group: Sequence[Change]) -> str:
    """The argument that projects the block's input, from the widths of its first layer; empty for an identity."""
    strides = {change.fans[0] for change in group}
    given = [arg.value for arg in start.args if arg.keyword is None and not arg.star][:2]
    if strides == {0}:
        return ""
    if len(strides - {0}) > 1 or len(given) < 2 or not all(map(is_pure, given)):
        raise NoEditError(f"line {line_of(group[0])} does not write out the widths of its layers")
    first, last = map(syntax.source, given)
    kind = group[0].old
    stride = max(strides)
    size = "" if kind == "Linear" else ", 1" if stride == 1 else f", 1, stride={stride}"
    made = f"{syntax.owner('torch.nn')}.{kind}({first}, {last}{size}, bias=False)"
    return f", skip=None if {first} == {last} else {made}" if 0 in strides else f", skip={made}"


def _around_members(syntax: Syntax, start: cst.Call, change: Change, name: str, closing: str) -> list[Edit]:
    line = change.end.line if change.end else 0
    ends = constructions(syntax, line, change.last)
    members = _members(syntax, start)
    if members:
        place = next(i for i, member in enumerate(members) if member is start)
        stop = next((i for i in range(place, len(members)) if members[i] in ends), None)
        if stop is None:
            raise NoEditError("the block ends in another list of modules")
        owner = syntax.parent(syntax.parent(start) or start)
        if isinstance(owner, cst.Call) and stop - place + 1 == len(members):
            end = syntax.span(members[stop])[1]
            return [syntax.replace(owner.func, name), *([Edit(end, end, closing, OUTER)] if closing else [])]
        return _wrapped(syntax, start, members[stop], name, closing)
    return _around_appends(syntax, start, ends, name, closing)


def _members(syntax: Syntax, start: cst.Call) -> list[cst.BaseExpression]:
    """The expressions among which the call is a member of a list, or an argument of its Sequential."""
    parent = syntax.parent(start)
    owner = syntax.parent(parent) if parent is not None else None
    if isinstance(parent, cst.Element) and isinstance(owner, cst.List):
        return [element.value for element in owner.elements]
    if isinstance(parent, cst.Arg) and isinstance(owner, cst.Call) and parent.keyword is None and len(owner.args) > 1:
        return [arg.value for arg in owner.args]
    return []


def _around_appends(syntax: Syntax, start: cst.Call, ends: Sequence[cst.Call], name: str, closing: str) -> list[Edit]:
    """Members that successive statements append to one list: the statements become one."""
    statement = syntax.statement(start)
    if not appended(syntax, start, statement):
        raise NoEditError(f"line {syntax.lines(start).start} makes its layers where no skip can be added")
    target = syntax.source(cst.ensure_type(syntax.appending(statement) or start, cst.Call).func)
    body = getattr(syntax.parent(statement), "body", ())
    edits, before = list[Edit](), start
    for following in body[list(body).index(statement) + 1 :]:
        call = syntax.appending(following)
        member = call.args[0].value if call is not None and syntax.source(call.func) == target else None
        if not isinstance(member, cst.Call):
            break
        between = syntax.text[syntax.span(before)[1] : syntax.span(member)[0]]
        if b"#" in between:
            break
        edits.append(Edit(syntax.span(before)[1], syntax.span(member)[0], ", "))
        before = member
        if member in ends:
            return [*edits, *_wrapped(syntax, start, member, name, closing)]
    raise NoEditError("the block's modules are not appended one after the other")


def _wrapped(syntax: Syntax, start: cst.BaseExpression, end: cst.BaseExpression, name: str, closing: str) -> list[Edit]:
    first, last = syntax.span(start)[0], syntax.span(end)[1]
    return [Edit(first, first, f"{name}(", -OUTER), Edit(last, last, f"{closing})", OUTER)]


def _residual(syntax: Syntax, start: cst.Call, changes: Sequence[Change]) -> tuple[str, list[Edit]]:
    """The name of the class that adds its input, and the edit that defines it before its first use."""
    partial = any(change.partial for change in changes)
    name, (step, line) = syntax.fresh(NAME), (syntax.module.default_indent, syntax.newline)
    nn = syntax.owner("torch.nn")
    if partial and any(change.fans[0] for change in changes):
        raise NoEditError("some blocks take no projection")
    if any(change.fans[0] for change in changes):
        rows = [row.format(name=name, nn=nn).replace("    ", step) for row in PROJECTED]
    else:
        rows = [
            f"class {name}({nn}.Sequential):",
            f'{step}"""{DOCS[partial]}"""',
            "",
            f"{step}def forward(self, x):",
            *(f"{step * 2}{row}" for row in SUMS[partial]),
        ]
    made = [site for change in changes for site in constructions(syntax, line_of(change), change.old)[:1]]
    place = min(syntax.before(site) for site in (start, *made))
    text = "".join(f"{row}{line}" for row in [*rows, "", ""])
    return name, [Edit(place, place, text)]


# -- calls in a forward ------------------------------------------------------------------------------------------------


def _around_calls(syntax: Syntax, group: Sequence[Change]) -> list[Edit]:
    change = group[0]
    if change.end is None or (len({each.place for each in group}) != change.of):
        raise NoEditError(f"line {line_of(change)} calls layers that get no skip, too")
    if change.end.line == line_of(change):
        found = [call for call in at_line(syntax, change.end.line) if _depth(syntax, call, change.size)]
        whole = [call for call in found if not any(_feeds(syntax, call, other) for other in found)]
        if len(whole) != 1 or change.of > 1:
            raise NoEditError(f"the calls of line {line_of(change)} are not written one inside the other")
        return _around_nested(syntax, whole[0], change)
    return _around_statements(syntax, change)


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


def _around_nested(syntax: Syntax, call: cst.Call, change: Change) -> list[Edit]:
    """`x = f(g(x))` becomes `x = x + f(g(x))`."""
    source = _depth(syntax, call, change.size)
    assert source is not None
    statement = syntax.statement(call)
    target = _assigned(syntax, call, statement)
    if not change.partial:
        return _sum(syntax, call, syntax.source(source), alone=_is_alone(syntax, call))
    if not target:
        raise NoEditError(f"line {line_of(change)} assigns its block to no name")
    fresh, x = syntax.fresh("y"), syntax.source(source)
    end = syntax.span(statement)[1]
    start = syntax.span(statement)[0]
    line = f"{syntax.newline}{syntax.indent(statement)}"
    value = syntax.span(call)[0]
    return [
        Edit(start, value, f"{fresh} = "),
        Edit(end, end, f"{line}{target} = {x} + {fresh} if {x}.shape == {fresh}.shape else {fresh}", STATEMENT),
    ]


def _around_statements(syntax: Syntax, change: Change) -> list[Edit]:
    """The block's calls in several statements: its input is kept before the first and added in the last."""
    line = change.end.line if change.end else 0
    firsts = [c for c in at_line(syntax, line_of(change)) if _depth(syntax, c, 1)]
    lasts = [c for c in at_line(syntax, line) if _depth(syntax, c, 1) and _assigned(syntax, c, syntax.statement(c))]
    firsts = [c for c in firsts if not any(_feeds(syntax, c, o) for o in lasts)]
    if len(firsts) != 1 or len(lasts) != 1 or change.partial:
        raise NoEditError(f"the block of line {line_of(change)} is not written one call a statement")
    first, last = syntax.statement(firsts[0]), syntax.statement(lasts[0])
    source = _depth(syntax, firsts[0], 1)
    if syntax.parent(first) is not syntax.parent(last) or source is None:
        raise NoEditError(f"the block of line {line_of(change)} ends elsewhere")
    name = syntax.fresh("skip")
    start = syntax.span(first)[0]
    kept = f"{name} = {syntax.source(source)}{syntax.newline}{syntax.indent(first)}"
    return [Edit(start, start, kept), *_sum(syntax, lasts[0], name, alone=True)]


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
