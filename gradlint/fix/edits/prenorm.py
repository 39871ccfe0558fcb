"""Post-norm made pre-norm in the source: norms of sums go before the branches, and a final norm after the last sum."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.scope import Scope, constructor
from gradlint.fix.edits.sites import at_line, constructions, is_pure, line_of
from gradlint.fix.edits.syntax import Syntax, inside
from gradlint.fix.edits.text import STATEMENT, Edit, NoEditError, line_end

FIRST = "norm_first"
FINAL = "final_norm"


@dataclass(frozen=True)
class Sum:
    """`norm(x + branch)` in a forward: the call of the norm, the statement of the sum, and the sum's two sides.

    `body` are the statements of the block, up to and including that of the sum. `apart` is the statement of the norm
    where that is another one.
    """

    norm: cst.Call
    body: Sequence[cst.BaseStatement]
    skip: cst.Name
    branch: cst.BaseExpression
    apart: cst.BaseStatement | None = None


def moved(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that move norms before the branches and add the final ones. Raises NoEditError without a place."""
    edits: list[Edit] = []
    for change in changes:
        if change.kind == "final-norm":
            edits += _final(syntax, change)
        else:
            edits += _argument(syntax, change) if change.old else _statement(syntax, change)
    return edits


# -- torch's own layers ------------------------------------------------------------------------------------------------


def _argument(syntax: Syntax, change: Change) -> list[Edit]:
    """`norm_first=True` where the line constructs the layers."""
    calls = constructions(syntax, line_of(change), change.old)
    calls = calls or constructions(syntax, line_of(change), "Transformer")
    if len(calls) != 1:
        raise NoEditError(f"line {line_of(change)} does not write out its {change.old}")
    return [_given(syntax, calls[0], FIRST, "True")]


def _given(syntax: Syntax, call: cst.Call, keyword: str, text: str) -> Edit:
    """The edit that gives a call an argument by its name, after the others."""
    known = [arg.value for arg in call.args if arg.keyword is not None and arg.keyword.value == keyword]
    if known:
        return syntax.replace(known[0], text)
    if not call.args or any(arg.star for arg in call.args):
        raise NoEditError(f"line {syntax.lines(call).start} does not write out the arguments")
    end = syntax.span(call.args[-1].value)[1]
    return Edit(end, end, f", {keyword}={text}")


# -- a forward ---------------------------------------------------------------------------------------------------------


def _statement(syntax: Syntax, change: Change) -> list[Edit]:
    """`x = norm(x + f(x))` becomes `x = x + f(norm(x))`, with a name for `norm(x)` where the branch reads x again."""
    found = [each for call in at_line(syntax, line_of(change)) if (each := _sum(syntax, call)) is not None]
    if len(found) != 1:
        raise NoEditError(f"line {line_of(change)} does not normalise one sum")
    (block,) = found
    x = block.skip.value
    reads = [(each, name) for each in block.body for name in _reads(syntax, each, x) if name is not block.skip]
    written = f"{syntax.source(block.norm.func)}({x})"
    if not reads:
        raise NoEditError(f"the branch of line {line_of(change)} does not read {x}")
    freed = _freed(syntax, block)
    if len(reads) == 1:
        return [*freed, syntax.replace(reads[0][1], written)]
    first, name = reads[0][0], syntax.fresh("normed")
    start = syntax.span(first)[0]
    kept = Edit(start, start, f"{name} = {written}{syntax.newline}{syntax.indent(first)}")
    return [kept, *freed, *(syntax.replace(read, name) for _, read in reads)]


def _sum(syntax: Syntax, norm: cst.Call) -> Sum | None:
    """The sum that the call normalises: its argument, or what the statement before assigned to its argument."""
    if len(norm.args) != 1 or norm.args[0].keyword is not None or norm.args[0].star or not is_pure(norm.func):
        return None
    statement = syntax.statement(norm)
    block = syntax.parent(statement)
    body = list(block.body) if isinstance(block, cst.IndentedBlock) else []
    if statement not in body or not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) != 1:
        return None
    place, given = body.index(statement), norm.args[0].value
    if isinstance(given, cst.BinaryOperation):
        return _sides(syntax, norm, given, body[: place + 1])
    before = body[place - 1] if place else None
    small = before.body[0] if isinstance(before, cst.SimpleStatementLine) and len(before.body) == 1 else None
    if not isinstance(given, cst.Name) or not _assigns(statement, norm):
        return None
    if isinstance(small, cst.Assign) and isinstance(small.value, cst.BinaryOperation) and _binds(small, given.value):
        return _sides(syntax, norm, small.value, body[:place], statement)
    if isinstance(small, cst.AugAssign) and isinstance(small.operator, cst.AddAssign) and _binds(small, given.value):
        target = cst.ensure_type(small.target, cst.Name)
        return _made(syntax, Sum(norm, body[:place], target, small.value, statement))
    return None


