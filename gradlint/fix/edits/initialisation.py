"""Initialisations in the source: calls of `nn.init` rewritten, or a method that `__init__` calls at its end."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import libcst as cst

from gradlint.finding import Change
from gradlint.fix.edits.drawn import Drawing, asks_rank, drawings
from gradlint.fix.edits.loops import MOST_NAMED, lists, loops
from gradlint.fix.edits.scope import Scope, root
from gradlint.fix.edits.syntax import Syntax
from gradlint.fix.edits.text import DRAWN, METHOD, Edit, NoEditError

GAINED = frozenset({"orthogonal", "xavier_normal"})  # functions of torch.nn.init that take a gain
ROW = 8  # gains on a line of the generated method
MOST_LEFT = 3  # layers that it leaves out by name
METHODS = ("_init_weights", "_draw_weights", "_draw_weights_anew", "_draw_weights_once_more")  # the first that is free
KAIMING: tuple[tuple[float, str], ...] = (
    (math.sqrt(2.0), 'nonlinearity="relu"'),
    (math.sqrt(2.0 / (1.0 + 0.01**2)), 'a=0.01, nonlinearity="leaky_relu"'),
    (math.sqrt(2.0 / (1.0 + 0.25**2)), 'a=0.25, nonlinearity="leaky_relu"'),
)


def initialised(syntax: Syntax, changes: Sequence[Change]) -> list[Edit]:
    """The edits that draw the weights as the changes say. Raises NoEditError when they have no place in this file."""
    drawn = [change for change in changes if change.kind == "init"]
    single = [change for change in changes if change.kind == "draw"]
    groups = _groups(drawn)
    apart = single or _is_table(groups) or any(change.offset for change in drawn)  # the calls draw no bias
    calls = [] if apart else drawings(syntax, drawn)
    if calls and all(_is_alike(call, groups) for call in calls):
        return [_rewritten(syntax, call, groups) for call in calls]
    return _generated(syntax, groups, [change for change in changes if change.kind == "untouched"], single)


def _groups(changes: Iterable[Change]) -> list[list[Change]]:
    """The layers by what is drawn for them, most of them first."""
    groups: dict[tuple[str, float], list[Change]] = defaultdict(list)
    for change in changes:
        groups[change.new, round(change.gain, 4)].append(change)
    return sorted(groups.values(), key=len, reverse=True)


def _is_table(groups: Sequence[Sequence[Change]]) -> bool:
    """Whether the layers are drawn alike but for their gains, and those are many: each is its own."""
    schemes = {change.new for group in groups for change in group}
    return len(groups) > 1 + MOST_NAMED and len(schemes) == 1 and schemes <= GAINED


# -- calls that are there ----------------------------------------------------------------------------------------------


def _is_alike(drawing: Drawing, groups: Sequence[Sequence[Change]]) -> bool:
    """Whether most of the layers that the call draws need the same."""
    about = set(drawing.changes)
    return 2 * max(len(about & set(group)) for group in groups) > len(about)


def _rewritten(syntax: Syntax, drawing: Drawing, groups: Sequence[Sequence[Change]]) -> Edit:
    """The call, drawing as most of its layers need it; a parameter of any rank is first asked for its rank."""
    change = next(group for group in groups if set(group) & set(drawing.changes))[0]
    call, init = drawing.call, f"{syntax.owner('torch.nn')}.init"
    text = DRAW[change.new](init, drawing.tensor, change.gain)
    ranked = not drawing.bare or asks_rank(syntax, call) or not any(each.bias for each in drawing.changes)
    return syntax.replace(call, text) if ranked else _by_rank(syntax, drawing, text, init)


def _by_rank(syntax: Syntax, drawing: Drawing, text: str, init: str) -> Edit:
    """The statement of the call, made one for matrices; what has one axis, such as a bias, becomes zero."""
    statement = syntax.statement(drawing.call)
    if syntax.source(statement).strip() != syntax.source(drawing.call):
        raise NoEditError("the parameters are drawn in the middle of an expression")
    rows = [f"if {drawing.tensor}.dim() > 1:", "\t" + text, "else:", f"\t{init}.zeros_({drawing.tensor})"]
    indent, step = syntax.indent(statement), syntax.module.default_indent
    return syntax.replace(drawing.call, f"{syntax.newline}{indent}".join(rows).replace("\t", step))


# -- a method that is generated ----------------------------------------------------------------------------------------


def _generated(
    syntax: Syntax, groups: Sequence[Sequence[Change]], rest: Sequence[Change], single: Sequence[Change]
) -> list[Edit]:
    """A method of the model's class, called at the end of `__init__`; without a class, statements after the model."""
    change = groups[0][0] if groups else single[0]
    scope = root(syntax, change.types[1], change.span)
    step, named = syntax.module.default_indent, [change for group in groups[1:] for change in group]
    if _is_table(groups):
        body = _table(syntax, scope, [change for group in groups for change in group], rest, step)
    elif len(named) > MOST_NAMED:
        body = _listed(syntax, scope, groups, rest, step)
    else:
        body = _loop(syntax, scope, groups[0], [*named, *rest], step) if groups else []
        for each in named:
            body += _drawing(syntax, scope.named(each.module), each, optional=False)
    body += _drawn(syntax, scope, single, rest, step)
    if scope.owner is None:
        return scope.appended(body)
    method = next(name for name in METHODS if not _has(scope.owner, name))
    outer = syntax.indent(scope.at)
    rows = [f"def {method}(self):", *(step + row for row in body)]
    text = "".join(f"{syntax.newline}{outer}{row}" for row in rows)
    (call,) = scope.appended([f"self.{method}()"])
    return [replace(call, rank=DRAWN), replace(call, text=f"{syntax.newline}{text}", rank=METHOD)]


