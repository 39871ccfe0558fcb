"""What a run lints: the targets of the command line and of the configuration, each with its settings."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gradlint.config import Ignore, Model, Settings
from gradlint.error import GradlintError, UsageError
from gradlint.load import artefact, candidates
from gradlint.result import TargetReport, failed
from gradlint.source.target import FORMS, Target, expand, parse
from gradlint.source.walk import model_files


@dataclass(frozen=True)
class Job:
    """A target that a worker must analyse, with the settings that hold for it."""

    target: Target
    settings: Settings


@dataclass(frozen=True)
class Table:
    """A `[[tool.gradlint.model]]` table and the target that it names."""

    target: Target
    given: dict[str, Any]


def plan(texts: Sequence[str], settings: Settings) -> list[Job | TargetReport]:
    """The jobs of a run in order, and the reports of targets that need none; without texts, the configured models.

    A file for which model tables name expressions is linted as they say. Raises UsageError for a table whose target
    cannot be parsed, and when there is nothing to lint.
    """
    tables = [_table(model, settings) for model in settings.models]
    if not (texts or tables):
        raise UsageError("nothing to lint", "name a TARGET, or configure [[tool.gradlint.model]]")
    if not texts:
        return [_checked(table.target, _own(settings, [table])) for table in tables]
    return [entry for text in texts for entry in _planned(text, tables, settings)]


def _planned(text: str, tables: Sequence[Table], settings: Settings) -> Iterator[Job | TargetReport]:
    walk = partial(model_files, exclude=settings.exclude, root=Path(settings.root or "."), gitignore=settings.gitignore)
    try:
        targets = expand([text], walk)
    except GradlintError as error:
        yield failed(text, text.partition(":")[0], error)
        return
    for target in targets:
        for chosen, given in _configured(target, tables):
            yield _checked(chosen, _own(settings, given))


def _configured(target: Target, tables: Sequence[Table]) -> Iterator[tuple[Target, list[Table]]]:
    """The target, or the expressions that tables name in its file, with the tables that hold for each."""
    here = [table for table in tables if table.target.path.resolve() == target.path.resolve()]
    general = [table for table in here if not table.target.expression]
    named = [table for table in here if table.target.expression]
    if target.expression or not named:
        yield target, [*general, *(table for table in named if _same(table.target.expression, target.expression))]
        return
    for table in named:
        text = f"{target.shown}:{table.target.expression}"
        yield replace(target, text=text, expression=table.target.expression, found=False), [*general, table]


def _checked(target: Target, settings: Settings) -> Job | TargetReport:
    """A job, or the report that the file holds no model or cannot be read."""
    if target.form and target.found and artefact.lacks(target.form):
        return TargetReport(target.text, target.shown, None, "skipped")
    try:
        if target.form:
            artefact.check(target)
        else:
            candidates(target, all_classes=settings.all_classes)
    except GradlintError as error:
        if (target.found or settings.skip_modelless) and error.message.startswith("no model found"):
            return TargetReport(target.text, target.shown, None, "skipped")
        return failed(target.text, target.shown, error)
    return Job(target, settings)


def _own(settings: Settings, tables: Sequence[Table]) -> Settings:
    """The settings with those of the tables on top, later ones winning."""
    for table in tables:
        given = dict(table.given)
        ignores = tuple(Ignore(rule, reason) for rule, reason in given.pop("ignores", {}).items())
        given |= {"inputs_from": "config"} if "inputs" in given else {}
        settings = replace(settings, **given, ignores=(*settings.ignores, *ignores))
    return settings


def _table(model: Model, settings: Settings) -> Table:
    """The table's target; a path in it counts from the configuration's folder."""
    path, colon, expression = model.target.partition(":")
    rooted = Path(settings.root or ".") / path
    inside = rooted.suffix in {".py", *FORMS} or rooted.exists()
    text = f"{os.path.relpath(rooted)}{colon}{expression}" if inside else model.target
    return Table(parse(text), dict(model.given))


def _same(one: str, other: str) -> bool:
    """Whether two expressions are alike but for spelling; a mere name stands for every call of it."""
    first, second = ast.parse(one, mode="eval").body, ast.parse(other, mode="eval").body
    if isinstance(first, ast.Name) and isinstance(second, ast.Call):
        second = second.func
    return ast.dump(first) == ast.dump(second)
