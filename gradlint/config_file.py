"""The configuration file: where it is, what it says, and on which line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gradlint.config import Settings, default_jobs
from gradlint.config_keys import KEYS, PATHS, Key, MisfitError, suggest
from gradlint.error import UsageError
from gradlint.graph.ir import Span

OWN_FILE, PROJECT_FILE = "gradlint.toml", "pyproject.toml"
OURS = ("tool", "gradlint")
NAME = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
NAMES = rf"{NAME}(?:\s*\.\s*{NAME})*"
HEADER = re.compile(rf"\s*(\[\[?)\s*({NAMES})\s*\]")
ENTRY = re.compile(rf"\s*({NAMES})\s*=")

Place = tuple[str | int, ...]  # the keys that lead to a value of our table


@dataclass(frozen=True)
class Configuration:
    """What a file says: fields of Settings, and for each the key that sets it. Without a file, nothing."""

    path: Path | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # field → keys
    text: str = ""

    def span(self, place: Place) -> Span | None:
        """Where the file says something; None without a file."""
        return None if self.path is None else Span(str(self.path), locate(self.text, _full(self.path, place)))

    def origin(self, name: str) -> Span | None:
        """Where the file sets a field, None where it does not."""
        return self.span((self.keys[name][0],)) if name in self.keys else None


def find(near: Sequence[str] = (), file: Path | None = None, *, isolated: bool = False) -> Configuration:
    """The configuration of `file`, or else of the nearest to the targets in `near`, unless `isolated`.

    Raises UsageError as `load` does.
    """
    path = file or (None if isolated else nearest(start(near)))
    return load(path) if path else Configuration()


def merge(configuration: Configuration, given: Mapping[str, Any]) -> Settings:
    """Defaults, then the file, then `given` (fields of Settings from the command line; None: not given)."""
    told = {name: value for name, value in given.items() if value is not None}
    fields = dict(configuration.fields)
    fields |= {"inputs_from": "config"} if "inputs" in fields and "inputs" not in told else {}
    if "models" in fields:
        fields["models"] = tuple(
            replace(model, given={name: value for name, value in model.given.items() if name not in told})
            for model in fields["models"]
        )
    return replace(Settings(jobs=default_jobs()), **{**fields, **told})


def resolve(
    given: Mapping[str, Any], near: Sequence[str] = (), file: Path | None = None, *, isolated: bool = False
) -> Settings:
    """`find` and `merge` in one."""
    return merge(find(near, file, isolated=isolated), given)


def nearest(folder: Path) -> Path | None:
    """The configuration file of this folder or the closest above; a pyproject.toml counts when it has our table."""
    for place in (folder, *folder.parents):
        own, project = place / OWN_FILE, place / PROJECT_FILE
        if own.is_file():
            return own
        if project.is_file() and _table(project, _text(project)) is not None:
            return project
    return None


def start(targets: Sequence[str]) -> Path:
    """The folder where the search begins: what the targets that are paths have in common, else the working one."""
    paths = [Path(target.partition(":")[0] or target).absolute() for target in targets]
    existing = [path for path in paths if path.exists()]
    try:
        common = Path(os.path.commonpath(existing)) if existing else Path.cwd()
    except ValueError:  # different drives
        return Path.cwd()
    return common if common.is_dir() else common.parent


def load(path: Path) -> Configuration:
    """What the file says.

    Raises UsageError, with the line, for a file that cannot be read, an unknown key (with the nearest match) or a value
    of another type.
    """
    text = _text(path)
    fields: dict[str, Any] = {"root": str(path.absolute().parent)}
    keys: dict[str, tuple[str, ...]] = {}
    for name, value in (_table(path, text) or {}).items():
        key = _key(path, text, name)
        read = _rooted(key.field, _value(path, text, name, value), path)
        fields[key.field] = (*fields[key.field], *read) if key.field in keys else read
        keys[key.field] = (*keys.get(key.field, ()), name)
    return Configuration(path, fields, keys, text)


def locate(text: str, wanted: Sequence[str | int]) -> int:
    """The 1-based line that sets what the keys lead to, or else the innermost table around it; 1 for neither."""
    found, depth = 1, 0
    for number, place in _places(text):
        length = next((i for i, pair in enumerate(zip(place, wanted, strict=False)) if pair[0] != pair[1]), None)
        reached = min(len(place), len(wanted)) if length is None else 0
        if reached > depth:
            found, depth = number, reached
    return found


def _places(text: str) -> Iterator[tuple[int, Place]]:
    """Every line that begins a table or sets a key, with the keys that lead there."""
    tables: dict[Place, int] = {}  # an array of tables → the index of its last one
    inside: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := HEADER.match(line):
            inside = _indexed(_split(header[2]), tables)
            if header[1] == "[[":
                array = inside[:-1] if isinstance(inside[-1], int) else inside
                tables[array] = tables.get(array, -1) + 1
                inside = (*array, tables[array])
            yield number, inside
        elif entry := ENTRY.match(line):
            yield number, (*inside, *_split(entry[1]))


def _indexed(names: Sequence[str], tables: Mapping[Place, int]) -> Place:
    """The keys with the index of the last table behind each that is an array of tables."""
    place: Place = ()
    for name in names:
        place = (*place, name)
        place = (*place, tables[place]) if place in tables else place
    return place


def _split(names: str) -> list[str]:
    return [name[1:-1] if name[0] in "\"'" else name for name in re.findall(NAME, names)]


def _key(path: Path, text: str, name: str) -> Key:
    if name not in KEYS:
        span = Span(str(path), locate(text, _full(path, (name,))))
        raise UsageError(f"unknown key {name!r} in {_section(path)}", suggest(name, tuple(KEYS)), span)
    return KEYS[name]


def _value(path: Path, text: str, name: str, value: object) -> Any:
    kind = KEYS[name].kind
    try:
        return kind.read(value)
    except MisfitError as misfit:
        span = Span(str(path), locate(text, _full(path, (name, *misfit.at))))
        raise UsageError(f"{misfit.message} in {_section(path, name)}", misfit.hint, span) from None
    except ValueError:
        span = Span(str(path), locate(text, _full(path, (name,))))
        said, hint = kind.misfit(value)
        raise UsageError(f"{name} in {_section(path)} {said}", hint, span) from None


def _rooted(name: str, value: Any, path: Path) -> Any:
    """The value of a field, a path in it counted from the file's folder."""
    if name not in PATHS:
        return value
    return tuple(_joined(path, item) for item in value) if isinstance(value, tuple) else _joined(path, value)


def _joined(path: Path, text: str) -> str:
    """A path of the file as the working folder sees it; "FORMAT=PATH" keeps its format."""
    format, equals, name = text.rpartition("=")
    return format + equals + os.path.relpath(path.absolute().parent / name)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is not UTF-8 ({error.reason})"
        raise UsageError(f"cannot read {path}: {why}") from error


def _table(path: Path, text: str) -> dict[str, Any] | None:
    """Our table of the file; None when a pyproject.toml has none. Raises UsageError when it cannot be parsed."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        raise UsageError(
            f"{path.name} is not valid TOML: {error}", span=Span(str(path), int(at[1]) if at else 1)
        ) from error
    tools = content.get("tool")
    table = content if path.name != PROJECT_FILE else tools.get("gradlint") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError("[tool.gradlint] is a table", span=Span(str(path), locate(text, OURS)))
    return table


def _full(path: Path, place: Place) -> Place:
    return (*OURS, *place) if path.name == PROJECT_FILE else place


def _section(path: Path, name: str = "") -> str:
    """How the file's own syntax calls our table, or a table in it."""
    if path.name != PROJECT_FILE:
        return f"[{name}] of {path.name}" if name else path.name
    return f"[tool.gradlint{'.' + name if name else ''}]"