def _listed(
    syntax: Syntax, scope: Scope, groups: Sequence[Sequence[Change]], rest: Sequence[Change], step: str
) -> list[str]:
    """The statements that draw the layers of several groups, list by list."""
    lines, around = list[str](), ""
    for held, layer, change in lists(scope, groups, rest):
        lines += [f"for layer in {held}:"] if held and held != around else []
        lines += [step * bool(held) + row for row in _drawing(syntax, layer, change, optional=False)]
        around = held
    return lines


def _has(owner: cst.ClassDef, name: str) -> bool:
    return any(f.name.value == name for f in owner.body.body if isinstance(f, cst.FunctionDef))


def _drawn(syntax: Syntax, scope: Scope, changes: Sequence[Change], rest: Sequence[Change], step: str) -> list[str]:
    """The statements that draw single parameters: one each, or a loop over those that are drawn alike."""
    alike: dict[str, list[Change]] = defaultdict(list)
    for change in changes:
        alike[DRAW_ONE[change.new](f"{syntax.owner('torch.nn')}.init", "{0}", change)].append(change)
    lines: list[str] = []
    for text, group in alike.items():
        others = [change.old for change in (*changes, *rest) if change not in group]
        for heads, name in loops(scope, group, others):
            lines += [step * place + head for place, head in enumerate(heads)]
            lines += [step * len(heads) + row.format(name, step) for row in text.splitlines()]
    return lines


def _loop(syntax: Syntax, scope: Scope, group: Sequence[Change], rest: Sequence[Change], step: str) -> list[str]:
    """The statements that draw the weights of a group of layers, and of none of the rest."""
    left, test = _left(scope, group, rest), _test(syntax, scope, group, rest)
    optional = len({change.bias for change in group}) > 1
    draw = _drawing(syntax, "module", group[0], optional=optional)
    if len(left) > MOST_LEFT:
        if len(group) > MOST_NAMED:
            raise NoEditError("too many layers to name")
        names = ", ".join(scope.named(change.module) for change in group)
        return [f"for module in ({names}{',' * (len(group) == 1)}):", *(f"{step}{text}" for text in draw)]
    head = [f"for module in {scope.model}.modules():", f"{step}if {test}:"]
    return [*head, *(f"{step * 2}{text}" for text in draw)]


def _left(scope: Scope, group: Sequence[Change], rest: Sequence[Change]) -> list[str]:
    """The layers of the rest that are of the classes of the group's."""
    kinds = {change.types[0] for change in group}
    return [scope.named(change.module) for change in rest if change.types[0] in kinds]


def _test(syntax: Syntax, scope: Scope, group: Sequence[Change], rest: Sequence[Change]) -> str:
    """What tells the modules of the group from all others."""
    kinds = sorted({change.types[0] for change in group})
    listed = ", ".join(f"{syntax.owner('torch.nn')}.{kind}" for kind in kinds)
    asked = f"isinstance(module, {listed if len(kinds) == 1 else f'({listed})'})"
    return " and ".join([asked, *(f"module is not {name}" for name in _left(scope, group, rest))])


def _table(syntax: Syntax, scope: Scope, group: Sequence[Change], rest: Sequence[Change], step: str) -> list[str]:
    """The statements that draw a group of layers, each with its own gain, in the order of `modules()`."""
    if len(_left(scope, group, rest)) > MOST_LEFT:
        raise NoEditError("too many layers to name")
    gains = [f"{change.gain:.3g}" for change in sorted(group, key=lambda change: change.place)]
    rows = [f"{step}{', '.join(gains[start : start + ROW])}," for start in range(0, len(gains), ROW)]
    zeros, init = {change.bias for change in group}, f"{syntax.owner('torch.nn')}.init"
    draw = [f"{init}.{group[0].new}_(module.weight, gain=gain)"]
    draw += ["if module.bias is not None:"] if len(zeros) > 1 else []
    draw += [f"{step * (len(zeros) > 1)}{init}.zeros_(module.bias)"] if "zeros" in zeros else []
    return [
        "gains = (",
        *rows,
        ")",
        f"layers = [module for module in {scope.model}.modules() if {_test(syntax, scope, group, rest)}]",
        "for module, gain in zip(layers, gains):",
        *(f"{step}{text}" for text in draw),
    ]


