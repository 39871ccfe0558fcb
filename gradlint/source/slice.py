"""The statements that a name depends on, so that a script which trains when it is imported is not run."""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from gradlint.source.calls import trains
from gradlint.source.names import Function, binds, dotted, free, is_definition, is_main_guard, root, walk_scope

Node = TypeVar("Node", bound=ast.AST)

# Methods that leave what they are called on as it was, or that only training needs.
INERT_METHODS = {
    "eval",
    "train",
    "cuda",
    "to",
    "cpu",
    "load_state_dict",
    "state_dict",
    "parameters",
    "forward",
    "zero_grad",
}
INERT_METHODS |= {
    "save",
    "show",
    "summary",
    "fit",
    "compile",
    "step",
    "backward",
    "modules",
    "named_parameters",
    "children",
}
INERT_METHODS |= {
    "predict",
    "evaluate",
    "print_help",
    "print_usage",
    "save_pretrained",
    "share_memory",
    "items",
    "keys",
    "values",
}

# Methods that change a model although their result is assigned: `_ = net.apply(init)`.
MUTATING_METHODS = {
    "apply",
    "requires_grad_",
    "add_module",
    "register_module",
    "register_parameter",
    "append",
    "extend",
    "insert",
}

INERT_CALLS = re.compile(
    r"(.*\.)?_*(train|fit|test|eval|main|run|plot|show|print|save|summary|load|log|draw|visuali[sz]e|export|benchmark|len|count|profile)\w*"
)
CHANGING_CALLS = re.compile(
    r"torch\.nn\.init\..*|(.*\.)?\w*(init|reset|freeze|prune|spectral_norm|weight_norm|replace|inject|setattr)\w*"
)

# Statements that set the stage for everything after them.
STAGE = re.compile(r"sys\.path\.(append|insert|extend)|torch\.set_default_(dtype|tensor_type)|torch\.serialization\..*")

# Calls that fetch or read a data set: never run, whatever depends on them is guessed.
DATA = re.compile(
    r"torchvision\.datasets\..*|datasets\.load_dataset|torchtext\.datasets\..*|(.*\.)?DataLoader|(.*\.)?fetch_\w+"
    r"|(.*\.)?urlretrieve|(.*\.)?urlopen|wget\.download|requests\.\w+|input|(.*\.)?snapshot_download|(.*\.)?load_dataset"
    r"|torchaudio\.datasets\..*|gdown\.\w+|(.*\.)?init_process_group|wandb\.\w+|mlflow\.\w+"
)


