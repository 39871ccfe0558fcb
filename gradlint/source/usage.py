"""What a constructor does with each of its parameters, which tells what kind of value it expects."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, get_args

from gradlint.source.callees import Place, base, callee
from gradlint.source.constants import constant, position, refusals
from gradlint.source.names import Definition, Function, default_of, is_function, loads, parameters
from gradlint.source.text import Source

# Names of parameters and variables that hold a whole configuration.
CONFIG = re.compile(r"\w*(config|cfg|conf|args|opts?|options?|hparams?|params?|settings|hyper\w*|flags)")

Kind = Literal[
    "named",
    "optional",
    "annotated",
    "number",
    "count",
    "choice",
    "text",
    "text key",
    "usual",
    "callable",
    "sequence",
    "config",
    "module",
]

RANK: tuple[Kind, ...] = get_args(Kind)
"""From what tells least to what tells most."""

DEPTH = 4  # calls followed that a parameter is passed on to


@dataclass(frozen=True)
class Use:
    """How a parameter is used, and how many entries of it are read.

    `example` is a value that it is compared with ("text", "choice"), that it has by default where it is passed on
    ("usual", "number"), or the name that it has there or the type that it is annotated with.
    """

    kind: Kind
    example: object = None
    length: int = 0


Used = Iterator[tuple[str, Use]]
"""What is used, by its path from a parameter: "depth", "cfg.depth" for a field, "sizes[]" for an entry."""


@lru_cache(maxsize=1024)
def parameter_uses(owner: Definition, source: Source, depth: int = DEPTH) -> Mapping[str, Use]:
    """How a function, or a class (its constructor, its methods through `self`), uses each of its parameters.

    Fields of a parameter are listed as "cfg.depth", entries as "sizes[]". A value that is passed on to a function or
    class of this file, or of one that it imports, is used as that one uses it. Of several uses the most telling counts.
    """
    found: dict[str, list[Use]] = {}
    for path, use in _uses_in(owner, source, depth):
        found.setdefault(path, []).append(use)
    return {path: max(uses, key=_telling) for path, uses in found.items()}


def _telling(use: Use) -> tuple[int, int]:
    """A usual list of values tells more than that it is a sequence."""
    listed = use.kind == "usual" and isinstance(use.example, tuple | list)
    return RANK.index("sequence" if listed else use.kind), len(use.example) if listed else use.length  # type: ignore[arg-type]


def constructor(owner: ast.AST) -> Function | None:
    """The `__init__` of a class, or None when it inherits one."""
    body = owner.body if isinstance(owner, ast.ClassDef) else []
    return next((n for n in body if is_function(n) and n.name == "__init__"), None)


def _uses_in(owner: Definition, source: Source, depth: int) -> Used:
    function = owner if is_function(owner) else constructor(owner)
    cls = owner if isinstance(owner, ast.ClassDef) else None
    if cls is not None and depth and (function is None or function.args.kwarg):  # the base takes the rest
        above = base(cls, source)
        yield from parameter_uses(*above, depth - 1).items() if above is not None else ()
    if function is None:
        return
    names = {name: name for name in _own_names(function)}
    paths = _Paths(names, {**_tables(source.tree), **_tables(function)})
    for node in _in_order(function):
        paths.follow(node)
    either = _either(function, paths)
    for path, use in (*_read(function, paths, READERS), *_passed_on(function, paths, source, cls, depth)):
        if use.kind != "sequence" or path not in either:
            yield path, use
    kept = _Paths({text: path for text, path in paths.names.items() if text.startswith("self.")}, paths.tables)
    for method in cls.body if cls is not None else ():
        if is_function(method) and method is not function:
            yield from _read(method, kept, LATER)


def _either(function: Function, paths: _Paths) -> set[str]:
    """What a function takes one by one or as a list: `x if isinstance(x, tuple) else (x,) * n`."""
    asserted = {n for a in ast.walk(function) if isinstance(a, ast.Assert) for n in ast.walk(a)}
    asked = (n for n in ast.walk(function) if _called(n) == "isinstance" and n not in asserted)
    return {paths.of(n.args[0]) for n in asked if isinstance(n, ast.Call) and {"tuple", "list"} & loads(n.args[1])}


def _own_names(function: Function) -> list[str]:
    return [p.arg for p in parameters(function) if p.arg not in ("self", "cls")]


def _in_order(function: Function) -> list[ast.AST]:
    """The assignments, loops and comprehensions of a function by their lines."""
    kinds = (ast.Assign, ast.For, ast.comprehension)
    nodes = [node for node in ast.walk(function) if isinstance(node, kinds)]
    return sorted(nodes, key=lambda node: position(_target(node)))


def _target(node: ast.AST) -> ast.expr:
    target: ast.expr = node.targets[0] if isinstance(node, ast.Assign) else node.target  # type: ignore[attr-defined]
    return target


def _tables(tree: ast.AST) -> dict[str, ast.Dict]:
    """The dictionary literals that a module (at its top) or a function assigns to a name."""
    body = tree.body if isinstance(tree, ast.Module) else list(ast.walk(tree))
    return {
        ast.unparse(node.targets[0]): node.value
        for node in body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }


@dataclass
class _Paths:
    """Which expressions of a function hold a parameter, or a part of one: text of the expression → path."""

    names: dict[str, str]
    tables: Mapping[str, ast.Dict] = field(default_factory=dict)
    refused: set[ast.AST] = field(default_factory=set)  # comparisons in the function that is read

    def of(self, node: ast.AST | None) -> str:
        """The path that an expression holds, or ""."""
        if isinstance(node, ast.Name | ast.Attribute) and (known := self.names.get(ast.unparse(node))):
            return known
        if isinstance(node, ast.Attribute) and (owner := self.of(node.value)):
            return f"{owner}.{node.attr}"
        if isinstance(node, ast.Subscript) and (owner := self.of(node.value)):
            key = node.slice.value if isinstance(node.slice, ast.Constant) else None
            return f"{owner}.{key}" if isinstance(key, str) else f"{owner}[]" if isinstance(key, int) else ""
        if isinstance(node, ast.BoolOp):
            return self.of(node.values[0])
        if isinstance(node, ast.IfExp):
            return self.of(node.body) or self.of(node.orelse)
        if isinstance(node, ast.Call) and _called(node) in ("list", "tuple") and node.args:
            return self.of(node.args[0])
        return ""

    def follow(self, node: ast.AST) -> None:
        """Take note of what an assignment or a loop binds; a parameter's own name keeps its meaning."""
        if isinstance(node, ast.Assign):
            for target, value in _paired(node):
                self._bind(target, self.of(value))
        elif isinstance(node, ast.For | ast.comprehension):
            self._entries(node.target, node.iter)

    def _bind(self, target: ast.expr, path: str) -> None:
        text = ast.unparse(target)
        if path:
            self.names.setdefault(text, path)
        elif self.names.get(text) != text:
            self.names.pop(text, None)

    def _entries(self, target: ast.expr, value: ast.expr) -> None:
        """`for k, d in zip(kernels, dilations)`: entries of sequences, one by one."""
        name = _called(value)
        if isinstance(value, ast.Call) and name == "enumerate" and value.args and isinstance(target, ast.Tuple):
            self._entries(target.elts[1], value.args[0])
        elif isinstance(value, ast.Call) and name == "zip" and isinstance(target, ast.Tuple):
            for part, one in zip(target.elts, value.args, strict=False):
                self._entries(part, one)
        elif isinstance(target, ast.Name) and (path := self.of(value)):
            self._bind(target, f"{path}[]")