def _drawing(syntax: Syntax, module: str, change: Change, *, optional: bool) -> list[str]:
    """The statements that draw one layer's weight and bias; `optional` where some of a group have no bias."""
    weight = _draw(syntax, module, change)
    zeros = f"{syntax.owner('torch.nn')}.init.zeros_({module}.bias)"
    if optional:
        return [weight, f"if {module}.bias is not None:", f"{syntax.module.default_indent}{zeros}"]
    return [weight, zeros] if change.bias == "zeros" else [weight]


def _draw(syntax: Syntax, module: str, change: Change) -> str:
    return DRAW[change.new](f"{syntax.owner('torch.nn')}.init", f"{module}.weight", change.gain)


def _kaiming(init: str, weight: str, gain: float) -> str:
    for known, arguments in KAIMING:
        if math.isclose(known, gain, rel_tol=1e-6):
            return f"{init}.kaiming_normal_({weight}, {arguments})"
    return _normal(init, weight, gain)


def _lecun(init: str, weight: str, gain: float) -> str:
    return f'{init}.kaiming_normal_({weight}, nonlinearity="linear")'


def _normal(init: str, weight: str, gain: float) -> str:
    return f"{init}.normal_({weight}, std={gain:.4g} / {weight}[0].numel() ** 0.5)"


def _xavier(init: str, weight: str, gain: float) -> str:
    return f"{init}.xavier_normal_({weight}{_gain(gain)})"


def _orthogonal(init: str, weight: str, gain: float) -> str:
    return f"{init}.orthogonal_({weight}{_gain(gain)})"


def _default(init: str, weight: str, gain: float) -> str:
    """As torch draws it: by the layer itself, where the tensor is a layer's weight."""
    module = weight.removesuffix(".weight")
    return f"{init}.kaiming_uniform_({weight}, a=5**0.5)" if module == weight else f"{module}.reset_parameters()"


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


# -- single parameters: {init}, the parameter, and what becomes of it --------------------------------------------------


def _std(init: str, param: str, change: Change) -> str:
    """As torch writes it for a matrix; a weight that is multiplied from the left has its inputs on the first axis."""
    known = next((arguments for gain, arguments in KAIMING if math.isclose(gain, change.gain, rel_tol=1e-6)), "")
    known = 'nonlinearity="linear"' if change.new == "lecun_normal" else known
    turned = change.size == change.fans[0] != change.fans[1]
    if known and change.of == 2 and (turned or change.size == change.fans[1]):
        mode = 'mode="fan_out", ' if turned else ""
        return f"{init}.kaiming_normal_({param}, {mode}{known})"
    return f"{init}.normal_({param}, std={change.gain:.4g} / {change.fans[0]} ** 0.5)"


def _glorot(init: str, param: str, change: Change) -> str:
    if change.of == 2:
        return f"{init}.xavier_normal_({param}{_gain(change.gain)})"
    return f"{init}.normal_({param}, std={change.gain:.4g} * (2 / {sum(change.fans)}) ** 0.5)"


def _bounds(init: str, param: str, change: Change) -> str:
    bound = change.gain / math.sqrt(change.fans[0])
    return f"{init}.uniform_({param}, -{bound:.4g}, {bound:.4g})"


def _orthogonal_one(init: str, param: str, change: Change) -> str:
    return f"{init}.orthogonal_({param}{_gain(change.gain)})"


def _gates(init: str, param: str, change: Change) -> str:
    """An orthogonal block for each gate: rows / hidden of them."""
    gates = change.size // change.fans[0]
    if gates < 2:
        return f"{init}.orthogonal_({param})"
    return f"for gate in {param}.data.chunk({gates}):\n{{1}}{init}.orthogonal_(gate)"


def _scaled(init: str, param: str, change: Change) -> str:
    """GPT-2 writes a share of n residual branches as n ** -0.5."""
    count = change.gain**-2.0
    whole = math.isclose(count, round(count), rel_tol=1e-9)
    return f"{param}.data.mul_({round(count)} ** -0.5)" if whole else f"{param}.data.mul_({change.gain:.4g})"


def _forget(init: str, param: str, change: Change) -> str:
    quarter = change.size // 4
    opened = f"{init}.constant_({param}.data[{quarter}:{2 * quarter}], {change.gain:g})"
    return f"{init}.zeros_({param})\n{opened}"


DRAW_ONE: Mapping[str, Callable[[str, str, Change], str]] = {
    "kaiming_normal": _std,
    "lecun_normal": _std,
    "normal": _std,
    "xavier_normal": _glorot,
    "orthogonal": _orthogonal_one,
    "default": _bounds,
    "default_bias": _bounds,
    "siren": _bounds,
    "orthogonal_gates": _gates,
    "eye": lambda init, param, change: f"{init}.eye_({param})",
    "zeros": lambda init, param, change: f"{init}.zeros_({param})",
    "scale": _scaled,
    "forget_bias": _forget,
}
