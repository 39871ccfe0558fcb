"""Which classes of a file are torch modules, decided from their bases, across local imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradlint.error import LoadError
from gradlint.source.names import Function, binds, dotted, imports, is_definition, is_function, is_main_guard, stars
from gradlint.source.text import Source, read_beside

FOREIGN = {
    "flax",
    "jax",
    "keras",
    "tensorflow",
    "mxnet",
    "paddle",
    "mindspore",
    "haiku",
    "equinox",
    "sklearn",
    "unittest",
}
FOREIGN |= {
    "abc",
    "typing",
    "enum",
    "collections",
    "dataclasses",
    "argparse",
    "pydantic",
    "builtins",
    "gym",
    "gymnasium",
}

# Bases by dotted path; the first entry that matches decides: (pattern, is a module, brings a forward of its own).
BASES: tuple[tuple[re.Pattern[str], bool, bool], ...] = (
    (re.compile(r"torch\.nn\.(modules\.\w+\.)?Module"), True, False),
    (re.compile(r"torch\.nn\..*\b(Parameter|\w*Loss)"), False, False),
    (re.compile(r"torch\.nn\.(\w+\.)*[A-Z]\w*"), True, True),
    (re.compile(r"torch\.jit\.ScriptModule|torch\.fx\.GraphModule"), True, False),
    (re.compile(r"torch\.(?!nn\.).*"), False, False),
    (re.compile(r"(.*\.)?(LightningModule|PyTorchModelHubMixin|PreTrainedModel)"), True, False),
    (re.compile(r"transformers\.(.*\.)?[A-Z]\w*(Model|PreTrainedModel|For[A-Z]\w*|Encoder|Decoder|Layer)"), True, True),
    (
        re.compile(r"(torchvision\.models|timm|torch_geometric\.nn|segmentation_models_pytorch)\.(.*\.)?[A-Z]\w*"),
        True,
        True,
    ),
    (re.compile(r"(?!{}\.)\w+(\.\w+)*\.(nn\.)?Module".format(r"\.|".join(sorted(FOREIGN)))), True, False),
)


@dataclass(frozen=True)
class ModuleClass:
    """A class of the file that derives from `nn.Module`."""

    node: ast.ClassDef
    bases: tuple[str, ...]  # dotted paths
    forward: bool  # defined here or brought by a base
    lightning: bool = False


def definitions(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The definitions of a module body, those inside `if`, `try` and `with` included, the main guard's not."""
    for statement in body:
        if is_definition(statement):
            yield statement
        elif isinstance(statement, ast.If | ast.Try | ast.With) and not is_main_guard(statement):
            for field in ("body", "orelse", "finalbody"):
                yield from definitions(getattr(statement, field, []))
            for handler in getattr(statement, "handlers", []):
                yield from definitions(handler.body)


def module_classes(source: Source) -> dict[str, ModuleClass]:
    """The module classes of a file, by name."""
    return _module_classes(source, frozenset({source.path}))


def _module_classes(source: Source, visited: frozenset[Path]) -> dict[str, ModuleClass]:
    aliases = imported_names(source)
    pending = {n.name: n for n in definitions(source.tree.body) if isinstance(n, ast.ClassDef)}
    found: dict[str, ModuleClass] = {}
    while True:
        new = {}
        for name, node in pending.items():
            if info := _classify(node, aliases, found, source, visited):
                new[name] = info
        found |= new
        pending = {name: node for name, node in pending.items() if name not in new}
        if not new:
            return {name: found[name] for name in sorted(found, key=lambda n: found[n].node.lineno)}


def _classify(
    node: ast.ClassDef,
    aliases: Mapping[str, str],
    known: Mapping[str, ModuleClass],
    source: Source,
    visited: frozenset[Path],
) -> ModuleClass | None:
    own = _defines(node, "forward") or _defines(node, "__call__")
    bases = tuple(dotted(b.value if isinstance(b, ast.Subscript) else b, aliases) for b in node.bases)
    verdicts = [_base(path, known, source, visited) for path in bases if path]
    if not any(module or (module is None and own) for module, _ in verdicts):
        return None
    lightning = any(path.endswith("LightningModule") or (path in known and known[path].lightning) for path in bases)
    forward = own or any(brings for _, brings in verdicts) or (lightning and _defines(node, "training_step"))
    return ModuleClass(node, bases, forward, lightning)


def _base(
    path: str, known: Mapping[str, ModuleClass], source: Source, visited: frozenset[Path]
) -> tuple[bool | None, bool]:
    """(is a module, brings a forward) for one base class; None when its definition is not at hand."""
    if path in known:
        return True, known[path].forward
    for pattern, module, brings in BASES:
        if pattern.fullmatch(path):
            return module, brings
    if local := resolve(path, source):
        return _imported(path, local, visited)
    return (None if "." in path and path.split(".")[0] not in FOREIGN else False), False


def _imported(path: str, file: Path, visited: frozenset[Path]) -> tuple[bool | None, bool]:
    if file in visited or len(visited) > 8:
        return False, False
    try:
        other = read_beside(file)
    except LoadError:
        return False, False
    name = path.rsplit(".", 1)[-1]
    classes = _module_classes(other, visited | {file})
    if name in classes:
        return True, classes[name].forward
    onward = imported_names(other).get(name, "")  # re-exported, as a package's __init__ does
    return _base(onward, {}, other, visited | {file}) if onward else (False, False)


def imported_names(source: Source, depth: int = 3) -> dict[str, str]:
    """Local name → dotted path of a file's imports, with what its star imports bring in from local files."""
    found: dict[str, str] = {}
    for module in stars(source.tree) if depth else ():
        prefix = module if module.endswith(".") else f"{module}."
        file = resolve(f"{prefix}x", source)
        if file is None or file == source.path:
            continue
        try:
            other = read_beside(file)
        except LoadError:
            continue  # an import that the file does not need may be broken
        passed_on = dict.fromkeys(imported_names(other, depth - 1))
        own = {n for s in other.tree.body if not isinstance(s, ast.Import | ast.ImportFrom) for n in binds(s)}
        public = [name for name in (*own, *passed_on) if not name.startswith("_")]
        found |= {name: f"{prefix}{name}" for name in public if name in own or name not in found}
    return found | imports(source.tree)


def resolve(path: str, source: Source) -> Path | None:
    """The local file that defines the dotted path of an import (its last part is the name), or None."""
    level = len(path) - len(path.lstrip("."))
    parts = path.lstrip(".").split(".")[:-1]
    folders = [source.path.parents[level - 1]] if level else [source.path.parent, *source.path.parents[1:3], Path.cwd()]
    for folder in folders:
        base = folder.joinpath(*parts)
        for file in (base.with_suffix(".py") if parts else base / "__init__.py", base / "__init__.py"):
            if file.is_file() and (parts or level):
                return file.resolve()
    return None


def _defines(node: ast.ClassDef, name: str) -> bool:
    for item in node.body:
        if is_function(item) and item.name == name:
            return not _abstract(item)
        if isinstance(item, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in item.targets):
            return True
    return False


def _abstract(function: Function) -> bool:
    """Whether a method only says that subclasses have it."""
    last = function.body[-1]
    raises = isinstance(last, ast.Raise) and last.exc is not None and "NotImplemented" in ast.unparse(last.exc)
    decorated = any("abstractmethod" in ast.unparse(d) for d in function.decorator_list)
    return decorated or (raises and len(function.body) <= 2)