@dataclass(frozen=True)
class Slicer:
    """Slices the statements of one scope of a file.

    `targets` are the models: a statement that changes one (`net.apply(init)`) is kept, one that only uses it is not.
    """

    aliases: Mapping[str, str]
    functions: Mapping[str, Function] = field(default_factory=dict)
    classes: frozenset[str] = frozenset()

    def slice(
        self, body: Sequence[ast.stmt], names: AbstractSet[str], targets: frozenset[str] = frozenset()
    ) -> list[ast.stmt]:
        """The statements of `body` that `names` depend on, in order; nested blocks are pruned.

        What is bound only after the targets were made is kept too: a forward may read it.
        """
        body = [s for s in body if not is_main_guard(s)]
        kept = self._kept(body[: self._end(body, targets)], names)
        later = unbound(kept.values(), names)
        if targets and later:
            kept = {**self._kept(body, later - targets), **kept}
        return [kept[index] for index in sorted(kept)]

    def _kept(self, body: Sequence[ast.stmt], names: AbstractSet[str]) -> dict[int, ast.stmt]:
        """Index → pruned statement, for the statements that the names depend on, transitively."""
        needed, kept = set(names), dict[int, ast.stmt]()
        while True:
            for index, statement in enumerate(body):
                if pruned := self._prune(statement, needed):
                    kept[index] = pruned
            grown = needed.union(*(free(s) for s in kept.values()))
            if grown == needed:
                return kept
            needed = grown

    def _end(self, body: Sequence[ast.stmt], targets: frozenset[str]) -> int:
        """One past the last statement that makes or changes a target."""
        last = [i for i, statement in enumerate(body) if targets and self._prune(statement, set(targets))]
        return last[-1] + 1 if last else len(body)

    def _prune(self, statement: ast.stmt, needed: set[str]) -> ast.stmt | None:
        """The part of a statement that binds or changes a needed name, or None."""
        return PRUNERS.get(type(statement), _drop)(self, statement, needed)

    def _block(self, body: Sequence[ast.stmt], needed: set[str]) -> list[ast.stmt]:
        return [kept for statement in body if (kept := self._prune(statement, needed))]

    def _definition(self, statement: ast.stmt, needed: set[str]) -> ast.stmt | None:
        return statement if is_definition(statement) and statement.name in needed else None

    def _import(self, statement: ast.stmt, needed: set[str]) -> ast.stmt | None:
        assert isinstance(statement, ast.Import | ast.ImportFrom)
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            return statement
        wanted = [a for a in statement.names if a.name == "*" or (a.asname or a.name.split(".")[0]) in needed]
        return _with(statement, names=wanted) if wanted else None

    def _assign(self, statement: ast.stmt, needed: set[str]) -> ast.stmt | None:
        assert isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign)
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        roots = {root(t) for t in targets if isinstance(t, ast.Attribute | ast.Subscript)} - self.aliases.keys()
        bound = (binds(statement) | roots) & needed
        if not bound and not self._changes(statement, needed, MUTATING_METHODS):
            return None
        return None if statement.value is not None and self.unavailable(statement.value) else statement

    def _expression(self, statement: ast.stmt, needed: set[str]) -> ast.stmt | None:
        calls = [dotted(n.func, self.aliases) for n in ast.walk(statement) if isinstance(n, ast.Call)]
        if any(STAGE.fullmatch(path) for path in calls):
            return statement
        if not self._changes(statement, needed) or self.unavailable(statement):
            return None
        return statement

    def _compound(self, statement: ast.stmt, needed: set[str]) -> ast.stmt | None:
        needed = needed | self._passed_on(statement, needed)
        blocks = {f: getattr(statement, f) for f in ("body", "orelse", "finalbody") if getattr(statement, f, None)}
        kept = {field: self._block(body, needed) for field, body in blocks.items()}
        handlers = [
            _with(h, body=self._block(h.body, needed) or [ast.copy_location(ast.Pass(), h)])
            for h in _handlers(statement)
        ]
        bound = binds(_with(statement, body=[], orelse=[])) & needed if isinstance(statement, ast.With) else set()
        if not any(kept.values()) and not bound:
            return None
        if isinstance(statement, ast.For | ast.While | ast.With) and self.unavailable(_header(statement)):
            return None
        kept["body"] = kept.get("body") or [ast.copy_location(ast.Pass(), statement)]
        extra = {"handlers": handlers} if isinstance(statement, ast.Try) else {}
        return _with(statement, **{**{field: [] for field in blocks}, **kept, **extra})

    def _passed_on(self, statement: ast.stmt, needed: set[str]) -> AbstractSet[str]:
        """The loop variables of a loop over parts of a needed variable: `for m in model.modules()`."""
        if not isinstance(statement, ast.For):
            return frozenset()
        inner = statement.iter.args if isinstance(statement.iter, ast.Call) else []
        over = {root(node) for node in (statement.iter, *inner)} & needed
        names = {n.id for n in ast.walk(statement.target) if isinstance(n, ast.Name)}
        return names if any(not self._fixed(name) for name in over) else frozenset()

    def _changes(self, statement: ast.AST, needed: set[str], methods: set[str] | None = None) -> bool:
        """Whether a call in the statement changes a needed variable."""
        calls = [n for n in walk_scope(statement) if isinstance(n, ast.Call)]
        return any(self._changed_by(call, needed, methods) for call in calls)

    def _changed_by(self, call: ast.Call, needed: set[str], methods: set[str] | None) -> bool:
        start = root(call.func)
        if isinstance(call.func, ast.Attribute) and start in needed and not self._fixed(start):
            return call.func.attr in methods if methods else call.func.attr not in INERT_METHODS
        if methods is not None:
            return False
        passed = {root(a) for a in [*call.args, *(k.value for k in call.keywords)]} & needed
        return any(not self._fixed(name) for name in passed) and self._changing(call.func, start)

    def _changing(self, function: ast.expr, start: str) -> bool:
        path = dotted(function, self.aliases)
        if CHANGING_CALLS.fullmatch(path):
            return True
        local = self.functions.get(start)
        return local is not None and not INERT_CALLS.fullmatch(path) and not trains(local)

    def _fixed(self, name: str) -> bool:
        """Whether a name is an import or a definition: calling it is no change of it."""
        return name in self.aliases or name in self.functions or name in self.classes

    def unavailable(self, node: ast.AST) -> bool:
        """Whether running this would read a data set or train."""
        for call in ast.walk(node):
            if not isinstance(call, ast.Call):
                continue
            if any(k.arg == "download" and getattr(k.value, "value", False) for k in call.keywords):
                return True
            local = self.functions.get(root(call.func)) if isinstance(call.func, ast.Name) else None
            if DATA.fullmatch(dotted(call.func, self.aliases)) or (local is not None and trains(local)):
                return True
        return False


def unbound(statements: Iterable[ast.stmt], names: AbstractSet[str] = frozenset()) -> frozenset[str]:
    """The names that the statements (and whoever asks for `names`) read and that none of them binds."""
    bound = frozenset[str]().union(*(binds(s) for s in statements))
    return frozenset(names).union(*(free(s) for s in statements)) - bound


def _drop(slicer: Slicer, statement: ast.stmt, needed: set[str]) -> ast.stmt | None:
    return None


PRUNERS: dict[type[ast.stmt], Callable[[Slicer, ast.stmt, set[str]], ast.stmt | None]] = {
    ast.FunctionDef: Slicer._definition,
    ast.AsyncFunctionDef: Slicer._definition,
    ast.ClassDef: Slicer._definition,
    ast.Import: Slicer._import,
    ast.ImportFrom: Slicer._import,
    ast.Assign: Slicer._assign,
    ast.AnnAssign: Slicer._assign,
    ast.AugAssign: Slicer._assign,
    ast.Expr: Slicer._expression,
    ast.If: Slicer._compound,
    ast.For: Slicer._compound,
    ast.While: Slicer._compound,
    ast.With: Slicer._compound,
    ast.Try: Slicer._compound,
}


def _with(node: Node, **fields: object) -> Node:
    clone = copy.copy(node)
    for name, value in fields.items():
        setattr(clone, name, value)
    return clone


def _handlers(statement: ast.stmt) -> list[ast.ExceptHandler]:
    return list(getattr(statement, "handlers", []))


def _header(statement: ast.For | ast.While | ast.With) -> ast.AST:
    """The statement without its block: the iterator, the test or the context."""
    return _with(statement, body=[], orelse=[]) if not isinstance(statement, ast.With) else _with(statement, body=[])
