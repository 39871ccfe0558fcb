"""Which expressions of a file make a model: calls of its module classes, of its factories and of model libraries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from gradlint.error import LoadError
from gradlint.source.classes import ModuleClass, definitions, imported_names, module_classes, resolve
from gradlint.source.names import Function, dotted, is_function, loads, root, walk_scope
from gradlint.source.text import Source, read_beside

# Methods that return the module they are called on.
RETURNS_SELF = {"to", "cuda", "cpu", "apply", "eval", "train", "double", "float", "half", "bfloat16", "requires_grad_"}
RETURNS_SELF |= {"share_memory", "to_empty", "type", "xpu", "mps"}

# Functions that return (a wrapper of) the model they are given.
WRAPPERS = re.compile(
    r"torch\.compile|torch\.jit\.script|copy\.(deep)?copy|(torch\.nn\.)?(parallel\.)?(DataParallel|DistributedDataParallel)"
    r"|torch\.nn\.utils\.(\w+\.)*\w+"
)

# Library calls that make a model; the first that matches decides whether it is one layer of torch.nn.
LOSS = re.compile(r"(.*\.)?\w*(Loss|Criterion)(\d[dD])?")
LAYER = re.compile(
    r"torch\.nn\.(?!Sequential|Transformer|ModuleList|ModuleDict|Parameter|Module$)(modules\.\w+\.)?[A-Z]\w*"
)
LIBRARY = re.compile(
    r"torch\.nn\.(Sequential|Transformer\w*)"
    r"|torchvision\.models\.(\w+\.)*(?!get_model_weights|list_models|\w*_Weights)\w+"
    r"|timm\.(models\.)?create_model|torch\.hub\.load|segmentation_models_pytorch\.[A-Z]\w*"
    r"|transformers\.(\w+\.)*\w+(Model|For[A-Z]\w*)(\.(from_config|from_pretrained|_from_config))?"
    r"|monai\.networks\.nets\.[A-Z]\w*|torch_geometric\.nn\.(models\.)?(?:GCN|GAT|GIN|GraphSAGE|MLP)"
)

TRAINS = {"backward", "fit", "train_test_split", "manual_backward", "DataLoader", "zero_grad", "fit_transform"}
FACTORY = re.compile(
    r"_*(build|make|create|get|load|init|define|construct|new)_?\w*(model|net|network|classifier|module|mlp|cnn)\w*"
)


@dataclass(frozen=True)
class Factory:
    """A function of the file that returns a model: `makes` names the classes, factories or library calls it returns."""

    node: Function
    makes: tuple[str, ...]


@dataclass(frozen=True)
class Makers:
    """Everything in a file that makes a model."""

    source: Source
    aliases: Mapping[str, str]
    classes: Mapping[str, ModuleClass]
    factories: Mapping[str, Factory] = field(default_factory=dict)
    functions: Mapping[str, Function] = field(default_factory=dict)
    imported: frozenset[str] = frozenset()  # dotted paths of models that local imports bring in

    def maker(self, value: ast.AST | None, models: Mapping[str, str] | None = None) -> str:
        """What makes the value of an expression: a class or factory of the file, a library path, or "" for no model.

        `models` gives the makers of the variables in scope.
        """
        models = models or {}
        if isinstance(value, ast.Name):
            return models.get(value.id, "")
        if isinstance(value, ast.IfExp):
            return self.maker(value.body, models) or self.maker(value.orelse, models)
        if isinstance(value, ast.NamedExpr | ast.Await):
            return self.maker(value.value, models)
        return self._call(value, models) if isinstance(value, ast.Call) else ""

    def _call(self, call: ast.Call, models: Mapping[str, str]) -> str:
        path = dotted(call.func, self.aliases)
        if path in self.classes or path in self.factories:
            return path
        if path and WRAPPERS.fullmatch(path) and call.args:
            return self.maker(call.args[0], models)
        if isinstance(call.func, ast.Attribute) and (made := self.maker(call.func.value, models)):
            return made if self._returns_self(made, call.func.attr) else ""
        if path in self.imported or (path and not LOSS.fullmatch(path) and LAYER.fullmatch(path)):
            return path
        return path if LIBRARY.fullmatch(path) else self._registry(call.func)

    def _registry(self, function: ast.expr) -> str:
        """`models.__dict__[name](…)` and `getattr(models, name)(…)` of torchvision."""
        if isinstance(function, ast.Subscript):
            path = dotted(function.value, self.aliases)
        elif isinstance(function, ast.Call) and root(function.func) == "getattr" and function.args:
            path = dotted(function.args[0], self.aliases)
        else:
            return ""
        return path if path.startswith(("torchvision.models", "timm.models")) else ""

    def _returns_self(self, made: str, method: str) -> bool:
        if method in RETURNS_SELF:
            return True
        info = self.classes.get(made)
        return info is not None and any(
            is_function(item) and item.name == method and _ends_in_self(item) for item in info.node.body
        )

    def is_layer(self, made: str) -> bool:
        """Whether a maker is one plain layer of torch.nn, such as nn.Linear."""
        if made in self.factories:
            return all(self.is_layer(m) for m in self.factories[made].makes)
        return made not in self.classes and bool(LAYER.fullmatch(made))


def makers(source: Source) -> Makers:
    """Find the module classes and factory functions of a file, and the models that it imports from files beside it."""
    aliases = imported_names(source)
    return _factories(
        Makers(source, aliases, module_classes(source), {}, _functions(source), _local_models(source, aliases))
    )


def _functions(source: Source) -> dict[str, Function]:
    return {n.name: n for n in definitions(source.tree.body) if is_function(n)}


def _local_models(source: Source, aliases: Mapping[str, str]) -> frozenset[str]:
    """The imported names that a local file defines as a class with a forward or as a factory."""
    files: dict[Path, set[str]] = {}
    found = set()
    for path in set(aliases.values()):
        file = resolve(path, source)
        if file is None or file == source.path:
            continue
        if file not in files:
            files[file] = _models_in(file)
        if path.rsplit(".", 1)[-1].lstrip(".") in files[file]:
            found.add(path)
    return frozenset(found)


def _models_in(file: Path) -> set[str]:
    try:
        other = read_beside(file)
    except LoadError:
        return set()
    aliases = imported_names(other)
    known = _factories(Makers(other, aliases, module_classes(other), {}, _functions(other)))
    onward = {name for name, path in aliases.items() if name[:1].isupper() and resolve(path, other) not in (None, file)}
    return {n for n, info in known.classes.items() if info.forward} | set(known.factories) | onward


def _factories(known: Makers) -> Makers:
    """The makers with the factory functions found, those that call other factories too."""
    functions = known.functions
    while True:
        new = {
            name: Factory(node, made)
            for name, node in functions.items()
            if name not in known.factories and not trains(node) and (made := _returned(node, known))
        }
        if not new:
            return known
        known = replace(known, factories={**known.factories, **new})


def variables(body: list[ast.stmt], known: Makers, outer: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variable → maker, for every variable of a scope that holds a model."""
    models = dict(outer or {})
    for name, value in assignments(body):
        if made := known.maker(value, models):
            models[name] = made
    return models


def assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of every single assignment in a scope, tuples of equal length taken apart."""
    for statement in body:
        for node in walk_scope(statement):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    yield from _pairs(target, node.value)
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
                yield from _pairs(node.target, node.value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
        return
    if not isinstance(target, ast.Tuple | ast.List) or not isinstance(value, ast.Tuple | ast.List):
        return
    if len(target.elts) == len(value.elts):
        for one, part in zip(target.elts, value.elts, strict=True):
            yield from _pairs(one, part)


def trains(node: ast.AST) -> bool:
    """Whether the code trains or reads data: running it would be a training run."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else root(call.func)
            if name in TRAINS:
                return True
    return False


def _returned(function: Function, known: Makers) -> tuple[str, ...]:
    """The makers of what a function returns; its annotation or its name vouch when the expressions do not say."""
    models = variables(function.body, known)
    made = [m for value in returns(function) for m in _parts(value, known, models)]
    if made:
        return tuple(dict.fromkeys(made))
    if not list(returns(function)):
        return ()
    annotation = _annotated(function, known)
    if annotation:
        return (annotation,)
    called = [m for call in ast.walk(function) if isinstance(call, ast.Call) and (m := known.maker(call))]
    return tuple(dict.fromkeys(called)) if called and FACTORY.fullmatch(function.name) else ()


def _parts(value: ast.expr, known: Makers, models: Mapping[str, str]) -> list[str]:
    values = value.elts if isinstance(value, ast.Tuple) else [value]
    return [m for v in values if (m := known.maker(v, models))]


def _annotated(function: Function, known: Makers) -> str:
    annotation = function.returns
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body if annotation.value.isidentifier() else None
    path = dotted(annotation, known.aliases)
    module = path in known.classes or path in ("torch.nn.Module", "torch.nn.Sequential")
    return path if module else ""


def returns(function: Function) -> Iterator[ast.expr]:
    """The values that a function returns, those of nested definitions left out."""
    for statement in function.body:
        for node in walk_scope(statement):
            if isinstance(node, ast.Return) and node.value is not None:
                yield node.value


def _ends_in_self(function: Function) -> bool:
    last = function.body[-1]
    return isinstance(last, ast.Return) and loads(last) == {"self"} and isinstance(last.value, ast.Name)