def _paired(node: ast.Assign) -> Iterator[tuple[ast.expr, ast.expr]]:
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from zip(target.elts, node.value.elts, strict=False)
        else:
            yield target, node.value


def _read(function: Function, paths: _Paths, readers: tuple[_Reader, ...]) -> Used:
    paths.refused = refusals(function)
    for node in sorted(ast.walk(function), key=position):  # the first of several texts is the usual one
        for reader in readers:
            yield from reader(node, paths)


def _passed_on(function: Function, paths: _Paths, source: Source, owner: ast.ClassDef | None, depth: int) -> Used:
    """What the functions and classes that take a parameter, or a part of one, do with it."""
    made = _choices(function)
    for node in ast.walk(function) if depth else ():
        if not isinstance(node, ast.Call):
            continue
        taken = [(i, path) for i, value in enumerate(node.args) if (path := paths.of(value))]
        named = [(k.arg, path) for k in node.keywords if k.arg and (path := paths.of(k.value))]
        place = callee(made.get(ast.unparse(node.func), node.func), source, owner) if taken or named else None
        if place is not None and place[0] is not function:
            called = _function_of(place)
            names = _own_names(called) if called is not None else []
            given = [*((names[i], path) for i, path in taken if i < len(names)), *named]
            declared = {name: tuple(_declared(called, name)) if called is not None else () for name, _ in given}
            yield from ((path, use) for name, path in given for use in declared[name])
            yield from ((path, Use("named", name)) for name, path in given)
            plain = {name for name, uses in declared.items() if any(use.example in PLAIN for use in uses)}
            for path, use in _renamed(parameter_uses(*place, depth - 1), given):
                if not (use.kind == "sequence" and path in {p for name, p in given if name in plain}):
                    yield path, use


