"""How a file itself makes a model: the statements to run and the expression to evaluate."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from gradlint.source.calls import RETURNS_SELF, Makers
from gradlint.source.names import Function, default_of, free, is_function, is_main_guard, loads, parameters
from gradlint.source.slice import Slicer, unbound

PLACING = frozenset(
    {"to", "cuda", "cpu", "mps", "train", "eval", "share_memory"}
)  # methods that leave the weights as they are
DEPTH = 5  # calls followed outwards from the one that makes the model


@dataclass(frozen=True)
class Frame:
    """One function on the way to the model: bind its parameters (evaluated in the frame before), then run its slice."""

    name: str
    bindings: tuple[tuple[str, ast.expr], ...] = ()
    guesses: tuple[str, ...] = ()  # parameters that nobody passes
    body: tuple[ast.stmt, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """Run `module`, then every frame in a copy of its names, then evaluate `expression`."""

    module: tuple[ast.stmt, ...]
    expression: ast.expr
    frames: tuple[Frame, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Scope:
    """Statements that are no part of a model: the module (""), its main guard ("__main__"), or a function."""

    name: str
    body: tuple[ast.stmt, ...]
    function: Function | None = None
    method: bool = False


def scopes(known: Makers) -> list[Scope]:
    """The module, its main guards, and every function and method that makes no model itself."""
    body = known.source.tree.body
    found = [Scope("", tuple(body))]
    found += [Scope("__main__", tuple(s.body)) for s in body if is_main_guard(s)]
    found += [Scope(f.name, tuple(f.body), f) for name, f in known.functions.items() if name not in known.factories]
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name not in known.classes:
            found += [
                Scope(f"{node.name}.{f.name}", tuple(f.body), f, method=True) for f in node.body if is_function(f)
            ]
    return found


@dataclass(frozen=True)
class Cook:
    """Writes recipes for the expressions of one file."""

    known: Makers
    slicer: Slicer

    def recipe(
        self, expression: ast.expr, scope: Scope, targets: frozenset[str] = frozenset(), extra: set[str] | None = None
    ) -> Recipe:
        """The recipe of an expression of a scope; `targets` hold the model, `extra` are further names to define."""
        frames = tuple(self._frames(scope, loads(expression), targets, DEPTH)) if scope.name else ()
        needed = loads(expression).union(extra or (), *(_free(frame) for frame in frames))
        top = targets if not scope.name else frozenset()
        body = self.known.source.tree.body
        module = self.slicer.slice(body, needed, top)
        if guarded := self._guarded(unbound(module, needed)):
            module = [*self.slicer.slice(body, frozenset(needed) | unbound(guarded), top), *guarded]
        return Recipe(tuple(module), core(expression, PLACING), frames, self.known.source.segment(core(expression)))

    def _guarded(self, missing: AbstractSet[str]) -> list[ast.stmt]:
        """Statements of the main guard that bind globals which the module only has as a program."""
        bodies = [s.body for s in self.known.source.tree.body if is_main_guard(s)]
        return [statement for body in bodies for statement in self.slicer.slice(body, missing)] if missing else []

    def _frames(self, scope: Scope, names: AbstractSet[str], targets: frozenset[str], depth: int) -> Iterator[Frame]:
        body = self.slicer.slice(scope.body, names, targets)
        needed = frozenset(names).union(*(free(s) for s in body))
        if scope.function is None:
            yield Frame(scope.name, body=tuple(body))
            return
        wanted = [p.arg for p in parameters(scope.function) if p.arg in needed]
        caller, call = self._call_of(scope) if depth and wanted else (None, None)
        passed = _passed(scope.function, call) if call else {}
        if caller is not None and caller.name:
            names = set[str]().union(*(loads(passed[p]) for p in wanted if p in passed))
            yield from self._frames(caller, names, frozenset(), depth - 1)
        defaults = {p: d for p in wanted if p not in passed and (d := default_of(scope.function, p)) is not None}
        bindings = tuple((p, v) for p, v in {**passed, **defaults}.items() if p in wanted)
        guesses = tuple(p for p in wanted if p not in passed and p not in defaults)
        yield Frame(scope.name, bindings, guesses, tuple(body))

    def _call_of(self, scope: Scope) -> tuple[Scope, ast.Call] | tuple[None, None]:
        """The first call of a function in the file, and the scope it stands in."""
        for caller in scopes(self.known):
            if caller.name == scope.name:
                continue
            for statement in caller.body:
                for node in ast.walk(statement) if caller.name else _module_level(statement):
                    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == scope.name:
                        return caller, node
        return None, None


def core(expression: ast.expr, methods: AbstractSet[str] = RETURNS_SELF) -> ast.expr:
    """The call that makes the model, without `methods` chained to it: `Net(3).to(device)` → `Net(3)`."""
    while (
        isinstance(expression, ast.Call)
        and isinstance(expression.func, ast.Attribute)
        and expression.func.attr in methods
        and isinstance(expression.func.value, ast.Call)
    ):
        expression = expression.func.value
    return expression


def _module_level(statement: ast.stmt) -> Iterator[ast.AST]:
    if not is_function(statement) and not isinstance(statement, ast.ClassDef) and not is_main_guard(statement):
        yield from ast.walk(statement)


def _passed(function: Function, call: ast.Call) -> dict[str, ast.expr]:
    """Parameter → the expression that a call passes for it."""
    names = [p.arg for p in [*function.args.posonlyargs, *function.args.args]]
    plain: Sequence[ast.expr] = call.args
    if any(isinstance(a, ast.Starred) for a in plain):
        return {}
    return dict(zip(names, plain, strict=False)) | {k.arg: k.value for k in call.keywords if k.arg}


def _free(frame: Frame) -> AbstractSet[str]:
    """The names that a frame reads and does not bind itself."""
    passed = set[str]().union(*(loads(v) for _, v in frame.bindings))
    return (unbound(frame.body) - {name for name, _ in frame.bindings} - set(frame.guesses)) | passed
