"""The command that makes the same report again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields

from gradlint.config import Settings
from gradlint.result import Report

# Field of Settings → option; what only concerns the way of showing is left out.
OPTIONS = {
    "inputs": "--input",
    "init": "--init",
    "loss": "--loss",
    "weights": "--weights",
    "select": "--select",
    "ignore": "--ignore",
    "device": "--device",
    "seed": "--seed",
    "seeds": "--seeds",
    "dtype": "--dtype",
    "optimizer": "--optimizer",
    "data": "--data",
    "steps": "--steps",
    "rate": "--lr",
    "timeout": "--timeout",
}
FLAGS = {  # when not the default
    "probe": "--no-probe",
    "fix": "--no-try-fixes",
    "prove": "--prove",
    "all_classes": "--all-classes",
}


def command(report: Report) -> str:
    """`gradlint TARGET… OPTIONS`, with the settings that differ from the defaults."""
    targets = dict.fromkeys(target.target for target in report.targets)
    return shlex.join(["gradlint", *targets, *_options(report)])


def _options(report: Report) -> Iterator[str]:
    for field in fields(Settings):
        given = report.settings.get(field.name, field.default)
        if isinstance(given, list):
            given = tuple(given)
        if given == field.default:
            continue
        if field.name in FLAGS:
            yield FLAGS[field.name]
        elif field.name in OPTIONS:
            for value in given if isinstance(given, tuple) else (given,):
                yield from (OPTIONS[field.name], str(value))
