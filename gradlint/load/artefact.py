"""Files that hold a finished model: which of them can be read, and how each kind is loaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from gradlint.error import LoadError
from gradlint.load import scripted_archive
from gradlint.onnx import INSTALL

if TYPE_CHECKING:
    from gradlint.config import Settings
    from gradlint.load.model import LoadedModel
    from gradlint.source.target import Target

NEEDED = {"onnx": ("onnx", INSTALL)}  # form → package that reading it takes, and how to get it


def check(target: Target) -> None:
    """Raise LoadError when the file is not there, or what reads it is not. Reads nothing of it."""
    if not target.path.is_file():
        raise LoadError(f"no such file: {target.shown or target.path}")
    if target.form == "pickled" and not scripted_archive.is_scripted(target.path):
        hint = "lint the source with --weights, or save a program: torch.export.save(program, 'net.pt2')"
        raise LoadError(f"{target.shown} holds weights or a pickle, not a graph that can be read", hint)
    if lacks(target.form):
        package, hint = NEEDED[target.form]
        raise LoadError(f"reading {target.path.suffix} files needs the {package} package", hint)


def lacks(form: str) -> bool:
    """Whether the package that reads files of this form is missing."""
    return form in NEEDED and importlib.util.find_spec(NEEDED[form][0]) is None


def load(target: Target, settings: Settings) -> LoadedModel:
    """The file's model with example inputs. Raises GradlintError when it cannot be read or does not fit the options."""
    path, shown = Path(target.path), target.shown or str(target.path)
    if target.form == "onnx":
        from gradlint.load import onnx_model

        return onnx_model.load(path, shown, settings)
    if target.form == "pickled":
        from gradlint.load import scripted_file

        return scripted_file.load(path, shown, settings)
    from gradlint.load import exported_file

    return exported_file.load(path, shown, settings)
