"""Repairs of a plan from a size that the user's own `assert` compares: the two sides, read in the frame that raised."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from gradlint.load.feed_trial import Frame, operand_of
from gradlint.load.infer_repair import Broken, Change, resize

READ = (ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Constant, ast.Tuple, ast.UnaryOp, ast.USub, ast.Load)
"""What an expression may be made of that is evaluated again: it reads and calls nothing."""


def asserted_size(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """`assert x.shape[1:] == self.table.shape`: the sizes in which the sides differ, from either side to the other."""
    sides = _sides(broken.refusal.frame) if broken.refusal.frame is not None else None
    if sides is None or broken.refusal.frame is None:
        return
    left, right = sides
    first, second = (_value(side, broken.refusal.frame.variables) for side in sides)
    for side, mine, others in ((left, first, second), (right, second, first)):
        tensor = _tensor(side, broken.refusal.frame.variables)
        for got, wanted in zip(mine, others, strict=True) if len(mine) == len(others) else ():
            if got != wanted and got > 0 and wanted > 0:
                yield from _changes(broken, tensor, got, wanted)


def _changes(broken: Broken, tensor: Tensor | None, got: int, wanted: int) -> Iterator[Change]:
    """The tensor's size changed by that of the input behind it; a bare number does not say whose size it is."""
    if tensor is None:
        return
    operand = operand_of(tensor)
    for path in operand.sources & set(broken.plan.leaves()):
        yield from resize(broken, path, got, wanted, operand)


def _sides(frame: Frame) -> tuple[ast.expr, ast.expr] | None:
    """The two sides of an equality that a line asserts, where reading them again does nothing."""
    try:
        statement = ast.parse(frame.line.strip()).body[0]
    except (SyntaxError, IndexError):
        return None
    test = statement.test if isinstance(statement, ast.Assert) else None
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return None
    sides = test.left, test.comparators[0]
    return sides if all(isinstance(node, READ) for side in sides for node in ast.walk(side)) else None


def _value(side: ast.expr, variables: Mapping[str, object]) -> tuple[int, ...]:
    """The numbers of one side; none when it holds anything else."""
    try:
        value = eval(compile(ast.Expression(side), "<assert>", "eval"), {"__builtins__": {}}, dict(variables))
    except Exception:  # noqa: BLE001  a property of the user's may raise anything: then nothing is known
        return ()
    values = tuple(value) if isinstance(value, tuple | list) else (value,)
    return tuple(int(v) for v in values) if all(isinstance(v, int) for v in values) else ()


def _tensor(side: ast.expr, variables: Mapping[str, object]) -> Tensor | None:
    """The tensor whose shape one side reads, when it is a variable."""
    for node in ast.walk(side):
        value = variables.get(node.value.id) if _shape_of_a_name(node) else None  # type: ignore[attr-defined]
        if isinstance(value, Tensor):
            return value
    return None


def _shape_of_a_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "shape" and isinstance(node.value, ast.Name)
