"""The keys of the configuration file: the field that each sets, how its value is read, and its JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradlint.config import COLORS, DTYPES, FORMATS, LOSSES, OPTIMIZERS, THRESHOLDS, Ignore, Model
from gradlint.finding import SEVERITIES

Schema = Mapping[str, Any]
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Kind:
    """How a value is read: what to call it in errors, `read`, which raises ValueError, and its JSON schema.

    `words` are those that a value which is one of a few can be.
    """

    name: str
    read: Callable[[Any], Any]
    schema: Schema
    words: tuple[str, ...] = ()

    def misfit(self, given: object) -> tuple[str, str]:
        """What the value should have been and what it is, and a hint that names the word it comes nearest to."""
        return f"is {self.name}, not {json.dumps(given, default=str)}", near(given, self.words)


@dataclass(frozen=True)
class Key:
    """A key of a table: the field of Settings that it sets, its kind, and what it means."""

    field: str
    kind: Kind
    description: str


class MisfitError(ValueError):
    """A value inside a table does not fit: `at` are the keys that lead to it from the value that was read."""

    def __init__(self, at: Sequence[str | int], message: str, hint: str = "") -> None:
        super().__init__(message)
        self.at, self.message, self.hint = tuple(at), message, hint


def suggest(word: str, known: Sequence[str]) -> str:
    """A hint that names the nearest known word, or all of them."""
    return near(word, known) or f"known: {', '.join(known)}"


def near(word: object, known: Sequence[str]) -> str:
    """A hint that names the known word nearest to this one, "" where none is near."""
    import difflib

    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6) if isinstance(word, str) else []
    return f"did you mean {found[0]}?" if found else ""


# -- plain values, which the command line reads too --------------------------------------------------------------------


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


def named(given: Any) -> str:
    """`module:name`. Raises ValueError for anything else."""
    if not re.fullmatch(r"[\w.]+:[\w.]+", _strictly(str, given)):
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


def inputs(given: Any) -> tuple[str, ...]:
    """Input specifications: texts, or a table name → text."""
    if isinstance(given, dict):
        return tuple(f"{name}={_strictly(str, text)}" for name, text in given.items())
    return _texts(given)


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

    return Kind(f"one of {', '.join(words)}", read, {"enum": list(words)}, words)


# -- tables ------------------------------------------------------------------------------------------------------------


def _table(given: Any) -> dict[str, Any]:
    return dict(_strictly(dict, given))


def _each(given: Any, kind: Kind) -> dict[str, Any]:
    """A table whose values are all of one kind."""
    read = {}
    for key, value in _table(given).items():
        try:
            read[key] = kind.read(value)
        except ValueError:
            said, hint = kind.misfit(value)
            raise MisfitError((key,), f"{key} {said}", hint) from None
    return read


def reasons(given: Any) -> dict[str, str]:
    """Rules to ignore: a name, a list of names, or a table rule → reason."""
    return dict.fromkeys(_texts(given), "") if not isinstance(given, dict) else _each(given, TEXT)


def _ignores(field: str) -> Callable[[Any], tuple[Ignore, ...]]:
    """A table pattern → rules, whose pattern goes into `field` of each Ignore."""

    def read(given: Any) -> tuple[Ignore, ...]:
        return tuple(
            Ignore(rule, reason, **{field: pattern})
            for pattern, rules in _each(given, REASONS).items()
            for rule, reason in rules.items()
        )

    return read


def _options(given: Any) -> dict[str, dict[str, Any]]:
    return {rule: dict(options) for rule, options in _each(given, OPTIONS).items()}


def _models(given: Any) -> tuple[Model, ...]:
    return tuple(_model(i, table) for i, table in enumerate(_strictly(list, given)))


def _model(index: int, given: Any) -> Model:
    table = _table(given)
    if "target" not in table:
        raise MisfitError((index,), "a model has a target", 'target = "model.py:Net(num_classes=10)"')
    read = {}
    for name, value in table.items():
        if name not in MODEL_KEYS:
            raise MisfitError((index, name), f"unknown key {name!r} of a model", suggest(name, tuple(MODEL_KEYS)))
        key = MODEL_KEYS[name]
        try:
            read[key.field] = key.kind.read(value)
        except ValueError:
            said, hint = key.kind.misfit(value)
            raise MisfitError((index, name), f"{name} of a model {said}", hint) from None
    return Model(read.pop("target"), read)


STRING: Schema = {"type": "string"}
LIST: Schema = {"oneOf": [STRING, {"type": "array", "items": STRING}]}
TABLE: Schema = {"type": "object", "additionalProperties": STRING}
TEXT = Kind("a string", lambda given: _strictly(str, given), STRING)
TEXTS = Kind("a list of strings", _texts, LIST)
FLAG = Kind("true or false", lambda given: _strictly(bool, given), {"type": "boolean"})
COUNT = Kind("an integer of at least 1", _at_least(1, int), {"type": "integer", "minimum": 1})
WHOLE = Kind("an integer of at least 0", _at_least(0, int), {"type": "integer", "minimum": 0})
SECONDS = Kind("a number of seconds", _at_least(0, (int, float)), {"type": "number", "minimum": 0})
LOSS = Kind(f"one of {', '.join(LOSSES)} or module:function", loss, {**STRING, "examples": list(LOSSES)}, LOSSES)
NAMED = Kind("module:name", named, {**STRING, "pattern": "^[\\w.]+:[\\w.]+$"})
RATE = Kind("a number above 0", _at_least(1e-12, (int, float)), {"type": "number", "exclusiveMinimum": 0})
DEVICE = Kind("auto, cpu, cuda, cuda:N, mps or meta", device, {**STRING, "examples": ["auto", "cpu", "cuda"]})
SIZE = Kind('a size such as "4G"', memory, {"type": ["string", "integer"], "examples": ["4G"]})
INIT = Kind(
    "a table of arguments, or a list of strings name=value",
    init,
    {"oneOf": [STRING, {"type": "array", "items": STRING}, {"type": "object"}]},
)
INPUTS = Kind("a list of specifications, or a table name = specification", inputs, {"oneOf": [*LIST["oneOf"], TABLE]})
REASONS = Kind(
    "a list of rules, or a table rule = reason",
    reasons,
    {"oneOf": [*LIST["oneOf"], {**TABLE, "description": "rule = reason"}]},
)
OPTION: Schema = {"type": ["number", "string", "boolean"]}
OPTIONS = Kind("a table of options", _table, {"type": "object", "additionalProperties": OPTION})
SEVERITY = _one_of(*SEVERITIES)


def _tables(kind: Kind) -> Schema:
    return {"type": "object", "additionalProperties": kind.schema}


MODEL_KEYS: Mapping[str, Key] = {
    "target": Key("target", TEXT, "model.py, model.py:EXPR or package.module:EXPR; paths count from this file"),
    "inputs": Key("inputs", INPUTS, "example inputs, as --input takes them"),
    "init": Key("init", INIT, "constructor arguments"),
    "loss": Key("loss", LOSS, "the loss that the model is trained with"),
    "data": Key("data", NAMED, "module:name of batches, or of a function that makes them"),
    "optimizer": Key("optimizer", _one_of(*OPTIMIZERS), "what the model is trained with"),
    "weights": Key("weights", TEXT, "a checkpoint to load into the model"),
    "ignore": Key("ignores", REASONS, "rules whose findings on this model are suppressed"),
}
MODELS = Kind("an array of tables: [[tool.gradlint.model]]", _models, {})
SEVERITIES_ = Kind("a table rule = severity", lambda given: _each(given, SEVERITY), _tables(SEVERITY))
KEYS: Mapping[str, Key] = {
    "select": Key("select", TEXTS, "rules to run: names, codes, code prefixes or families; all when left out"),
    "ignore": Key("ignore", TEXTS, "rules not to run"),
    "inputs": Key("inputs", INPUTS, "example inputs of every model, as --input takes them"),
    "init": Key("init", INIT, "constructor arguments of every model"),
    "loss": Key("loss", LOSS, "the loss that models are trained with"),
    "device": Key("device", DEVICE, "where models are run"),
    "seed": Key("seed", WHOLE, "the first seed of the probe"),
    "seeds": Key("seeds", COUNT, "most seeds to spend where one leaves doubt"),
    "optimizer": Key("optimizer", _one_of(*OPTIMIZERS), "what models are trained with"),
    "data": Key("data", NAMED, "module:name of batches, or of a function that makes them"),
    "steps": Key("steps", WHOLE, "training steps to follow the gradient through"),
    "rate": Key("rate", RATE, "learning rate of these steps"),
    "dtype": Key("dtype", _one_of(*DTYPES), "a number format whose losses are measured, too"),
    "probe": Key("probe", FLAG, "measure with forward and backward passes"),
    "try-fixes": Key("fix", FLAG, "measure each fix before offering it"),
    "prove": Key("prove", FLAG, "train each model as it is and with its best fix, and show both losses"),
    "fail-on": Key("fail_on", _one_of(*THRESHOLDS), "the least severity that makes a run fail"),
    "output-format": Key("output_format", _one_of(*FORMATS), "what stdout shows"),
    "output": Key("output", TEXTS, "files to write reports to, in the format of their suffix, or FORMAT=FILE"),
    "timeout": Key("timeout", SECONDS, "seconds that a target may take"),
    "memory": Key("memory", SIZE, "memory that a target may take"),
    "jobs": Key("jobs", COUNT, "targets at once"),
    "weights": Key("weights", TEXT, "a checkpoint to load into every model"),
    "all-classes": Key("all_classes", FLAG, "lint every module class of a file, parts of a model too"),
    "color": Key("color", _one_of(*COLORS), "when to style the output"),
    "exclude": Key("exclude", TEXTS, "gitignore patterns of what to leave out when a folder is walked"),
    "respect-gitignore": Key("gitignore", FLAG, "leave out what git ignores when a folder is walked"),
    "cache": Key("cache", FLAG, "keep results of unchanged models in .gradlint_cache"),
    "cache-dir": Key("cache_dir", TEXT, "where results are kept; .gradlint_cache beside this file when left out"),
    "baseline": Key("baseline", TEXT, "a file of findings that are known and do not fail the run"),
    "severity": Key("severities", SEVERITIES_, "severities of rules that are not the rule's own"),
    "per-path-ignores": Key(
        "ignores",
        Kind("a table pattern = rules", _ignores("path"), _tables(REASONS)),
        "gitignore pattern of files = rules whose findings there are suppressed",
    ),
    "per-module-ignores": Key(
        "ignores",
        Kind("a table module = rules", _ignores("module"), _tables(REASONS)),
        "glob of module paths = rules whose findings there are suppressed",
    ),
    "rules": Key("options", Kind("tables [tool.gradlint.rules.NAME]", _options, _tables(OPTIONS)), "options of rules"),
    "model": Key("models", MODELS, "models with settings of their own"),
}
# Fields whose texts are paths, counted from the folder of the file.
PATHS = frozenset({"weights", "cache_dir", "baseline", "output"})
