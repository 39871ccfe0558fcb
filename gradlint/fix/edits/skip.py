"""Skips in the source: members of a Sequential in a module that adds its input, or sums in a forward."""

from __future__ import annotations

from collections.abc import Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.norm import appended
from gradlint.fix.edits.sites import by_site, constructions, line_of, selected
from gradlint.fix.edits.sums import OUTER, around_calls, projection
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import Edit, NoEditError

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
        name = residual(syntax, starts[:1], rows)
        for start in starts:
            closing = _projection(syntax, start, group)
            edits += [*_around_members(syntax, start, change, name[0], closing), *name[1]]
            within.append(start)
    for group in by_site([change for change in changes if change.name]):
        edits += around_calls(syntax, group)
    return edits, within


# -- members of a Sequential -------------------------------------------------------------------------------------------


def _projection(syntax: Syntax, start: cst.Call, group: Sequence[Change]) -> str:
    """The argument that projects the block's input, from the widths of its first layer; empty for an identity."""
    made = projection(syntax, start, group, "None")
    return f", skip={made}" if made else ""


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


def residual(syntax: Syntax, users: Sequence[cst.CSTNode], changes: Sequence[Change]) -> tuple[str, list[Edit]]:
    """The name of the class that adds its input, and the edit that defines it before its first use."""
    partial = any(change.partial for change in changes)
    name, (step, line) = syntax.fresh(NAME), (syntax.module.default_indent, syntax.newline)
    nn = syntax.owner("torch.nn")
    if partial and any(change.stride for change in changes):
        raise NoEditError("some blocks take no projection")
    if any(change.stride for change in changes):
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
    place = min(syntax.before(site) for site in (*users, *made))
    text = "".join(f"{row}{line}" for row in [*rows, "", ""])
    return name, [Edit(place, place, text)]