def _sides(
    syntax: Syntax,
    norm: cst.Call,
    whole: cst.BinaryOperation,
    body: Sequence[cst.BaseStatement],
    apart: cst.BaseStatement | None = None,
) -> Sum | None:
    if not isinstance(whole.operator, cst.Add):
        return None
    for skip, branch in ((whole.left, whole.right), (whole.right, whole.left)):
        if isinstance(skip, cst.Name):
            found = _made(syntax, Sum(norm, body, skip, branch, apart))
            if found is not None:
                return found
    return None


def _made(syntax: Syntax, block: Sum) -> Sum | None:
    """The sum with the statements that may be the branch's; None when its other side is not made of the skip's name."""
    x, last = block.skip.value, len(block.body) - 1
    start = max((i + 1 for i, each in enumerate(block.body[:last]) if _rebinds(each, x)), default=0)
    body = block.body[start:]
    made = {node.value for node in inside(block.branch, cst.Name)}
    for each in reversed(body[:-1]):
        if any(_rebinds(each, name) for name in made):
            made |= {node.value for node in _loads(syntax, each)}
    return Sum(block.norm, body, block.skip, block.branch, block.apart) if x in made else None


def _freed(syntax: Syntax, block: Sum) -> list[Edit]:
    """The edits that take the norm off its sum."""
    (start, end), given = syntax.span(block.norm), block.norm.args[0].value
    first, last = syntax.span(given)
    if block.apart is None:
        if len(syntax.lines(block.norm)) > 1:  # the brackets stay
            return [syntax.replace(block.norm.func, "")]
        return [Edit(start, first, ""), Edit(last, end, "")]
    small = cst.ensure_type(block.apart, cst.SimpleStatementLine).body[0]
    if not _binds(cst.ensure_type(small, cst.Assign), syntax.source(given)):
        return [Edit(start, first, ""), Edit(last, end, "")]
    start, end = syntax.span(block.apart)
    rest = syntax.text[end : line_end(syntax.text, end)]
    if rest.strip():
        return [Edit(start, end + len(rest) - len(rest.lstrip()), "")]  # a comment stays
    before = syntax.text[:start].rstrip(b" \t")
    return [Edit(len(before.removesuffix(b"\n").removesuffix(b"\r")), end, "")]


def _reads(syntax: Syntax, statement: cst.BaseStatement, name: str) -> list[cst.Name]:
    """Where the statement reads the variable. Raises NoEditError for one that does something else with it."""
    found = [node for node in _loads(syntax, statement) if node.value == name]
    plain = isinstance(statement, cst.SimpleStatementLine) and isinstance(
        statement.body[0], (cst.Assign, cst.AnnAssign, cst.AugAssign, cst.Return)
    )
    if found and not plain:
        raise NoEditError(f"{name} is read before the sum of line {syntax.lines(statement).start}")
    return found


def _loads(syntax: Syntax, node: cst.CSTNode) -> Iterator[cst.Name]:
    """The names that are read as variables, in their order."""
    for name in sorted(inside(node, cst.Name), key=lambda each: syntax.span(each)[0]):
        parent = syntax.parent(name)
        attribute = isinstance(parent, cst.Attribute) and parent.attr is name
        keyword = isinstance(parent, cst.Arg) and parent.keyword is name
        target = isinstance(parent, (cst.AssignTarget, cst.AugAssign)) and parent.target is name
        element = isinstance(parent, cst.Element) and any(
            isinstance(outer, cst.AssignTarget) for outer, _ in syntax.around(name)
        )
        if not (attribute or keyword or target or element):
            yield name


def _rebinds(node: cst.CSTNode, name: str) -> bool:
    """Whether an assignment in the statement gives the variable another value."""
    assigned = any(_binds(each, name) for each in inside(node, cst.Assign))
    return assigned or any(_binds(each, name) for each in inside(node, cst.AugAssign))


def _binds(node: cst.Assign | cst.AugAssign, name: str) -> bool:
    return any(isinstance(each, cst.Name) and each.value == name for each in _targets(node))


def _targets(node: cst.Assign | cst.AugAssign) -> Iterator[cst.BaseExpression]:
    for target in [node.target] if isinstance(node, cst.AugAssign) else [each.target for each in node.targets]:
        if isinstance(target, cst.Tuple):
            yield from (element.value for element in target.elements)
        else:
            yield target


