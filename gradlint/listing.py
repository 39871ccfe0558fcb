"""Lists that the command line prints instead of a report: settings with their origin, files, rules, counts by rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from gradlint.config import Ignore, Model, Settings
from gradlint.config_file import Configuration
from gradlint.config_keys import KEYS
from gradlint.finding import SEVERITIES
from gradlint.plan import Job, plan
from gradlint.report.source import shown
from gradlint.result import Report
from gradlint.rule import Rule

OWN = ("inputs", "init", "loss", "weights")  # fields that a model table can set
NAMES = {key.field: name for name, key in KEYS.items() if key.field != "ignores"}


def settings(found: Settings, configuration: Configuration, told: Mapping[str, Any]) -> Iterator[str]:
    """Every setting that a configuration can hold, its value, and where it comes from."""
    yield f"configuration file: {shown(str(configuration.path)) if configuration.path else 'none'}"
    rows = [
        (NAMES.get(f.name, f.name.replace("_", "-")), f.name)
        for f in fields(Settings)
        if f.name not in ("root", "inputs_from")
    ]
    width = max(len(name) for name, _ in rows)
    for name, field in sorted(rows):
        value = _value(getattr(found, field))
        yield f"{name:{width}}  {value}  ({_origin(field, configuration, told)})"


def files(texts: Sequence[str], found: Settings) -> Iterator[str]:
    """The targets that a run would analyse, each with the settings that are its own."""
    for entry in plan(texts, found):
        if isinstance(entry, Job):
            own = {name: getattr(entry.settings, name) for name in OWN}
            changed = [f"{name} = {_value(value)}" for name, value in own.items() if value != getattr(found, name)]
            yield "  ".join([entry.target.text, *changed])
        elif entry.error:
            yield f"{entry.target}  (cannot be linted: {entry.error.message})"


def rules(known: Sequence[Rule], summary: Callable[[Rule], str]) -> Iterator[str]:
    """Code, name, severity and first sentence of each rule; a preview rule, which runs when it is named, says so."""
    width = max((len(rule.name) for rule in known), default=0)
    for rule in known:
        preview = "[preview] " if rule.status == "preview" else ""
        yield f"{rule.code}  {rule.name:{width}}  {rule.severity:7}  {preview}{summary(rule)}"


def statistics(report: Report) -> list[dict[str, Any]]:
    """How often each rule was found, most severe and most frequent first; suppressed and refuted ones do not count."""
    standing = [f for f in report.findings if f.stands]
    counted = Counter((f.rule, f.code, f.severity) for f in standing)
    fixable = Counter((f.rule, f.code, f.severity) for f in standing if f.fixes)
    rows = [
        {"count": amount, "rule": rule, "code": code, "severity": severity, "fixable": fixable[rule, code, severity]}
        for (rule, code, severity), amount in counted.items()
    ]
    return sorted(rows, key=lambda row: (SEVERITIES.index(row["severity"]), -row["count"], row["code"]))


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The statistics as lines."""
    if not rows:
        yield "no findings"
        return
    digits = max(len(str(row["count"])) for row in rows)
    name = max(len(row["rule"]) for row in rows)
    for row in rows:
        fixed = f"  {row['fixable']} with a measured fix" if row["fixable"] else ""
        yield f"{row['count']:>{digits}}  {row['code']}  {row['rule']:{name}}  {row['severity']:7}{fixed}".rstrip()


def _origin(field: str, configuration: Configuration, told: Mapping[str, Any]) -> str:
    if told.get(field) is not None:
        return "command line"
    span = configuration.origin(field)
    return f"{shown(span.path)}:{span.line}" if span else "default"


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Model):
        return value.target
    if isinstance(value, Ignore):
        where = value.path or value.module
        return f"{value.rule} in {where}{f' ({value.reason})' if value.reason else ''}"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
