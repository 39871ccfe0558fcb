"""Which Python files of a project import given ones, directly or through others. Reads text only."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from gradlint.source.names import import_nodes


def dependents(changed: Iterable[str], files: Iterable[str]) -> set[str]:
    """Those of `files` (paths from the working folder, with slashes) that import one of `changed`, and so on.

    An absolute import means every file whose path ends as it is written, whatever folder it counts from: one file too
    many costs time, one too few an answer. A file that cannot be read or parsed imports nothing.
    """
    known = {name: frozenset(_imported(name)) for name in files}
    found = set(changed)
    more = found
    while more:
        wanted = {module for name in more for module in _modules(name)}
        more = {name for name, modules in known.items() if name not in found and not modules.isdisjoint(wanted)}
        found = found | more
    return found - set(changed)


def _modules(name: str) -> Iterator[str]:
    """What a file may be imported as: its path behind a slash for a relative import, and every dotted ending of it."""
    path = PurePosixPath(name).with_suffix("")
    parts = path.parts[:-1] if path.name == "__init__" else path.parts
    yield "/" + "/".join(parts)
    yield from (".".join(parts[start:]) for start in range(len(parts)))


def _imported(name: str) -> Iterator[str]:
    """The modules that a file imports, as `_modules` writes them; `from a import b` may mean a or a.b."""
    try:
        tree = ast.parse(Path(name).read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in import_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (module for alias in node.names for module in _above(alias.name))
            continue
        if not node.level:
            start = node.module or ""
            yield from _above(start)
            yield from (f"{start}.{alias.name}" for alias in node.names)
            continue
        folder = PurePosixPath("/", *PurePosixPath(name).parts[: -node.level], *(node.module or "").split("."))
        yield from (str(folder), *(str(folder / alias.name) for alias in node.names))


def _above(module: str) -> Iterator[str]:
    """A dotted module and the packages around it, which are imported with it."""
    parts = module.split(".")
    return (".".join(parts[: i + 1]) for i in range(len(parts)))
