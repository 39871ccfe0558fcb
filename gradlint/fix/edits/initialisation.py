"""Initialisations in the source: calls of `nn.init` rewritten, or a method that `__init__` calls at its end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.syntax import Syntax, inside
from gradlint.fix.edits.text import Edit, NoEditError

MOST_NAMED = 8  # layers that the generated method names one by one
MOST_LEFT = 3  # layers that it leaves out by name
METHOD = "_init_weights"
DRAWS = frozenset({"normal_", "uniform_", "fill_", "zero_"})  # methods of a tensor that overwrite it
KAIMING: tuple[tuple[float, str], ...] = (
    (math.sqrt(2.0), 'nonlinearity="relu"'),
    (math.sqrt(2.0 / (1.0 + 0.01**2)), 'a=0.01, nonlinearity="leaky_relu"'),
    (math.sqrt(2.0 / (1.0 + 0.25**2)), 'a=0.25, nonlinearity="leaky_relu"'),
)


def initialised(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that draw the weights as the changes say. Raises NoEditError when they have no place in this file."""
    drawn = [change for change in changes if change.kind == "init"]
    groups = _groups(drawn)
    if calls := _weight_calls(syntax, drawn):
        return [_rewritten(syntax, call, groups[0][0]) for call in calls]
    return _generated(syntax, groups, [change for change in changes if change.kind == "untouched"])


def _groups(changes: Iterable[Change]) -> list[list[Change]]:
    """The layers by what is drawn for them, most of them first."""
    groups: dict[tuple[str, float], list[Change]] = defaultdict(list)
    for change in changes:
        groups[change.new, round(change.gain, 4)].append(change)
    return sorted(groups.values(), key=len, reverse=True)


# -- calls that are there ----------------------------------------------------------------------------------------------


def _weight_calls(syntax: Syntax, changes: Sequence[Change]) -> list[cst.Call]:
    """The calls that initialise weights of these layers' classes."""
    types = {change.types[0] for change in changes}
    calls = [call for call in syntax.all(cst.Call) if _drawn_weight(syntax, call) is not None]
    return [call for call in calls if _guarding(syntax, call) <= types]


def _drawn_weight(syntax: Syntax, call: cst.Call) -> str | None:
    """The weight that the call overwrites, as it is written: "m.weight"; None for any other call."""
    names = syntax.names(call.func)
    if any(name.startswith("torch.nn.init.") for name in names) and call.args:
        written = syntax.source(call.args[0].value)
        return written if written.endswith(".weight") else None
    if isinstance(call.func, cst.Attribute) and call.func.attr.value in DRAWS:
        written = syntax.source(call.func.value).removesuffix(".data")
        return written if written.endswith(".weight") else None
    return None


def _guarding(syntax: Syntax, call: cst.Call) -> set[str]:
    """The classes that an `isinstance` around the call asks for; none without one."""
    for parent, child in syntax.around(call):
        if isinstance(parent, cst.If) and parent.body is child:
            tests = (c for c in inside(parent.test, cst.Call) if syntax.source(c.func) == "isinstance")
            named = [c.args[1].value for c in tests if len(c.args) == 2]
            nodes = [n for value in named for n in (*inside(value, cst.Attribute), *inside(value, cst.Name))]
            found = {name.rpartition(".")[2] for n in nodes for name in syntax.names(n)}
            return {name for name in found if name[:1].isupper()}
    return set()


def _rewritten(syntax: Syntax, call: cst.Call, change: Change) -> Edit:
    weight = str(_drawn_weight(syntax, call))
    return syntax.replace(call, _draw(syntax, weight.removesuffix(".weight"), change))


# -- a method that is generated ----------------------------------------------------------------------------------------


def _generated(syntax: Syntax, groups: Sequence[Sequence[Change]], rest: Sequence[Change]) -> list[Edit]:
    owner, constructor = _root(syntax, groups[0][0].types[1])
    if any(f.name.value == METHOD for f in owner.body.body if isinstance(f, cst.FunctionDef)):
        raise NoEditError(f"the class has a method {METHOD} of its own")
    (self_, *_) = [param.name.value for param in constructor.params.params] or [""]
    if self_ != "self":
        raise NoEditError("__init__ does not call its instance self")
    outer, step = syntax.indent(constructor), syntax.module.default_indent
    line = syntax.module.default_newline
    first, *others = groups
    named = [change for group in others for change in group]
    if len(named) > MOST_NAMED:
        raise NoEditError("the layers need many different initialisations")
    body = [f"def {METHOD}(self):", *_loop(syntax, first, [*named, *rest], step)]
    for change in named:
        body += [f"{step}{text}" for text in _drawing(syntax, change.module, change, optional=False)]
    text = "".join(f"{line}{outer}{row}" for row in body)
    end = syntax.end(constructor)
    return [Edit(end, end, f"{line}{outer}{step}self.{METHOD}(){line}{text}")]


