"""Run the part of a user's file that its model needs, statement by statement, and keep what failed for the report."""

from __future__ import annotations

import ast
import contextlib
import importlib
import sys
import traceback
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradlint.error import GradlintError, LoadError
from gradlint.graph.ir import Span
from gradlint.load.broken import leave_out
from gradlint.load.environment import Place, Session
from gradlint.load.stub import MissingModuleError, lenient
from gradlint.source.names import binds
from gradlint.source.text import Source

STUBS = 30  # third-party modules replaced by stand-ins before giving up

# What to try, by the type of the user's exception; the first that fits.
HINTS: tuple[tuple[type[BaseException], str], ...] = (
    (MissingModuleError, "install it in the environment that gradlint runs in"),
    (ModuleNotFoundError, "install it in the environment that gradlint runs in, or run from the project's folder"),
    (ImportError, "the installed version may differ from the one the file was written for"),
    (FileNotFoundError, "gradlint runs the file from the current folder; run it where the file's own paths hold"),
    (SystemExit, "move the exit under `if __name__ == \"__main__\":`, or name the model: gradlint 'model.py:Net()'"),
    (RecursionError, "the code calls itself without end"),
    (MemoryError, "lower the model's size, or raise --memory"),
)


@dataclass
class Runner:
    """Executes statements of one file as an import would, tolerating the failure of what the model may not need."""

    source: Source
    where: Place
    session: Session
    failed: dict[str, BaseException] = field(default_factory=dict)  # name → why the statement that binds it failed
    given: dict[str, object] = field(default_factory=dict)  # globals that the module has before it runs
    notes: list[str] = field(default_factory=list)

    def module(self, statements: Sequence[ast.stmt]) -> types.ModuleType:
        """A fresh module in which the statements were run."""
        module = self._new_module()
        self.run(statements, module.__dict__)
        return module

    def run(self, statements: Sequence[ast.stmt], namespace: dict[str, object]) -> None:
        """Execute statements in order; one that raises leaves its names in `failed`."""
        for statement in statements:
            try:
                self._execute(statement, namespace)
            except (Exception, SystemExit) as error:  # noqa: BLE001  whatever user code raises is kept in `failed`
                self.failed.update(dict.fromkeys(bound(statement) - namespace.keys(), error))

    def evaluate(self, expression: ast.expr, namespace: dict[str, object]) -> object:
        """The value of an expression."""
        return eval(self._compiled(ast.Expression(ast.fix_missing_locations(expression)), "eval"), namespace)

    def cause(self, error: BaseException) -> BaseException:
        """The error of the statement that should have bound a name, for a NameError; any other error itself."""
        seen: list[BaseException] = []
        while isinstance(error, NameError) and error not in seen:
            seen.append(error)
            error = self.failed.get(error.name or "", self.failed.get("*", error))
        return error

    def _execute(self, statement: ast.stmt, namespace: dict[str, object]) -> None:
        code = self._compiled(ast.Module([*self._future(), statement], []), "exec")
        importing = isinstance(statement, ast.Import | ast.ImportFrom)
        for _ in range(STUBS):
            try:
                with lenient() if importing else contextlib.nullcontext():
                    exec(code, namespace)
                if importing:
                    self.session.imported()
                return
            except Exception as error:
                if not (self._stub(error) or self.mend(error)):
                    raise
        raise LoadError("more than 30 imports of the file are not installed")

    def mend(self, error: BaseException) -> bool:
        """Leave out an installed package that raises when it is imported; False when that is not what happened."""
        note = leave_out(error)
        self.notes.extend([note] if note else [])
        return bool(note)

    def _stub(self, error: Exception) -> bool:
        """Stand in for a missing module that the user's code imports; False when it is not the user's to miss."""
        if not isinstance(error, ModuleNotFoundError):
            return False
        name = error.name or ""
        last = traceback.extract_tb(error.__traceback__)[-1] if error.__traceback__ else None
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        direct = last is not None and bool(frames) and self.where.is_user(frames[-1].filename)
        if isinstance(error, MissingModuleError) or not name or name in self.session.finder.names or not direct:
            return False
        self.session.finder.names.add(name)
        self.notes.append(f"not installed, so left out: {name}")
        return True

    def _compiled(self, tree: ast.Module | ast.Expression, mode: str) -> types.CodeType:
        return compile(ast.fix_missing_locations(tree), str(self.source.path), mode, dont_inherit=True)

    def _future(self) -> list[ast.stmt]:
        return [s for s in self.source.tree.body if isinstance(s, ast.ImportFrom) and s.module == "__future__"]

    def _new_module(self) -> types.ModuleType:
        name = self.where.name
        if self.where.package:
            _import_package(self.where.package, self.where.root)
        taken = sys.modules.get(name)
        other = taken is not None and not is_from(taken, self.source.path)
        if other or name in self.session.whole:
            name = f"_gradlint_{name}"  # a file called random.py must not replace the library's module
        module = types.ModuleType(name, ast.get_docstring(self.source.tree))
        module.__file__ = str(self.source.path)
        module.__package__ = self.where.package
        module.__dict__.update(self.given, __builtins__=__builtins__)
        sys.modules[name] = module
        return module


def is_from(module: types.ModuleType, path: Path) -> bool:
    """Whether the module is that of the file."""
    return Path(getattr(module, "__file__", None) or "/").resolve() == path


def bound(statement: ast.stmt) -> set[str]:
    """The names that a statement binds; "*" stands for those of a star import."""
    starred = isinstance(statement, ast.ImportFrom) and any(a.name == "*" for a in statement.names)
    return {"*"} if starred else set(binds(statement))


def _import_package(package: str, root: Path) -> None:
    """Import the packages that hold the file; one whose `__init__` fails is entered empty, for relative imports."""
    parts = package.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        try:
            importlib.import_module(name)
        except (Exception, SystemExit):  # noqa: BLE001  whatever the package's own code raises, the file may not need it
            module = types.ModuleType(name)
            module.__path__ = [str(root.joinpath(*parts[:count]))]
            sys.modules[name] = module


def user_error(error: BaseException, where: Place, source: Source, doing: str) -> GradlintError:
    """A LoadError for an exception of the user's code: type, message, the innermost line of theirs, and a hint."""
    if isinstance(error, GradlintError):
        return error
    span = innermost(error, where, source)
    text = str(error) or "no message"
    if isinstance(error, SystemExit):
        text = f"the file exits (sys.exit({error.code!r}))"
    hint = next((hint for kind, hint in HINTS if isinstance(error, kind)), "")
    found = LoadError(f"{doing}: {type(error).__name__}: {_one_line(text)}", hint, span)
    found.__cause__ = error
    return found


def innermost(error: BaseException, where: Place, source: Source) -> Span | None:
    """The deepest line of the user's own code that an exception passed through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if where.is_user(f.filename)]
    if not frames:
        return None
    path, line = frames[-1].filename, frames[-1].lineno or 1
    return Span(source.shown if Path(path) == source.path else path, line)


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines)[:500]