PLAIN = ("int", "float", "bool", "str")
"""Types of single values, which their functions may yet pass on to one that takes lists as well."""


def _choices(function: Function) -> dict[str, ast.expr]:
    """Variables that hold a class: `block = Bottleneck if deep else BasicBlock`; the first that it may be."""
    pairs = [pair for node in ast.walk(function) if isinstance(node, ast.Assign) for pair in _paired(node)]
    values = {ast.unparse(target): value.body if isinstance(value, ast.IfExp) else value for target, value in pairs}
    return {name: value for name, value in values.items() if isinstance(value, ast.Name | ast.Attribute)}


def _function_of(place: Place) -> Function | None:
    """What runs when a class or function is called: the function, the constructor, or one that is inherited."""
    node, source = place
    function = node if is_function(node) else constructor(node)
    above = base(node, source) if function is None and isinstance(node, ast.ClassDef) else None
    return function if function is not None else _function_of(above) if above is not None else None


def _declared(function: Function, name: str) -> Iterator[Use]:
    """What the signature says of a parameter: its default, its type."""
    default = default_of(function, name)
    try:
        value = None if default is None else constant(default)
    except ValueError:
        value = None
    if value is not None:
        yield Use("usual" if isinstance(value, str | bool | tuple | list) else "number", value)
    annotation = next((p.annotation for p in parameters(function) if p.arg == name), None)
    if annotation is not None:
        yield Use("annotated", ast.unparse(annotation))


def _renamed(inside: Mapping[str, Use], given: list[tuple[str, str]]) -> Used:
    for name, path in given:
        for theirs, use in inside.items():
            if theirs == name or theirs.startswith((f"{name}.", f"{name}[")):
                yield path + theirs[len(name) :], use


# -- one reader for each way to use a value


def _called(node: ast.AST) -> str:
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _bare(node: ast.expr) -> ast.expr:
    """`x` of `*x`."""
    return node.value if isinstance(node, ast.Starred) else node


WALKS = ("len", "zip", "enumerate", "sum", "list", "tuple", "reversed", "iter", "map", "max", "min")


def _call(node: ast.AST, paths: _Paths) -> Used:
    if not isinstance(node, ast.Call):
        return
    if path := paths.of(node.func):
        yield path, Use("callable")
    function = _called(node)
    whole = function in WALKS and (function not in ("max", "min") or len(node.args) == 1)
    for argument in node.args:
        path = paths.of(_bare(argument))
        if path and (whole or isinstance(argument, ast.Starred) or _reduces(node.func)):
            yield path, Use("sequence")
        elif path and function == "range":
            yield path, Use("count")


