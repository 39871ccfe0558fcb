"""What a name in a file stands for: a dotted path through its imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TypeGuard

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def is_function(node: ast.AST) -> TypeGuard[Function]:
    """Whether the node is a `def`."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def is_definition(node: ast.AST) -> TypeGuard[Definition]:
    """Whether the node is a `def` or a `class`."""
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


# What `from torch.nn import *` is used for.
STARRED = (
    "Module",
    "Sequential",
    "ModuleList",
    "Linear",
    "Conv1d",
    "Conv2d",
    "ReLU",
    "LSTM",
    "GRU",
    "Embedding",
    "Transformer",
)


@cache
def import_nodes(tree: ast.AST) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """Every import statement, at any depth."""
    return tuple(node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def imports(tree: ast.AST) -> dict[str, str]:
    """Local name → dotted path, for every import at any depth; a relative import keeps its leading dots."""
    found: dict[str, str] = {}
    if "torch.nn" in stars(tree):
        found = {name: f"torch.nn.{name}" for name in STARRED}
    for node in import_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                found[alias.asname or root] = alias.name if alias.asname else root
        else:
            prefix = "." * node.level + (node.module or "")
            joint = "" if prefix.endswith(".") else "."
            names = [alias for alias in node.names if alias.name != "*"]
            found.update({alias.asname or alias.name: f"{prefix}{joint}{alias.name}" for alias in names})
    return found


def parents(tree: ast.AST) -> int:
    """How many packages up the relative imports of a file reach: 1 for `from . import x`."""
    return max((node.level for node in import_nodes(tree) if isinstance(node, ast.ImportFrom)), default=0)


def stars(tree: ast.AST) -> list[str]:
    """The modules that `from module import *` statements name, leading dots kept."""
    nodes = [n for n in import_nodes(tree) if any(a.name == "*" for a in n.names)]
    return ["." * n.level + (n.module or "") for n in nodes if isinstance(n, ast.ImportFrom)]


def dotted(node: ast.AST | None, aliases: Mapping[str, str]) -> str:
    """The dotted path of a name or attribute chain through the file's imports, or "" for any other expression."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        value = dotted(node.value, aliases)
        return f"{value}.{node.attr}" if value else ""
    return ""


def root(node: ast.AST) -> str:
    """The name that an attribute, subscript or call chain starts from, or ""."""
    while True:
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Await):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return node.id if isinstance(node, ast.Name) else ""


@cache
def loads(node: ast.AST) -> frozenset[str]:
    """Every name that the node reads, string annotations included."""
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    for annotation in _string_annotations(node):
        names |= {n.id for n in ast.walk(annotation) if isinstance(n, ast.Name)}
    return frozenset(names)


@cache
def free(node: ast.AST) -> frozenset[str]:
    """The names that the node reads from around it: those that a function inside it binds for itself are left out."""
    if not is_function(node) and not isinstance(node, ast.Lambda):
        if not any(is_function(n) or isinstance(n, ast.Lambda) for n in ast.walk(node)):
            return loads(node)
        own = {node.id} if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) else set()
        return frozenset(own).union(*(free(child) for child in ast.iter_child_nodes(node)))
    body = node.body if isinstance(node.body, list) else [node.body]
    bound = {n.arg for n in ast.walk(node.args) if isinstance(n, ast.arg)}
    declared = {name for n in ast.walk(node) if isinstance(n, ast.Global) for name in n.names}
    if is_function(node):
        bound |= frozenset().union(*(binds(s) for s in node.body)) - declared
    inside = frozenset().union(*(free(part) for part in body)) - bound
    outside = [node.args, *(node.decorator_list if is_function(node) else []), getattr(node, "returns", None)]
    return inside.union(*(loads(part) for part in outside if part is not None))


def _string_annotations(node: ast.AST) -> Iterator[ast.expr]:
    for n in ast.walk(node):
        annotation = getattr(n, "annotation", None) or getattr(n, "returns", None)
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                yield ast.parse(annotation.value, mode="eval").body
            except SyntaxError:
                continue


@cache
def binds(statement: ast.stmt) -> frozenset[str]:
    """The names that a statement binds in its own scope, nested blocks included, nested definitions' bodies not."""
    names: set[str] = set()
    for node in walk_scope(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.add(node.id)
        elif is_definition(node):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {a.asname or a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            names.add(node.name)
    return frozenset(names)


@cache
def bound(tree: ast.AST) -> frozenset[str]:
    """Every name that anything in the tree binds, in whatever scope."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt):
            names |= binds(node)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)


@cache
def walk_scope(node: ast.AST) -> tuple[ast.AST, ...]:
    """The node and its descendants in the same scope: definitions and lambdas are yielded, not entered."""
    pending, found = [node], list[ast.AST]()
    while pending:
        current = pending.pop()
        found.append(current)
        if is_definition(current) or isinstance(current, ast.Lambda):
            pending.extend(current.decorator_list if is_definition(current) else [])
        elif isinstance(current, ast.comprehension):  # its target is bound in the comprehension's own scope
            pending.extend([*current.ifs, current.iter])
        else:
            pending.extend(reversed(list(ast.iter_child_nodes(current))))
    return tuple(found)


def is_main_guard(statement: ast.stmt) -> TypeGuard[ast.If]:
    """Whether the statement is `if __name__ == "__main__":`."""
    if not isinstance(statement, ast.If):
        return False
    return any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(statement.test))


def parameters(function: Function) -> list[ast.arg]:
    """Every parameter of a function, in order, `*args` and `**kwargs` left out."""
    return [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]


def default_of(function: Function, name: str) -> ast.expr | None:
    """The default of a parameter, or None when it has none."""
    spec = function.args
    positional = [*spec.posonlyargs, *spec.args]
    pairs = list(zip(reversed(positional), reversed(spec.defaults), strict=False))
    pairs += [(arg, value) for arg, value in zip(spec.kwonlyargs, spec.kw_defaults, strict=True) if value is not None]
    return next((value for arg, value in pairs if arg.arg == name), None)