def _assigns(statement: cst.SimpleStatementLine, call: cst.Call) -> bool:
    small = statement.body[0]
    return isinstance(small, cst.Assign) and small.value is call and len(small.targets) == 1


# -- the final norm ----------------------------------------------------------------------------------------------------


def _final(syntax: Syntax, change: Change) -> list[Edit]:
    """The norm as an argument of torch's stack, or an attribute that the forward calls after the last block."""
    made = f"{syntax.owner('torch.nn')}.{change.new}"
    if change.types[1].startswith("Transformer"):
        calls = constructions(syntax, line_of(change), change.types[1])
        if len(calls) != 1:
            raise NoEditError(f"line {line_of(change)} does not write out its {change.types[1]}")
        return [_given(syntax, calls[0], "norm", f"{made}({_width(syntax, calls[0], change)})")]
    owners = [node for node in syntax.all(cst.ClassDef) if node.name.value == change.types[1]]
    if len(owners) != 1:
        raise NoEditError(f"the file has no class {change.types[1]}")
    name = f"self.{syntax.fresh(FINAL)}"
    scope = Scope(syntax, "self", constructor(owners[0]), owners[0])
    added = scope.appended([f"{name} = {made}({change.module}.normalized_shape)"])
    return [*added, *_called(syntax, owners[0], change, name)]


def _width(syntax: Syntax, stack: cst.Call, change: Change) -> str:
    """The width as the layer of the stack is given it by the same function, or as a number."""
    layer = change.types[1].replace("coder", "coderLayer")
    around = [parent for parent, _ in syntax.around(stack) if isinstance(parent, cst.FunctionDef)][:1]
    made = [
        call
        for call in (inside(around[0], cst.Call) if around else ())
        if any(name.rpartition(".")[2] == layer for name in syntax.names(call.func))
    ]
    given = [arg for call in made for arg in call.args if arg.keyword is None or arg.keyword.value == "d_model"]
    first = given[0] if len(made) == 1 and given else None
    written = first is not None and not first.star and is_pure(first.value)
    return syntax.source(first.value) if written and first is not None else str(change.size)


def _called(syntax: Syntax, owner: cst.ClassDef, change: Change, name: str) -> list[Edit]:
    """The call of the final norm: around that of the last block, or after the loop over the blocks."""
    call = _last_call(syntax, owner, change)
    loop = next((p for p, _ in reversed(list(syntax.around(call))) if isinstance(p, cst.For)), None)
    statement = syntax.statement(call)
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) and len(statement.body) == 1 else None
    if loop is None and change.old:
        start, end = syntax.span(call)
        return [Edit(start, start, f"{name}(", -2), Edit(end, end, ")", 2)]
    if isinstance(small, cst.Return) and small.value is not None and loop is None:
        start, end = syntax.span(small.value)
        return [Edit(start, start, f"{name}(", -2), Edit(end, end, ")", 2)]
    target = small.targets[0].target if isinstance(small, cst.Assign) and len(small.targets) == 1 else None
    if not isinstance(target, cst.Name):
        raise NoEditError(f"line {line_of(change)} assigns its block to no name")
    after = loop or statement
    end = syntax.end(after) if loop is not None else line_end(syntax.text, syntax.span(after)[1])
    text = f"{syntax.newline}{syntax.indent(after)}{target.value} = {name}({target.value})"
    return [Edit(end, end, text, STATEMENT)]


def _last_call(syntax: Syntax, owner: cst.ClassDef, change: Change) -> cst.Call:
    """The call of what the attribute holds, or that of the norm itself where the owner's forward makes it."""
    calls = [call for call in syntax.all(cst.Call) if any(parent is owner for parent, _ in syntax.around(call))]
    if change.old:
        held = f"self.{change.old}"
        found = [c for c in calls if _is_of(syntax, c, held)]
    else:
        found = [c for c in calls if line_of(change) in syntax.lines(c) and _sum(syntax, c) is not None]
    if len(found) != 1:
        raise NoEditError(f"the blocks of {owner.name.value} are called at {len(found)} places")
    return found[0]


def _is_of(syntax: Syntax, call: cst.Call, held: str) -> bool:
    """Whether the call is of the attribute, of one of its items, or of the variable of a loop over it."""
    func = syntax.source(call.func)
    if func == held or func.startswith(f"{held}["):
        return True
    loops = [parent for parent, _ in syntax.around(call) if isinstance(parent, cst.For)]
    return any(
        held in {syntax.source(each) for each in inside(loop.iter, cst.Attribute)}
        and any(node.value == func for node in inside(loop.target, cst.Name))
        for loop in loops
    )
