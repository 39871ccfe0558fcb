"""What the user asks to lint: a file, an expression in a file, an expression in a module, or a directory."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from gradlint.error import LoadError, UsageError
from gradlint.source.walk import model_files

Walk = Callable[[Path], Iterable[Path]]

# A file that holds a finished model, by suffix; nothing in it is source.
FORMS = {".onnx": "onnx", ".pt2": "exported", ".pt": "pickled", ".pth": "pickled", ".torchscript": "pickled"}

_FILE = re.compile(r"(?P<path>.*?\.pyw?)(?::(?P<expression>.+))?", re.DOTALL)
_MODULE = re.compile(r"(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):(?P<expression>.+)", re.DOTALL)


@dataclass(frozen=True)
class Target:
    """One thing to lint: `text` as the user wrote it, its file, and the expression or "" for every model in it."""

    text: str
    path: Path
    expression: str = ""
    shown: str = ""  # the file's path as the user wrote it
    found: bool = False  # met while walking a directory, so a file without a model is no error

    @property
    def form(self) -> str:
        """What kind of finished model the file holds; "" for Python source."""
        return FORMS.get(self.path.suffix.lower(), "")


def expand(texts: Iterable[str], walk: Walk | None = None) -> list[Target]:
    """The targets that the command line names, directories walked, each file once, in order.

    `walk` gives the files of a folder; without it, `gradlint.source.walk.model_files` does.

    Raises UsageError for an expression that cannot be parsed and LoadError for a path that does not exist.
    """
    seen: dict[tuple[Path, str], Target] = {}
    for text in texts:
        for target in _targets(text, walk):
            seen.setdefault((target.path.resolve(), target.expression), target)
    return list(seen.values())


def parse(text: str) -> Target:
    """Parse `model.py`, `model.py:EXPR`, `package.module:EXPR` or `net.onnx`; a Python file need not exist yet.

    Raises UsageError for anything else, LoadError for a module that is not on the path.
    """
    if match := _FILE.fullmatch(text):
        path, expression = match["path"], match["expression"] or ""
        return Target(text, Path(path), _checked(expression), path)
    if match := _MODULE.fullmatch(text):
        path = _module_file(match["module"])
        return Target(text, path, _checked(match["expression"]), str(path))
    if Path(text).exists():
        return Target(text, Path(text), "", text)
    hint = "a target is model.py, model.py:EXPR, package.module:EXPR, net.onnx, program.pt2 or a directory"
    raise LoadError(f"no such file or directory: {text}", hint)


def _targets(text: str, walk: Walk | None) -> Iterator[Target]:
    folder = Path(text)
    if not folder.is_dir():
        yield parse(text)
        return
    for path in (walk or model_files)(folder):
        yield Target(str(path), path, "", str(path), found=True)


def _checked(expression: str) -> str:
    if not expression:
        return ""
    try:
        ast.parse(expression.strip(), mode="eval")
    except SyntaxError as error:
        hint = "write a name or a call, as in model.py:'Net(num_classes=10)'"
        raise UsageError(f"cannot parse the expression {expression!r}: {error.msg}", hint) from error
    return expression.strip()


def _module_file(module: str) -> Path:
    """The file of a dotted module, found without importing its parents."""
    locations: list[str] | None = [str(Path.cwd()), *sys.path]
    prefix, spec = "", None
    for part in module.split("."):
        prefix = f"{prefix}.{part}" if prefix else part
        spec = PathFinder.find_spec(prefix, locations)
        if spec is None:
            raise LoadError(
                f"no module named {prefix}", "run from the project's folder, or name the file: model.py:EXPR"
            )
        locations = list(spec.submodule_search_locations or [])
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        raise LoadError(f"{module} has no Python source to lint")
    return Path(spec.origin)
