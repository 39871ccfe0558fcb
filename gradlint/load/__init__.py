"""Build a target's models and their example inputs. Runs user code: only inside a worker process (see `sandbox`)."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from gradlint.error import GradlintError, LoadError
from gradlint.load.model import LoadedModel
from gradlint.source.models import Candidate, find_expression, find_models
from gradlint.source.names import bound, is_definition, root, stars
from gradlint.source.target import Target
from gradlint.source.text import Source, read

if TYPE_CHECKING:
    from gradlint.config import Settings

NAMED = 8  # definitions that a hint lists

__all__ = ["LoadedModel", "candidates", "load", "load_each"]


def candidates(target: Target, *, all_classes: bool = False) -> tuple[Source, list[Candidate]]:
    """The target's file and the models to lint in it, found without importing it.

    Raises LoadError when the file cannot be read or parsed, holds no model, or has nothing called as the target says.
    """
    source = read(target.path, target.shown or None)
    if target.expression:
        _defined(source, target.expression)
        return source, [find_expression(source, target.expression)]
    found = find_models(source, all_classes=all_classes)
    if not found:
        hint = f"name the model, as in {source.shown}:Net(num_classes=10)"
        raise LoadError(f"no model found in {source.shown}", hint)
    return source, found


def _defined(source: Source, expression: str) -> None:
    """Raise LoadError, with the nearest name, when the file binds nothing that the expression begins with."""
    name, known = root(ast.parse(expression, mode="eval").body), bound(source.tree)
    if not name or name in known or hasattr(builtins, name) or stars(source.tree) or "globals()" in source.text:
        return
    import difflib

    made = [d.name for d in source.tree.body if is_definition(d)]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = (
        f"did you mean {near[0]}?"
        if near
        else f"it defines {', '.join(made[:NAMED])}"
        if made
        else "it defines nothing"
    )
    raise LoadError(f"there is no {name} in {source.shown}", hint)


def load(
    target: Target, settings: Settings, tracking: AbstractContextManager[object] | None = None
) -> list[LoadedModel]:
    """Every model of a target, ready to run. `tracking` is entered while they are built.

    Raises the first GradlintError when none can be loaded; those that fail beside others are named in their notes.
    """
    results = list(load_each(target, settings, tracking))
    models = [r for r in results if isinstance(r, LoadedModel)]
    failures = [r for r in results if isinstance(r, GradlintError)]
    if not models:
        raise failures[0]
    for model in models:
        model.notes += tuple(f"not linted: {failure.message}" for failure in failures)
    return models


def load_each(
    target: Target, settings: Settings, tracking: AbstractContextManager[object] | None = None
) -> Iterator[LoadedModel | GradlintError]:
    """Each model of a target, or why it could not be loaded, one by one."""
    from gradlint.load.loader import Loader

    source, found = candidates(target, all_classes=settings.all_classes)
    loader = Loader(source, settings, tracking or nullcontext())
    yield from loader.each(found)
