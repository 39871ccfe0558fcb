"""The surroundings in which a user's file is run: its own folder first on the path, nothing of ours disturbed."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gradlint.load.guess import guess
from gradlint.load.stub import StubFinder

OWN = Path(__file__).resolve().parents[1]  # gradlint itself, which may lie in the working directory

# Weights are never downloaded while linting.
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "WANDB_MODE": "disabled"}


@dataclass(frozen=True)
class Place:
    """Where a file sits in the import system: `__main__` programs see its folder first, a package its parent.

    `project` is the working directory where the file lies below it: packages beside the file's own folder are found
    there as well, as an installed project's are, but after everything that is installed.
    """

    path: Path
    name: str  # the module's dotted name
    root: Path  # the folder that goes on sys.path
    project: Path | None = None

    @property
    def package(self) -> str:
        """The dotted name of the package that holds the file, or ""."""
        return self.name.rpartition(".")[0]

    @property
    def folders(self) -> tuple[Path, Path]:
        """The file's own folder and the package's, in the order in which modules are looked up.

        A program sees its own folder first; where that holds a module of the package's name, it would hide the package.
        """
        own = self.path.parent
        hidden = self.package and (own / f"{self.name.partition('.')[0]}.py").exists()
        return (self.root, own) if hidden else (own, self.root)

    def is_user(self, filename: str) -> bool:
        """Whether a source file belongs to the user's project rather than to an installed package."""
        home = self.root / self.name.split(".")[0] if self.package else self.root
        if filename.startswith("<") or not Path(filename).is_absolute() or Path(filename).is_relative_to(OWN):
            return False
        relatives = [os.path.relpath(filename, folder) for folder in (home, self.project) if folder is not None]
        return any(not relative.startswith("..") and "site-packages" not in relative for relative in relatives)


def place(path: Path, parents: int = 0) -> Place:
    """The module name of a file and the folder that must be importable for it.

    `parents` is how many packages up the file's relative imports reach: so many folders are packages, with or without
    an `__init__.py`.
    """
    own = [] if path.stem == "__init__" else [path.stem]
    folder, parts = path.parent, own
    while ((folder / "__init__.py").exists() or len(parts) < len(own) + parents) and folder.name.isidentifier():
        folder, parts = folder.parent, [folder.name, *parts]
    here = Path.cwd()
    return Place(path, ".".join(parts), folder, here if path.is_relative_to(here) else None)


@dataclass
class Session:
    """What one run of user code had to do without: modules that are not installed, and options that nobody gave.

    `whole` names modules that were imported as a whole: a run of a part of the same file does not take their place.
    """

    finder: StubFinder
    guessed: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    imported: Callable[[], None] = lambda: None  # called after every import statement of the file
    whole: set[str] = field(default_factory=set)
    empty: list[Any] = field(default_factory=list)  # modules whose pretrained weights were not fetched


@contextlib.contextmanager
def surroundings(where: Place) -> Iterator[Session]:
    """Run user code as Python would run it, with stdout on stderr; everything changed here is restored."""
    session = Session(StubFinder(where.is_user))
    project = [] if where.project is None else [str(where.project)]
    parse = _parse_known(argparse.ArgumentParser.parse_known_args, session.guessed)
    with (
        contextlib.redirect_stdout(sys.stderr),
        patched(sys, "argv", [str(where.path)]),
        patched(sys, "path", [*map(str, where.folders), *sys.path, *project]),
        patched(sys, "dont_write_bytecode", True),
        _finder(session.finder),
        patched(argparse.ArgumentParser, "parse_args", _parse_args),
        patched(argparse.ArgumentParser, "parse_known_args", parse),
        _class_attributes(argparse.Namespace),
        _working_directory(),
        _signal_handlers(),
        _environment(OFFLINE),
    ):
        yield session


@contextlib.contextmanager
def patched(owner: object, name: str, value: object) -> Iterator[None]:
    """Inside, `owner.name` is `value`."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextlib.contextmanager
def _finder(finder: StubFinder) -> Iterator[None]:
    """Asked after every other finder; the list is changed in place, since a broken package changes it for good."""
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path[:] = [f for f in sys.meta_path if getattr(f, "finder", f) is not finder]


@contextlib.contextmanager
def _working_directory() -> Iterator[None]:
    before = Path.cwd()
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def _signal_handlers() -> Iterator[None]:
    """User code may install handlers; ours come back. Only the main thread can set them at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: value for name, value in values.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)


def _parse_args(parser: argparse.ArgumentParser, args: object = None, namespace: object = None) -> object:
    return parser.parse_known_args([], namespace)[0]


def _parse_known(original: Callable[..., object], guessed: dict[str, object]) -> Callable[..., object]:
    """Every option at its default; a required number or choice is guessed by its name."""

    def parse(parser: argparse.ArgumentParser, args: object = None, namespace: object = None) -> object:
        for action in parser._actions:
            if not action.required or action.dest in ("help", argparse.SUPPRESS):
                continue
            action.required = False
            if not action.option_strings and action.nargs is None:
                action.nargs = "?"
            if action.default is None and (action.choices or action.type in (int, float)):
                kind = getattr(action.type, "__name__", "")
                action.default = next(iter(action.choices)) if action.choices else guess(action.dest, None, kind)
                guessed[action.dest] = action.default
        return original(parser, [], namespace)

    return parse


@contextlib.contextmanager
def _class_attributes(owner: type) -> Iterator[None]:
    """Attributes that are put on a class while user code runs are taken off again."""
    before = set(vars(owner))
    try:
        yield
    finally:
        for name in set(vars(owner)) - before:
            delattr(owner, name)
