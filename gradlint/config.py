"""`[tool.gradlint]` and the command line → one frozen `Settings`. Never imports torch."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gradlint.error import UsageError
from gradlint.graph.ir import Span

FORMATS = ("full", "concise", "json", "json-lines", "sarif", "github", "gitlab", "junit", "markdown", "html")
THRESHOLDS = ("error", "warning", "info", "never")
COLORS = ("auto", "always", "never")
LOSSES = ("ce", "nll", "bce", "bce_logits", "mse", "unit", "own")
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
OWN_FILE, PROJECT_FILE = "gradlint.toml", "pyproject.toml"


@dataclass(frozen=True)
class Settings:
    """Everything that a run depends on besides its targets."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()  # the texts of --input
    init: tuple[str, ...] = ()  # constructor arguments, "num_classes=10"
    loss: str | None = None
    device: str = "auto"
    seed: int = 0
    seeds: int = 5
    probe: bool = True
    fix: bool = True  # try fixes by intervention and print those that help
    fail_on: str = "warning"
    output_format: str = "full"
    output: tuple[str, ...] = ()
    timeout: float = 120.0  # seconds a target
    memory: int | None = None  # bytes a target
    jobs: int = 1
    weights: str | None = None  # a checkpoint to load into the model
    all_classes: bool = False
    color: str = "auto"
    exit_zero: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


@dataclass(frozen=True)
class Kind:
    """How a value of the configuration file is read: what to call it in errors, and `read`, which raises ValueError."""

    name: str
    read: Callable[[Any], object]


def _strictly(kind: type | tuple[type, ...], given: Any) -> Any:
    if not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
        raise ValueError
    return given


def _texts(given: Any) -> tuple[str, ...]:
    return tuple(_strictly(str, item) for item in ([given] if isinstance(given, str) else _strictly(list, given)))


def _at_least(least: float, kind: type | tuple[type, ...]) -> Callable[[Any], Any]:
    def read(given: Any) -> Any:
        if _strictly(kind, given) < least:
            raise ValueError
        return given

    return read


def _one_of(*words: str) -> Kind:
    def read(given: Any) -> str:
        if given not in words:
            raise ValueError
        return str(given)

    return Kind(f"one of {', '.join(words)}", read)


