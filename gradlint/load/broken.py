"""Installed packages that raise when they are imported: the part that fails is left out, or else the whole package."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterator, Sequence

from gradlint.load.stub import StubModule

OURS = {"torch", "gradlint", "numpy"}  # without these nothing works, so nothing of them is left out


class Leaver(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands first on the import path: `parts` are imported empty, `packages` look as if they were not installed."""

    def __init__(self) -> None:
        self.parts: set[str] = set()
        self.packages: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for a part that is left out; every other import goes on."""
        return importlib.machinery.ModuleSpec(fullname, self) if fullname in self.parts else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """The empty part."""
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


class Hiding(importlib.abc.MetaPathFinder):
    """A finder of Python's own that does not see the packages that are left out."""

    def __init__(self, finder: importlib.abc.MetaPathFinder, left_out: set[str]) -> None:
        self.finder = finder
        self.left_out = left_out

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """What the finder finds, or nothing for a package that is left out."""
        return None if fullname.split(".")[0] in self.left_out else self.finder.find_spec(fullname, path, target)

    def __getattr__(self, name: str) -> object:
        return getattr(self.finder, name)


LEAVER = Leaver()


def leave_out(error: BaseException) -> str:
    """Leave out what failed to import, for the rest of the process, and return a note; "" when there is nothing to do.

    First the submodule whose own code raised, then its whole package. What was imported on top of it is forgotten, so
    that the import can be tried again.
    """
    cause = _cause(error)
    modules = list(_modules(cause))
    if isinstance(cause, ImportError) or not modules:
        return ""
    name, package = modules[-1], modules[-1].split(".")[0]
    if package in OURS or package in LEAVER.packages or "site-packages" not in _file(name):
        return ""
    _install()
    if name != package and name not in LEAVER.parts:
        LEAVER.parts.add(name)
        left = name
    else:
        LEAVER.packages.add(package)
        left = package
    _forget({m.split(".")[0] for e in _chain(error) for m in _modules(e, anywhere=True)} | {package})
    reason = next(iter(str(cause).splitlines()), "")
    return f"fails to import, so left out: {left} ({type(cause).__name__}: {reason})"


def _install() -> None:
    """Put the two finders in place, once; the list is changed in place, because others restore it by reference."""
    if LEAVER not in sys.meta_path:
        sys.meta_path[:] = [LEAVER, *(Hiding(f, LEAVER.packages) for f in sys.meta_path)]  # type: ignore[arg-type]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__


def _cause(error: BaseException) -> BaseException:
    """The exception that a library's lazy import wrapped."""
    return list(_chain(error))[-1]


def _modules(error: BaseException, *, anywhere: bool = False) -> Iterator[str]:
    """The modules whose import the exception passed through, outermost first; or all whose code it did."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if anywhere or frame.f_code.co_name == "<module>":
            yield str(frame.f_globals.get("__name__", ""))
        trace = trace.tb_next


def _file(name: str) -> str:
    """Where a module is defined; the import system forgets the module itself when it fails, but not its package."""
    module = sys.modules.get(name)
    if module is not None and getattr(module, "__file__", None):
        return str(module.__file__)
    spec = importlib.machinery.PathFinder.find_spec(name.split(".")[0])
    return str(spec.origin) if spec is not None else ""


def _forget(packages: set[str]) -> None:
    """Forget the modules of installed packages, so that they are imported anew."""
    for name, module in list(sys.modules.items()):
        package = name.split(".")[0]
        if package in packages - OURS and "site-packages" in (getattr(module, "__file__", None) or ""):
            del sys.modules[name]
