"""Calls in the source that draw weights, and which of a model's layers each of them draws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.syntax import Syntax, inside, string

DRAWS = frozenset({"normal_", "uniform_", "fill_", "zero_"})  # methods of a tensor that overwrite it
LISTED = frozenset({"parameters", "named_parameters"})  # methods of a module that give its parameters
DIMENSIONS = ("dim()", "ndim", "shape", "size()")  # what a test of a parameter's rank asks


@dataclass(frozen=True)
class Drawing:
    """A call, the tensor that it overwrites as it is written, and the changes that are about layers it draws.

    `bare` tells a parameter of any rank, in a loop over all of them, from the weight of a layer.
    """

    call: cst.Call
    tensor: str
    changes: tuple[Change, ...]
    bare: bool = False


def drawings(syntax: Syntax, changes: Sequence[Change]) -> list[Drawing]:
    """The calls that draw the weights of these layers; none where some layer's weight is drawn by no call of the file.

    Torch draws such a weight itself, so that rewriting the calls there are would leave it.
    """
    strange = _strangers(syntax, changes[0].types[1]) if changes else set()
    calls = (call for call in syntax.all(cst.Call) if not strange & {parent for parent, _ in syntax.around(call)})
    found = [each for call in calls if (each := _drawing(syntax, call, changes)) is not None]
    drawn = {id(change) for each in found for change in each.changes}
    return found if all(id(change) in drawn for change in changes) else []


def _strangers(syntax: Syntax, root: str) -> set[cst.CSTNode]:
    """The classes of the file that the model's class does not come to by name; none where it is of another file."""
    classes = {node.name.value: node for node in syntax.all(cst.ClassDef)}
    known, waiting = set[str](), [root] if root in classes else []
    while waiting:
        name = waiting.pop()
        known.add(name)
        waiting += {node.value for node in inside(classes[name], cst.Name)} & classes.keys() - known
    # what a function makes of classes is known to no class: a factory of blocks
    made = {node.value for f in syntax.all(cst.FunctionDef) if _is_free(syntax, f) for node in inside(f, cst.Name)}
    return {node for name, node in classes.items() if known and name not in known | made}


def _is_free(syntax: Syntax, function: cst.FunctionDef) -> bool:
    return not any(isinstance(parent, cst.ClassDef) for parent, _ in syntax.around(function))


def _drawing(syntax: Syntax, call: cst.Call, changes: Sequence[Change]) -> Drawing | None:
    tensor = _overwritten(syntax, call)
    if tensor is None:
        return None
    bare, module = _is_listed(syntax, call, tensor), tensor.removesuffix(".weight")
    if (not bare and module == tensor) or (bare and not _takes_weights(syntax, call)):
        return None
    about = tuple(change for change in changes if bare or _is_about(syntax, call, module, change))
    others = {name for name in _asked(syntax, call) if not any(_fits(name, change.types[0]) for change in changes)}
    return Drawing(call, tensor, about, bare) if about and not others else None


def _overwritten(syntax: Syntax, call: cst.Call) -> str | None:
    """The tensor that the call overwrites, as it is written: "m.weight"; None for any other call."""
    if any(name.startswith("torch.nn.init.") for name in syntax.names(call.func)) and call.args:
        return syntax.source(call.args[0].value).removesuffix(".data")
    if isinstance(call.func, cst.Attribute) and call.func.attr.value in DRAWS:
        return syntax.source(call.func.value).removesuffix(".data")
    return None


def _is_listed(syntax: Syntax, call: cst.Call, tensor: str) -> bool:
    """Whether the name is that of a parameter in a loop over all of a module's."""
    for parent, _ in syntax.around(call):
        if isinstance(parent, cst.For) and isinstance(parent.iter, cst.Call):
            func = parent.iter.func
            names = {node.value for node in inside(parent.target, cst.Name)}
            return tensor in names and isinstance(func, cst.Attribute) and func.attr.value in LISTED
    return False


def _takes_weights(syntax: Syntax, call: cst.Call) -> bool:
    """Whether the tests around a call in a loop over parameters let the weights of all layers pass."""
    comparisons = [c for test in _tests(syntax, call) for c in inside(test, cst.Comparison)]
    for each in comparisons:
        operator, asked = each.comparisons[0].operator, string(each.left)
        if asked is not None and isinstance(operator, cst.In) != (asked.strip("._") == "weight"):
            return False
        if asked is None and isinstance(operator, (cst.Equal, cst.LessThan, cst.LessThanEqual)):
            return False
    return True


def _is_about(syntax: Syntax, call: cst.Call, module: str, change: Change) -> bool:
    """Whether the call may draw the change's layer: one of its name, or any that a variable stands for."""
    owner, _, place = module.partition(".")
    if owner == "self" and place:
        return change.module.endswith(f".{place}")
    made = {name.rpartition(".")[2] for name in _made(syntax, call, module)}
    kinds = list(_asked(syntax, call)) or list(made)
    return not kinds or any(_fits(kind, change.types[0]) for kind in kinds)


def _made(syntax: Syntax, call: cst.Call, name: str) -> Iterator[str]:
    """The classes that the function around the call assigns to the variable."""
    around = next((parent for parent, _ in syntax.around(call) if isinstance(parent, cst.FunctionDef)), syntax.module)
    for assign in inside(around, cst.Assign):
        if isinstance(assign.value, cst.Call) and [syntax.source(t.target) for t in assign.targets] == [name]:
            yield from syntax.names(assign.value.func)


def _asked(syntax: Syntax, call: cst.Call) -> Iterator[str]:
    """The classes of the layer that the tests around the call ask for: "Conv2d", or "Conv*" for a part of a name."""
    for test in _tests(syntax, call):
        yield from _classes(syntax, test)


def _tests(syntax: Syntax, call: cst.Call) -> Iterator[cst.BaseExpression]:
    """The tests that hold where the call is made, up to the function around it."""
    for parent, child in syntax.around(call):
        if isinstance(parent, cst.FunctionDef):
            return
        if isinstance(parent, cst.If) and parent.body is child:
            yield parent.test


def _classes(syntax: Syntax, test: cst.BaseExpression) -> Iterator[str]:
    """What a test compares a class, or its name, with."""
    for text in (string(node) for node in inside(test, cst.SimpleString)):
        if text and text[:1].isupper():
            yield f"{text}*"
    for node in (*inside(test, cst.Attribute), *inside(test, cst.Name)):
        if not _within_attribute(syntax, node):
            last = {name.rpartition(".")[2] for name in syntax.names(node)}
            yield from (name for name in last if name.lstrip("_")[:1].isupper())


def _within_attribute(syntax: Syntax, node: cst.CSTNode) -> bool:
    return isinstance(syntax.parent(node), cst.Attribute)


def _fits(asked: str, kind: str) -> bool:
    return asked.removesuffix("*") in kind if asked.endswith("*") else asked == kind


def asks_rank(syntax: Syntax, call: cst.Call) -> bool:
    """Whether a test around the call asks how many axes the tensor has."""
    return any(word in syntax.source(test) for test in _tests(syntax, call) for word in DIMENSIONS)