def memory(given: str | int) -> int:
    """A size in bytes: 4294967296, "4G", "512 MiB". Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", str(given).strip().lower())
    if isinstance(given, bool) or not found:
        raise ValueError(f"{given!r} is not a size")
    return int(float(found[1]) * UNITS[found[2]])


def loss(given: Any) -> str:
    """A loss name or `module:function`. Raises ValueError for anything else."""
    if given not in LOSSES and not re.fullmatch(r"[\w.]+:[\w.]+", _strictly(str, given)):
        raise ValueError
    return str(given)


def device(given: Any) -> str:
    """ "auto" or a device as torch writes it. Raises ValueError for anything else."""
    if not re.fullmatch(r"auto|meta|(cpu|cuda|mps|xpu|hpu)(:\d+)?", _strictly(str, given)):
        raise ValueError
    return str(given)


def init(given: Any) -> tuple[str, ...]:
    """Constructor arguments: a table of values, or texts `name=value`."""
    if isinstance(given, dict):
        return tuple(f"{name}={value!r}" for name, value in given.items())
    texts = _texts(given)
    if not all(re.match(r"\w+\s*=", text) for text in texts):
        raise ValueError
    return texts


TEXTS = Kind("a list of strings", _texts)
FLAG = Kind("true or false", lambda given: _strictly(bool, given))
COUNT = Kind("an integer of at least 1", _at_least(1, int))
LOSS = Kind(f"one of {', '.join(LOSSES)} or module:function", loss)
DEVICE = Kind("auto, cpu, cuda, cuda:N, mps or meta", device)
SIZE = Kind('a size such as "4G"', memory)
INIT = Kind("a table of arguments, or a list of strings name=value", init)
# Key of the file → the field it sets and the kind of its value.
KEYS: Mapping[str, tuple[str, Kind]] = {
    "select": ("select", TEXTS),
    "ignore": ("ignore", TEXTS),
    "input": ("inputs", TEXTS),
    "init": ("init", INIT),
    "loss": ("loss", LOSS),
    "device": ("device", DEVICE),
    "seed": ("seed", Kind("an integer of at least 0", _at_least(0, int))),
    "seeds": ("seeds", COUNT),
    "probe": ("probe", FLAG),
    "try-fixes": ("fix", FLAG),
    "fail-on": ("fail_on", _one_of(*THRESHOLDS)),
    "output-format": ("output_format", _one_of(*FORMATS)),
    "output": ("output", TEXTS),
    "timeout": ("timeout", Kind("a number of seconds", _at_least(0, (int, float)))),
    "memory": ("memory", SIZE),
    "jobs": ("jobs", COUNT),
    "weights": ("weights", Kind("a path", lambda given: _strictly(str, given))),
    "all-classes": ("all_classes", FLAG),
    "color": ("color", _one_of(*COLORS)),
}


def resolve(
    given: Mapping[str, Any], near: Sequence[str] = (), file: Path | None = None, *, isolated: bool = False
) -> Settings:
    """Defaults, then the configuration file, then `given` (fields of Settings from the command line; None: not given).

    The file is `file`, or the nearest to the targets in `near`, unless `isolated`. Raises UsageError as `load` does.
    """
    path = file or (None if isolated else nearest(start(near)))
    configured = load(path) if path else {}
    told = {name: value for name, value in given.items() if value is not None}
    return replace(Settings(jobs=default_jobs()), **{**configured, **told})


def nearest(folder: Path) -> Path | None:
    """The configuration file of this folder or the closest above; a pyproject.toml counts when it has our table."""
    for place in (folder, *folder.parents):
        own, project = place / OWN_FILE, place / PROJECT_FILE
        if own.is_file():
            return own
        if project.is_file() and _table(project) is not None:
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


def load(path: Path) -> dict[str, Any]:
    """Field → value of a configuration file.

    Raises UsageError, with the line, for a file that cannot be read, an unknown key (with the nearest match) or a value
    of another type.
    """
    table = _table(path)
    return dict(_entry(path, key, value) for key, value in (table or {}).items())


def default_jobs() -> int:
    """How many targets run at once when nothing else is said: every core but no more than four, as each holds torch."""
    return max(1, min(4, os.cpu_count() or 1))


def suggest(word: str, known: Sequence[str]) -> str:
    """A hint that names the nearest known word, or all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"


def _entry(path: Path, key: str, value: object) -> tuple[str, object]:
    span = Span(str(path), _line(path, key))
    if key not in KEYS:
        raise UsageError(f"unknown key {key!r} in {_section(path)}", suggest(key, tuple(KEYS)), span)
    field, kind = KEYS[key]
    try:
        return field, kind.read(value)
    except ValueError:
        hint = suggest(value, LOSSES) if kind is LOSS and isinstance(value, str) else ""
        raise UsageError(
            f"{key} in {_section(path)} is {kind.name}, not {json.dumps(value, default=str)}", hint, span
        ) from None


def _table(path: Path) -> dict[str, Any] | None:
    """Our table of the file; None when a pyproject.toml has none. Raises UsageError when it cannot be parsed."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        raise UsageError(f"{path} is not valid TOML: {error}", span=Span(str(path), int(at[1]) if at else 1)) from error
    tools = content.get("tool")
    table = content if path.name != PROJECT_FILE else tools.get("gradlint") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise UsageError("[tool.gradlint] is a table", span=Span(str(path), _line(path, "gradlint")))
    return table


def _section(path: Path) -> str:
    return "[tool.gradlint]" if path.name == PROJECT_FILE else path.name


def _line(path: Path, key: str) -> int:
    """The 1-based line that sets a key of our table, or that begins the table."""
    inside = path.name != PROJECT_FILE
    begin = 1
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^]]+?)\s*\]", text):
            parts = header[1].replace('"', "").split(".")
            inside = (
                path.name != PROJECT_FILE or parts[:2] == ["tool", "gradlint"] or [*parts, key] == ["tool", "gradlint"]
            )
            begin = number if inside else begin
            if inside and header[1].split(".")[-1].strip('"') == key:
                return number
        if inside and re.match(rf"""\s*["']?{re.escape(key)}["']?\s*[.=]""", text):
            return number
    return begin