def _reduces(function: ast.expr) -> bool:
    """np.prod(shape), np.cumsum(field_dims)."""
    return isinstance(function, ast.Attribute) and ast.unparse(function) in (
        f"{module}.{name}" for module in ("np", "numpy", "math") for name in ("prod", "cumsum", "cumprod")
    )


def _loop(node: ast.AST, paths: _Paths) -> Used:
    if isinstance(node, ast.For | ast.comprehension) and (path := paths.of(node.iter)):
        yield path, Use("sequence")
    targets = node.targets[0] if isinstance(node, ast.Assign) else None
    if isinstance(node, ast.Assign) and isinstance(targets, ast.Tuple | ast.List) and (path := paths.of(node.value)):
        yield path, Use("sequence", length=len(targets.elts))


def _subscript(node: ast.AST, paths: _Paths) -> Used:
    if not (isinstance(node, ast.Subscript) and (path := paths.of(node.value))):
        return
    key = node.slice
    if _is_text(key):
        yield path, Use("config")
    else:
        place = key.value if isinstance(key, ast.Constant) and isinstance(key.value, int) else -1
        yield path, Use("sequence", length=place + 1)


TEXT_METHODS = ("lower", "upper", "startswith", "endswith", "split", "strip")
LIST_METHODS = ("append", "index", "copy", "insert", "pop", "extend", "count")


def _attribute(node: ast.AST, paths: _Paths) -> Used:
    if not isinstance(node, ast.Attribute) or not (path := paths.of(node.value)):
        return
    if node.attr in TEXT_METHODS:
        yield path, Use("text")
    else:
        yield path, Use("sequence" if node.attr in LIST_METHODS else "config")


def _comparison(node: ast.AST, paths: _Paths) -> Used:
    if not isinstance(node, ast.Compare) or node in paths.refused:
        return
    left = node.left
    if isinstance(left, ast.Call) and isinstance(left.func, ast.Attribute) and left.func.attr in TEXT_METHODS:
        left = left.func.value  # kind.lower() == "gelu"
    if not (path := paths.of(left)):
        return
    for operator, operand in zip(node.ops, node.comparators, strict=True):
        options = operand.elts if isinstance(operand, ast.Tuple | ast.List | ast.Set) else [operand]
        values = [o.value for o in options if isinstance(o, ast.Constant)]
        texts = [value for value in values if isinstance(value, str)]
        numbers = [value for value in values if type(value) is int]
        if texts:
            yield path, Use("text", texts[0])
        elif len(numbers) > 1 and isinstance(operator, ast.In | ast.NotIn):
            yield path, Use("choice", numbers[0])
        elif values == [None]:
            yield path, Use("optional")


def _lookup(node: ast.AST, paths: _Paths) -> Used:
    """`{"relu": nn.ReLU}[name]`, and the same with the table in a variable."""
    if not isinstance(node, ast.Subscript) or not (path := paths.of(node.slice)):
        return
    table = node.value if isinstance(node.value, ast.Dict) else paths.tables.get(ast.unparse(node.value))
    first = table.keys[0] if table is not None and table.keys else None
    if isinstance(first, ast.Constant):
        yield path, Use("text key" if isinstance(first.value, str) else "choice", first.value)


def _module(node: ast.AST, paths: _Paths) -> Used:
    """`self.net(x)` in a method: a module, or a function, that the constructor stored."""
    if isinstance(node, ast.Call) and (path := paths.of(node.func)):
        yield path, Use("module")


_Reader = Callable[[ast.AST, _Paths], Used]

READERS: tuple[_Reader, ...] = (_call, _loop, _subscript, _attribute, _comparison, _lookup)

LATER: tuple[_Reader, ...] = (_module, _comparison, _lookup)
"""What methods other than the constructor tell."""
