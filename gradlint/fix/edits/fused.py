"""Functions written out in steps that round to 0 or overflow, as the one call that does not: log(softmax(z)) …"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.sites import at_line, by_site, is_pure, is_tight, line_of
from gradlint.fix.edits.spelling import classes, functions, new_function
from gradlint.fix.edits.syntax import Syntax, inside
from gradlint.fix.edits.text import Edit, NoEditError

HOISTED = "logits"  # what an expression is called that had no name


@dataclass(frozen=True)
class Operand:
    """What goes into the first of the functions, as the last one's line may write it, and the arguments beside it."""

    text: str
    tight: bool
    beside: tuple[str, ...] = ()
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Site:
    """The expression that a change replaces, and what its outer function is about."""

    change: Change
    node: cst.BaseExpression
    argument: cst.BaseExpression


@dataclass(frozen=True)
class Sites:
    """All that is replaced in a file, and the names that expressions are given for it."""

    all: tuple[Site, ...]
    names: dict[int, str] = field(default_factory=dict)

    def name(self, syntax: Syntax, value: cst.BaseExpression) -> str:
        """A name that the file does not have, the same for the same expression."""
        number = len(self.names)
        return self.names.setdefault(id(value), syntax.fresh(f"{HOISTED}{number or ''}"))


def fused(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that put one function in the place of several. Raises NoEditError when they are written otherwise."""
    sites = Sites(tuple(site for group in by_site(changes) for site in _sites(syntax, group)))
    edits: list[Edit] = []
    for site in sites.all:
        operand = WRITTEN[site.change.new](syntax, site, sites)
        edits += [*_call(syntax, site, operand), *operand.edits]
    return edits


def _sites(syntax: Syntax, group: Sequence[Change]) -> list[Site]:
    """The calls on the line of what the changes call last, or its quotients."""
    change, line = group[0], line_of(group[0])
    if change.old == "div":
        nodes = [n for n in syntax.all(cst.BinaryOperation) if isinstance(n.operator, cst.Divide)]
        found = [Site(change, node, node.left) for node in nodes if line in syntax.lines(node)]
    else:
        calls = [(call, _about(syntax, call, change.old)) for call in at_line(syntax, line)]
        found = [Site(change, call, argument) for call, argument in calls if argument is not None]
    if len(found) != change.of:
        raise NoEditError(f"line {line} does not write out its {change.old}")
    return [Site(each, found[each.place].node, found[each.place].argument) for each in group]


def _about(syntax: Syntax, call: cst.Call, function: str) -> cst.BaseExpression | None:
    """What a call of the function is about: torch.log(x), x.log(), or a module that an attribute holds."""
    names = syntax.names(call.func)
    if names & functions(function) or _holds(syntax, call.func, function):
        first = call.args[0] if call.args else None
        plain = first is not None and not first.star and (first.keyword is None or first.keyword.value == "input")
        return first.value if plain and first is not None else None
    func = call.func
    method = isinstance(func, cst.Attribute) and func.attr.value == function
    return func.value if isinstance(func, cst.Attribute) and method and not _is_torch(names) else None


def _is_torch(names: set[str]) -> bool:
    return any(name.startswith("torch.") for name in names)


def _holds(syntax: Syntax, func: cst.BaseExpression, function: str) -> bool:
    """Whether the expression is an attribute that the file assigns torch's module for the function and nothing else."""
    written = syntax.source(func)
    made = [a.value for a in syntax.all(cst.Assign) if [syntax.source(t.target) for t in a.targets] == [written]]
    calls = [value for value in made if isinstance(value, cst.Call) and syntax.names(value.func) & classes(function)]
    return bool(written.startswith("self.") and calls) and len(calls) == len(made)


# -- what goes in ------------------------------------------------------------------------------------------------------


def _squashed(syntax: Syntax, site: Site, sites: Sites) -> Operand:
    """Of log(f(z)): z, and what f takes beside it; shapes may change between the two."""
    return _inner(syntax, site, site.argument, site.change.last, sites)


def _complement(syntax: Syntax, site: Site, sites: Sites) -> Operand:
    """Of log(1 - f(z)): -z."""
    node = _value(syntax, site.argument)
    one = node.left if isinstance(node, cst.BinaryOperation) and isinstance(node.operator, cst.Subtract) else None
    if not isinstance(one, (cst.Integer, cst.Float)) or one.evaluated_value != 1:
        raise NoEditError(f"line {line_of(site.change)} does not write out 1 - {site.change.last}")
    found = _inner(syntax, site, cst.ensure_type(node, cst.BinaryOperation).right, site.change.last, sites)
    return Operand(f"-{found.text}" if found.tight else f"-({found.text})", tight=False, edits=found.edits)


def _summed(syntax: Syntax, site: Site, sites: Sites) -> Operand:
    """Of log(Σ exp(z)): z, and the axes of the sum."""
    total = _value(syntax, site.argument)
    argument = _about(syntax, total, "sum") if isinstance(total, cst.Call) else None
    if not isinstance(total, cst.Call) or argument is None:
        raise NoEditError(f"line {line_of(site.change)} does not write out its sum")
    found = _inner(syntax, site, argument, "exp", sites)
    beside = _beside(syntax, total, argument)
    if not beside:
        raise NoEditError("the sum is over all axes")
    return Operand(found.text, found.tight, beside, found.edits)


def _shared(syntax: Syntax, site: Site, sites: Sites) -> Operand:
    """Of exp(z) / Σ exp(z): z, and the axis."""
    found = _inner(syntax, site, site.argument, "exp", sites)
    return Operand(found.text, found.tight, (f"dim={site.change.axis}",), found.edits)


def _inner(syntax: Syntax, site: Site, node: cst.BaseExpression, function: str, sites: Sites) -> Operand:
    """The operand of the function in an expression, or in what the name that is written there was assigned."""
    value = _value(syntax, node)
    call, shaping = _through(syntax, value, function)
    argument = _about(syntax, call, function)
    if argument is None or (shaping and function != "sigmoid"):
        raise NoEditError(f"line {line_of(site.change)} does not write out its {function}")
    beside = _beside(syntax, call, argument)
    if function == "softmax" and (not beside or _holds(syntax, call.func, function)):
        beside = (f"dim={site.change.axis}",)
    text = syntax.source(argument)
    if value is node:
        return Operand(text + shaping, is_tight(argument), beside)
    if not shaping and is_pure(argument) and not _changes(syntax, argument, value, site.node):
        return Operand(text, is_tight(argument), beside, _unused(syntax, node, value, sites))
    name = sites.name(syntax, value)
    return Operand(name, True, beside, tuple(_hoisted(syntax, node, value, call, argument, shaping, name, sites)))


def _value(syntax: Syntax, node: cst.BaseExpression) -> cst.BaseExpression:
    """The expression, or what a name was last assigned in the same row of statements. Raises NoEditError without it."""
    if not isinstance(node, cst.Name):
        return node
    place = syntax.span(syntax.statement(node))[0]
    before = [a for a in _assignments(syntax, node) if syntax.span(a)[0] < place]
    last = max(before, key=lambda assign: syntax.span(assign)[0], default=None)
    blocks = [parent for parent, _ in syntax.around(node)]
    if not isinstance(last, cst.Assign) or not any(syntax.parent(syntax.statement(last)) is each for each in blocks):
        raise NoEditError(f"what {node.value} is assigned depends")
    if not isinstance(last.targets[0].target, cst.Name) or len(last.targets) > 1:
        raise NoEditError(f"{node.value} is assigned with others")
    return last.value


def _assignments(syntax: Syntax, name: cst.Name) -> list[cst.CSTNode]:
    """The statements of the name's function that assign to it."""
    function = _function(syntax, name)
    rows: list[tuple[cst.CSTNode, cst.CSTNode]] = [
        *((node, each.target) for node in inside(function, cst.Assign) for each in node.targets),
        *((node, node.target) for node in inside(function, cst.AugAssign)),
        *((node, node.target) for node in inside(function, cst.For)),
    ]
    return [node for node, target in rows if any(n.value == name.value for n in inside(target, cst.Name))]


def _function(syntax: Syntax, node: cst.CSTNode) -> cst.CSTNode:
    return next((parent for parent, _ in syntax.around(node) if isinstance(parent, cst.FunctionDef)), syntax.module)


def _through(syntax: Syntax, node: cst.BaseExpression, function: str) -> tuple[cst.Call, str]:
    """The call of the function behind methods such as .squeeze(-1), and those as they are written."""
    end = syntax.span(node)[1]
    while isinstance(node, cst.Call) and _about(syntax, node, function) is None:
        inner = node.func.value if isinstance(node.func, cst.Attribute) else None
        if not isinstance(inner, cst.Call):
            break
        node = inner
    if not isinstance(node, cst.Call):
        raise NoEditError(f"{function} is called elsewhere")
    return node, syntax.text[syntax.span(node)[1] : end].decode()


def _beside(syntax: Syntax, call: cst.Call, argument: cst.BaseExpression) -> tuple[str, ...]:
    return tuple(syntax.source(arg).rstrip(", ") for arg in call.args if arg.value is not argument)


def _changes(syntax: Syntax, argument: cst.BaseExpression, first: cst.CSTNode, last: cst.CSTNode) -> bool:
    """Whether a name in the operand is assigned anew from the first expression's statement to the last one's."""
    start, end = syntax.span(syntax.statement(first))[0], syntax.span(last)[0]
    places = [syntax.span(a)[0] for name in inside(argument, cst.Name) for a in _assignments(syntax, name)]
    return any(start <= place < end for place in places)


def _uses(syntax: Syntax, name: cst.BaseExpression, sites: Sites) -> int:
    """How often the name is read beyond the expressions that are replaced."""
    written = syntax.source(name)
    reads = [n for n in inside(_function(syntax, name), cst.Name) if n.value == written]
    within = [n for site in sites.all for n in inside(site.node, cst.Name)]
    return len(reads) - 1 - sum(any(n is other for other in within) for n in reads)  # one is the assignment


def _unused(syntax: Syntax, name: cst.BaseExpression, value: cst.BaseExpression, sites: Sites) -> tuple[Edit, ...]:
    """The edit that takes the assignment away where nothing reads it any more."""
    statement = syntax.statement(value)
    body = statement.body if isinstance(statement, cst.SimpleStatementLine) else ()
    if _uses(syntax, name, sites) or len(body) != 1 or not _is_row(syntax, statement):
        return ()
    start, end = syntax.span(statement)
    first = max(syntax.text.rfind(b"\n", 0, start), syntax.text.rfind(b"\r", 0, start)) + 1
    last = syntax.text.find(b"\n", end)
    return (Edit(first, last + 1, ""),) if last >= 0 else ()


def _is_row(syntax: Syntax, statement: cst.CSTNode) -> bool:
    """Whether other statements and no comment are left beside the statement."""
    siblings = getattr(syntax.parent(statement), "body", ())
    end = syntax.span(statement)[1]
    stop = syntax.text.find(b"\n", end)
    return len(siblings) > 1 and not syntax.text[end : stop if stop >= 0 else end].strip()


def _hoisted(
    syntax: Syntax,
    name: cst.BaseExpression,
    value: cst.BaseExpression,
    call: cst.Call,
    argument: cst.BaseExpression,
    shaping: str,
    fresh: str,
    sites: Sites,
) -> list[Edit]:
    """The operand given a name of its own before the statement that it stands in."""
    statement, operand = syntax.statement(value), syntax.source(argument)
    if shaping and not is_tight(argument):
        operand = f"({operand})"
    start = syntax.span(statement)[0]
    made = f"{fresh} = {operand}{shaping}"
    if not _uses(syntax, name, sites):
        return [Edit(*syntax.span(statement), made)]
    (first, last), (begin, end) = syntax.span(argument), syntax.span(call)
    text = (syntax.text[begin:first] + fresh.encode() + syntax.text[last:end]).decode()
    row = f"{made}{syntax.newline}{syntax.indent(statement)}"
    return [Edit(start, start, row), syntax.replace(value, text)]


# -- what comes out ----------------------------------------------------------------------------------------------------


def _call(syntax: Syntax, site: Site, operand: Operand) -> list[Edit]:
    function = site.change.new.removeprefix("negative_")
    if function == "logsumexp":
        text = operand.text if operand.tight else f"({operand.text})"
        return [syntax.replace(site.node, f"{text}.logsumexp({', '.join(operand.beside)})")]
    written = syntax.source(site.node.func) if isinstance(site.node, cst.Call) else ""
    new, imports = new_function(syntax, function, written)
    arguments = ", ".join((operand.text, *operand.beside))
    return [syntax.replace(site.node, f"{new}({arguments})"), *imports]


WRITTEN: Mapping[str, Callable[[Syntax, Site, Sites], Operand]] = {
    "log_softmax": _squashed,
    "logsigmoid": _squashed,
    "negative_logsigmoid": _complement,
    "logsumexp": _summed,
    "softmax": _shared,
}
