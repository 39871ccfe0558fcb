"""Values that a file states by name: constants, config dictionaries, dataclass fields, argparse and click defaults."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator, Mapping

from gradlint.source.names import is_function, root
from gradlint.source.text import Source


def stated_values(source: Source) -> dict[str, object]:
    """Lower-case name → value; the first wins: constants, configurations, options, then texts compared with."""
    found: dict[str, object] = {}
    for reader in (_constants, _dictionaries, _fields, _options, _compared):
        for name, value in reader(source):
            found.setdefault(normal(name), value)
    return found


def normal(name: str) -> str:
    """A name in the form that constants, options and parameters share: `--hidden-dim`, `HIDDEN_DIM` → `hidden_dim`."""
    return name.lstrip("-").replace("-", "_").strip("_").lower()


def constant(node: ast.AST | None, known: Mapping[str, object] | None = None) -> object:
    """The value of a constant expression: literals, arithmetic on them, and names in `known`.

    Raises ValueError for anything else.
    """
    known = known or {}
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = constant(node.left, known), constant(node.right, known)
        return _number(left, right, OPERATORS[type(node.op)])
    if isinstance(node, ast.Tuple | ast.List) and not any(isinstance(e, ast.Starred) for e in node.elts):
        items = [constant(e, known) for e in node.elts]
        return tuple(items) if isinstance(node, ast.Tuple) else items
    if not isinstance(node, ast.AST):
        raise ValueError("no expression")
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError("not a constant") from error


def _number(left: object, right: object, compute: Callable[[float, float], float]) -> float:
    if not isinstance(left, int | float) or not isinstance(right, int | float) or abs(right) > 1e9:
        raise ValueError("not a small number")
    try:
        return compute(left, right)
    except (ArithmeticError, TypeError) as error:
        raise ValueError(str(error)) from error


OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: lambda base, power: base**power if abs(power) <= 64 else math.inf,
}


def named_constants(source: Source) -> dict[str, object]:
    """Every constant that the module assigns to a name, later ones built from earlier ones included."""
    found: dict[str, object] = {}
    for name, value in _assigned(source.tree.body):
        try:
            found[name] = constant(value, found)
        except ValueError:
            found.pop(name, None)
    return found


def _assigned(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    for statement in body:
        if isinstance(statement, ast.If):
            yield from _assigned([*statement.body, *statement.orelse])
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target.id, statement.value
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target.id, statement.value
                elif isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                    pairs = zip(target.elts, statement.value.elts, strict=False)
                    yield from ((t.id, v) for t, v in pairs if isinstance(t, ast.Name))


def _constants(source: Source) -> Iterator[tuple[str, object]]:
    yield from ((n, v) for n, v in named_constants(source).items() if not isinstance(v, dict))
    for node in ast.walk(source.tree):
        if is_function(node):
            yield from _literals(_assigned(node.body))


def _literals(pairs: Iterator[tuple[str, ast.expr]]) -> Iterator[tuple[str, object]]:
    for name, value in pairs:
        try:
            yield name, constant(value)
        except ValueError:
            continue


def _dictionaries(source: Source) -> Iterator[tuple[str, object]]:
    """Keys of dictionary literals and of `dict(key=value)` calls that are assigned to a name."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            pairs = zip(node.value.keys, node.value.values, strict=True)
            yield from _literals(
                (k.value, v) for k, v in pairs if isinstance(k, ast.Constant) and isinstance(k.value, str)
            )
        elif isinstance(node, ast.Call) and root(node.func) in (
            "dict",
            "Namespace",
            "SimpleNamespace",
            "EasyDict",
            "argparse",
        ):
            yield from _literals((k.arg, k.value) for k in node.keywords if k.arg)


def _fields(source: Source) -> Iterator[tuple[str, object]]:
    """Fields with a default of dataclasses and of classes that look like a configuration, its constructor's too."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            decorated = any("dataclass" in ast.dump(d) for d in node.decorator_list)
            if decorated or any(
                word in node.name.lower() for word in ("config", "cfg", "args", "param", "option", "setting")
            ):
                yield from _literals(_assigned(node.body))
                yield from _literals(_stored(node))


def _stored(node: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """What a class's constructor stores: `self.hidden_size = 128`."""
    made = next((n for n in node.body if is_function(n) and n.name == "__init__"), None)
    for statement in made.body if made is not None else ():
        target = statement.targets[0] if isinstance(statement, ast.Assign) else None
        if isinstance(statement, ast.Assign) and isinstance(target, ast.Attribute) and root(target) == "self":
            value = statement.value
            yield target.attr, value.orelse if isinstance(value, ast.IfExp) else value  # without what may be at hand


def _options(source: Source) -> Iterator[tuple[str, object]]:
    """Defaults of `parser.add_argument("--hidden-dim", default=64)` and `@click.option`."""
    for node in ast.walk(source.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("add_argument", "option")
        ):
            names = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            default = next((k.value for k in node.keywords if k.arg == "default"), None)
            if names and default is not None:
                yield from _literals(iter([(max(names, key=len), default)]))


def position(node: ast.AST) -> tuple[int, int]:
    """Where a node stands, to read nodes in the order of the text."""
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def refusals(tree: ast.AST) -> set[ast.AST]:
    """The comparisons with what is not accepted: `if task == "imputation": raise NotImplementedError`."""
    raising = [n for n in ast.walk(tree) if isinstance(n, ast.If) and isinstance(n.body[-1], ast.Raise)]
    compared = [c for n in raising for c in ast.walk(n.test) if isinstance(c, ast.Compare)]
    return {c for c in compared if isinstance(c.ops[0], ast.Eq | ast.In)}


def _compared(source: Source) -> Iterator[tuple[str, object]]:
    """The first text that a name is compared with and that is not refused: `if args.net == "vgg16"`."""
    refused = refusals(source.tree)
    nodes = [n for n in ast.walk(source.tree) if isinstance(n, ast.Compare) and n not in refused]
    for node in sorted(nodes, key=position):
        if not isinstance(node.ops[0], ast.Eq | ast.In):
            continue
        left = node.left
        name = left.attr if isinstance(left, ast.Attribute) else left.id if isinstance(left, ast.Name) else ""
        options = node.comparators[0]
        first = options.elts[0] if isinstance(options, ast.Tuple | ast.List) and options.elts else options
        if name and not name.startswith("__") and isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield name, first.value
