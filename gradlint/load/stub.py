"""Stand-ins for third-party modules that are not installed and that the model may not need."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn


class MissingModuleError(ImportError):
    """The user's code used something from a module that is not installed."""


class Stub:
    """A name of a module that is not installed: it may be imported and mentioned, and raises when it is used."""

    def __init__(self, path: str) -> None:
        self.__dict__["_path"] = path

    def __getattr__(self, name: str) -> Stub:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Stub(f"{self._path}.{name}")

    def __getitem__(self, key: object) -> Stub:
        return self  # an annotation, such as Float[Tensor, "batch"]

    def __or__(self, other: object) -> Stub:
        return self

    __ror__ = __or__

    def __setitem__(self, key: object, value: object) -> None:
        if not _LENIENT:
            self._used()

    def __call__(self, *args: object, **kwargs: object) -> Stub:
        """Another stand-in while importing; otherwise MissingModuleError."""
        if not _LENIENT:
            self._used()
        return Stub(f"{self._path}(…)")

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        if not _LENIENT:
            self._used()
        name = str(self.__dict__["_path"]).rsplit(".", 1)[-1]
        return (type(name, (), {"__new__": self._used, "__init_subclass__": _accept}),)

    def _used(self, *args: object, **kwargs: object) -> NoReturn:
        path = str(self.__dict__["_path"])
        raise MissingModuleError(f"the model uses {path}, which is not installed", name=path.split(".")[0])

    __iter__ = __enter__ = __add__ = __mul__ = __len__ = __contains__ = _used


_LENIENT: list[bool] = []  # not empty while a module is imported that may not need what it calls


@contextlib.contextmanager
def lenient() -> Iterator[None]:
    """Inside, calling a stand-in gives another one: an imported module may call what the model never needs."""
    _LENIENT.append(True)
    try:
        yield
    finally:
        _LENIENT.pop()


def _accept(*args: object, **kwargs: object) -> None:
    """Any subclass is accepted; making an instance of it raises."""


class StubModule(types.ModuleType):
    """A module that is not installed."""

    def __getattr__(self, name: str) -> Stub:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Stub(f"{self.__name__}.{name}")


class StubFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers imports of the modules in `names`, for code of the user only; every other import fails as it would."""

    def __init__(self, is_user: Callable[[str], bool]) -> None:
        self.names: set[str] = set()
        self.is_user = is_user

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """A spec for a missing module that the user's code imports."""
        wanted = any(fullname == name or fullname.startswith(f"{name}.") for name in self.names)
        if not wanted or not self.is_user(_importer()):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        """The stand-in."""
        return StubModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


def _importer() -> str:
    """The file whose import statement is being served."""
    frame = sys._getframe(2)
    while frame.f_back and (frame.f_code.co_filename == __file__ or "importlib" in frame.f_code.co_filename):
        frame = frame.f_back
    return frame.f_code.co_filename
