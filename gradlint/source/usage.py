"""What a constructor does with each of its parameters, which tells what kind of value it expects."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from gradlint.source.names import Function, is_function, parameters

# Names of parameters and variables that hold a whole configuration.
CONFIG = re.compile(r"\w*(config|cfg|conf|args|opts?|options?|hparams?|params?|settings|hyper\w*|flags)")

Kind = Literal["sequence", "config", "callable", "module", "text", "text key", "count"]


@dataclass(frozen=True)
class Use:
    """How a parameter is used; `example` is a value it is compared with, `length` how many entries are read."""

    kind: Kind
    example: object = None
    length: int = 0


def parameter_uses(owner: ast.ClassDef | Function) -> dict[str, Use]:
    """Parameter → how a function, or a class (its constructor, its methods through `self`), uses it."""
    function = owner if is_function(owner) else constructor(owner)
    if function is None:
        return {}
    found: dict[str, Use] = {}
    for name in (p.arg for p in parameters(function)):
        uses = [use for node in ast.walk(function) for use in _uses(node, name)]
        if isinstance(owner, ast.ClassDef):
            uses += _through_self(owner, function, name)
        if uses:
            found[name] = max(uses, key=lambda use: (RANK.index(use.kind), use.length))
    return found


def constructor(owner: ast.AST) -> Function | None:
    """The `__init__` of a class, or None when it inherits one."""
    body = owner.body if isinstance(owner, ast.ClassDef) else []
    return next((n for n in body if is_function(n) and n.name == "__init__"), None)


RANK: list[Kind] = ["count", "text", "callable", "sequence", "text key", "config", "module"]


def _is(node: ast.AST | None, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _call(node: ast.AST, name: str) -> Iterator[Use]:
    if not isinstance(node, ast.Call):
        return
    if _is(node.func, name):
        yield Use("callable")
    function = node.func.id if isinstance(node.func, ast.Name) else ""
    if any(_is(a.value if isinstance(a, ast.Starred) else a, name) for a in node.args):
        if function in ("len", "zip", "enumerate", "sum", "list", "tuple", "reversed", "iter", "map") or any(
            isinstance(a, ast.Starred) and _is(a.value, name) for a in node.args
        ):
            yield Use("sequence")
        elif function == "range":
            yield Use("count")


def _loop(node: ast.AST, name: str) -> Iterator[Use]:
    if isinstance(node, ast.For | ast.comprehension) and _is(node.iter, name):
        yield Use("sequence")
    if isinstance(node, ast.Assign) and _is(node.value, name) and isinstance(node.targets[0], ast.Tuple | ast.List):
        yield Use("sequence", length=len(node.targets[0].elts))


def _subscript(node: ast.AST, name: str) -> Iterator[Use]:
    if not (isinstance(node, ast.Subscript) and _is(node.value, name)):
        return
    key = node.slice
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        yield Use("config")
    else:
        yield Use(
            "sequence", length=key.value + 1 if isinstance(key, ast.Constant) and isinstance(key.value, int) else 0
        )


def _attribute(node: ast.AST, name: str) -> Iterator[Use]:
    if isinstance(node, ast.Attribute) and _is(node.value, name):
        yield Use("text" if node.attr in ("lower", "upper", "startswith", "split") else "config")


def _comparison(node: ast.AST, name: str) -> Iterator[Use]:
    if not (isinstance(node, ast.Compare) and _is(node.left, name)):
        if (
            isinstance(node, ast.Subscript)
            and _is(node.slice, name)
            and isinstance(node.value, ast.Dict)
            and node.value.keys
        ):
            first = node.value.keys[0]
            if isinstance(first, ast.Constant):
                yield Use("text key", first.value)
        return
    for operand in node.comparators:
        options = operand.elts if isinstance(operand, ast.Tuple | ast.List | ast.Set) else [operand]
        texts = [o.value for o in options if isinstance(o, ast.Constant) and isinstance(o.value, str)]
        if texts:
            yield Use("text", texts[0])


READERS: tuple[Callable[[ast.AST, str], Iterator[Use]], ...] = (_call, _loop, _subscript, _attribute, _comparison)


def _uses(node: ast.AST, name: str) -> Iterator[Use]:
    for reader in READERS:
        yield from reader(node, name)


def _through_self(owner: ast.ClassDef, init: Function, name: str) -> list[Use]:
    """A parameter stored as `self.x` and called in another method is a module or a function."""
    stored = {
        target.attr
        for node in ast.walk(init)
        if isinstance(node, ast.Assign)
        for targets, value in _paired(node)
        if _is(value, name)
        for target in targets
        if isinstance(target, ast.Attribute) and _is(target.value, "self")
    }
    called = {
        n.func.attr
        for n in ast.walk(owner)
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and _is(n.func.value, "self")
    }
    return [Use("module")] if stored & called else []


def _paired(node: ast.Assign) -> Iterator[tuple[list[ast.expr], ast.expr]]:
    yield node.targets, node.value
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            yield from (([t], v) for t, v in zip(target.elts, node.value.elts, strict=False))