def _root(syntax: Syntax, name: str) -> tuple[cst.ClassDef, cst.FunctionDef]:
    """The model's class and its `__init__`."""
    classes = [node for node in syntax.all(cst.ClassDef) if node.name.value == name]
    owner = classes[0] if len(classes) == 1 else None
    body = owner.body.body if owner is not None else ()
    found = [f for f in body if isinstance(f, cst.FunctionDef) and f.name.value == "__init__"]
    if owner is None or len(found) != 1 or not isinstance(found[0].body, cst.IndentedBlock):
        raise NoEditError(f"the file has no class {name} with an __init__")
    return owner, found[0]


def _loop(syntax: Syntax, group: Sequence[Change], rest: Sequence[Change], step: str) -> list[str]:
    """The statements that draw the weights of a group of layers, and of none of the rest."""
    kinds = sorted({change.types[0] for change in group})
    left = [change.module for change in rest if change.types[0] in kinds]
    optional = len({change.bias for change in group}) > 1
    draw = _drawing(syntax, "module", group[0], optional=optional)
    if len(left) > MOST_LEFT:
        if len(group) > MOST_NAMED:
            raise NoEditError("too many layers to name")
        names = ", ".join(change.module for change in group)
        return [f"{step}for module in ({names}{',' * (len(group) == 1)}):", *(f"{step * 2}{text}" for text in draw)]
    owner = _owner(syntax)
    listed = ", ".join(f"{owner}.{kind}" for kind in kinds)
    test = " and ".join(
        [
            f"isinstance(module, {listed if len(kinds) == 1 else f'({listed})'})",
            *(f"module is not {name}" for name in left),
        ]
    )
    head = [f"{step}for module in self.modules():", f"{step * 2}if {test}:"]
    return [*head, *(f"{step * 3}{text}" for text in draw)]


def _drawing(syntax: Syntax, module: str, change: Change, *, optional: bool) -> list[str]:
    """The statements that draw one layer's weight and bias; `optional` where some of a group have no bias."""
    weight = _draw(syntax, module, change)
    zeros = f"{_owner(syntax)}.init.zeros_({module}.bias)"
    if optional:
        return [weight, f"if {module}.bias is not None:", f"{syntax.module.default_indent}{zeros}"]
    return [weight, zeros] if change.bias == "zeros" else [weight]


def _draw(syntax: Syntax, module: str, change: Change) -> str:
    return DRAW[change.new](f"{_owner(syntax)}.init", module, change.gain)


def _owner(syntax: Syntax) -> str:
    owner = syntax.alias("torch.nn")
    if owner is None:
        raise NoEditError("the file does not import torch.nn")
    return owner


def _kaiming(init: str, module: str, gain: float) -> str:
    for known, arguments in KAIMING:
        if math.isclose(known, gain, rel_tol=1e-6):
            return f"{init}.kaiming_normal_({module}.weight, {arguments})"
    return _normal(init, module, gain)


def _lecun(init: str, module: str, gain: float) -> str:
    return f'{init}.kaiming_normal_({module}.weight, nonlinearity="linear")'


def _normal(init: str, module: str, gain: float) -> str:
    return f"{init}.normal_({module}.weight, std={gain:.4g} / {module}.weight[0].numel() ** 0.5)"


def _xavier(init: str, module: str, gain: float) -> str:
    return f"{init}.xavier_normal_({module}.weight{_gain(gain)})"


def _orthogonal(init: str, module: str, gain: float) -> str:
    return f"{init}.orthogonal_({module}.weight{_gain(gain)})"


def _default(init: str, module: str, gain: float) -> str:
    return f"{module}.reset_parameters()"


def _gain(gain: float) -> str:
    return "" if math.isclose(gain, 1.0) else f", gain={gain:.4g}"


DRAW: Mapping[str, Callable[[str, str, float], str]] = {
    "kaiming_normal": _kaiming,
    "lecun_normal": _lecun,
    "normal": _normal,
    "xavier_normal": _xavier,
    "orthogonal": _orthogonal,
    "default": _default,
}
