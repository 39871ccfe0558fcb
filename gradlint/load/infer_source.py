"""What the text of forward says about its arguments: dict keys, fields of an object, tuples that are unpacked."""

from __future__ import annotations

import ast
import inspect
import math
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Use:
    """How forward uses one argument."""

    keys: tuple[str, ...] = ()  # batch["image"], batch.get("image")
    fields: tuple[str, ...] = ()  # data.edge_index
    unpacked: tuple[str, ...] = ()  # a, b = inputs


def uses(model: nn.Module) -> dict[str, Use]:
    """How forward uses each of its arguments, up to where it binds the name anew; empty without a source to read."""
    tree = _tree(model)
    if tree is None:
        return {}
    names = [arg.arg for arg in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs)]
    nodes = sorted((n for n in ast.walk(tree) if hasattr(n, "lineno")), key=_position)
    return {name: _use(name, nodes) for name in names}


def type_comments(model: nn.Module) -> dict[str, str]:
    """The types of forward's arguments in TorchScript's comments: `# type: (List[Tensor], int) -> Tensor`."""
    tree = _tree(model)
    try:
        signature = ast.parse((tree and tree.type_comment) or "", mode="func_type")
    except SyntaxError:
        return {}
    assert tree is not None
    names = [arg.arg for arg in tree.args.args[1:]]
    return {name: ast.unparse(kind) for name, kind in zip(names, signature.argtypes, strict=False)}


def _position(node: ast.AST) -> tuple[int, int]:
    return getattr(node, "lineno", 0), getattr(node, "col_offset", 0)


def _tree(model: nn.Module) -> ast.FunctionDef | None:
    function = inspect.unwrap(type(model).forward)
    try:
        parsed = ast.parse(textwrap.dedent(inspect.getsource(function)), type_comments=True)
    except (OSError, TypeError, SyntaxError):
        return None
    found = parsed.body[0] if parsed.body else None
    return found if isinstance(found, ast.FunctionDef) else None


def _use(name: str, nodes: list[ast.AST]) -> Use:
    bound = (n.lineno for n in nodes if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store))
    last = next(bound, math.inf)
    seen = [node for node in nodes if _position(node)[0] <= last]
    unpacked = next((node for node in seen if _unpacks(node, name)), None)
    return Use(
        tuple(dict.fromkeys(key for node in seen for key in _key(node, name))),
        tuple(dict.fromkeys(field for node in seen for field in _field(node, name))),
        _targets(unpacked) if isinstance(unpacked, ast.Assign) else (),
    )


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _key(node: ast.AST, name: str) -> Iterator[str]:
    """batch["image"], batch.get("image")."""
    constant: ast.AST | None = None
    if isinstance(node, ast.Subscript) and _is(node.value, name):
        constant = node.slice
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        constant = node.args[0] if node.args and _is(node.func.value, name) else None
    if isinstance(constant, ast.Constant) and isinstance(constant.value, str):
        yield constant.value


def _field(node: ast.AST, name: str) -> Iterator[str]:
    """data.edge_index, but not x.shape."""
    if isinstance(node, ast.Attribute) and _is(node.value, name) and not hasattr(Tensor, node.attr):
        yield from [node.attr] if node.attr not in CONTAINER_METHODS else []


def _unpacks(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Assign) and _is(node.value, name) and isinstance(node.targets[0], ast.Tuple)


def _targets(node: ast.Assign) -> tuple[str, ...]:
    items = node.targets[0].elts if isinstance(node.targets[0], ast.Tuple) else []
    return tuple(item.id for item in items if isinstance(item, ast.Name))


CONTAINER_METHODS = frozenset({"keys", "values", "items", "get", "append", "pop", "update", "copy"})
