"""What a call in a file calls, where the file or one beside it defines that."""

from __future__ import annotations

import ast
from functools import lru_cache

from gradlint.error import LoadError
from gradlint.source.classes import definitions, imported_names, resolve
from gradlint.source.names import Definition, dotted, is_definition, is_function
from gradlint.source.text import Source, read_beside

ONWARD = 3  # files that pass an imported name on, as a package's __init__ does

Place = tuple[Definition, Source]
"""A class or a function, and the file that it stands in."""


def callee(function: ast.expr, source: Source, owner: ast.ClassDef | None = None) -> Place | None:
    """The class or function of this file, or of a local import, that an expression names; None for anything else.

    Inside a class (`owner`) `self.method` is its method and `super().__init__` its base.
    """
    if isinstance(function, ast.Attribute) and owner is not None:
        if isinstance(function.value, ast.Name) and function.value.id == "self":
            method = next((n for n in owner.body if is_function(n) and n.name == function.attr), None)
            return None if method is None else (method, source)
        if ast.unparse(function).startswith("super(") and function.attr == "__init__":
            return base(owner, source)
    path = dotted(function, _aliases(source))
    return _at(path, source, ONWARD) if path else None


def base(owner: ast.ClassDef, source: Source) -> Place | None:
    """The first base class that is defined in this file or in a local import."""
    places = (callee(b, source) for b in owner.bases)
    return next((place for place in places if place is not None and isinstance(place[0], ast.ClassDef)), None)


def _at(path: str, source: Source, depth: int) -> Place | None:
    name = path.rpartition(".")[2]
    if path == name:
        node = next((d for d in definitions(source.tree.body) if is_definition(d) and d.name == name), None)
        return (node, source) if node is not None and is_definition(node) else None
    file = resolve(path, source)
    if file is None or file == source.path or not depth:
        return None
    try:
        other = read_beside(file)
    except LoadError:
        return None  # an import that the file does not need may be broken
    return _at(name, other, depth) or _at(_aliases(other).get(name, ""), other, depth - 1)


@lru_cache(maxsize=256)
def _aliases(source: Source) -> dict[str, str]:
    return imported_names(source)
