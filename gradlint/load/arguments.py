"""Constructor arguments: those given, those the file states, then guesses; every one that was not given is noted."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from gradlint.load.guess import guess
from gradlint.source.constants import normal
from gradlint.source.usage import CONFIG, Use

LENGTH = 100  # characters of a call that are shown

# Parameters that take a whole network.
NETWORKS = re.compile(
    r"(base_?|student_?|teacher_?|vision_?|image_?|text_?)?(net|network|model|backbone|encoder|decoder|transformer|vit|trunk|module"
    r"|generator|discriminator|student|teacher|feature_extractor|extractor)"
)

# A field of a configuration that holds a size.
SIZE = re.compile(
    r"(^|_)(vocab|size|dim|width|len|length|num|n|heads?|layers?|features?|classes|tokens?|channels?)(_|$)"
)

# A field that counts what data hold: there is always one.
COUNTED = re.compile(r"(^|_)(vocab|words?|tokens?|features?|users?|items?|embed(ding)?s?)(_?(size|num|count|dim))?$")

# A layer for a parameter that is called, by a part of its name.
LAYERS = ((r"norm|^bn$", "BatchNorm2d"), (r"act|nonlin", "ReLU"), (r"", "Identity"))


@dataclass
class Arguments:
    """Arguments for one callable; `guessed` and `stated` say where those that were not given come from."""

    args: list[object] = field(default_factory=list)
    kwargs: dict[str, object] = field(default_factory=dict)
    guessed: dict[str, object] = field(default_factory=dict)
    stated: dict[str, object] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """What the report says about them."""
        lines = [f"taken from the file: {_listed(self.stated)}"] if self.stated else []
        return lines + ([f"guessed: {_listed(self.guessed)}"] if self.guessed else [])

    def label(self, name: str) -> str:
        """The call as text: `Net(hidden=64, num_classes=10)`."""
        parts = [brief(a) for a in self.args] + [f"{k}={brief(v)}" for k, v in self.kwargs.items()]
        return shortened(f"{name}({', '.join(parts)})")


@dataclass(frozen=True)
class Guesser:
    """Chooses values for parameters: `stated` are values that the file names, `namespace` its variables."""

    stated: Mapping[str, object]
    namespace: Mapping[str, object]
    uses: Mapping[str, Use] = field(default_factory=dict)
    build: Callable[[Callable[..., Any]], object] | None = None  # makes a module of a class of the file

    def complete(
        self, function: Callable[..., object], given: Arguments, missing: Sequence[str] = (), owner: str = ""
    ) -> Arguments:
        """The given arguments, and a value for every other parameter that has no default or is named in `missing`.

        `owner` is the parameter whose value the call makes, where it makes one: its fields' uses are known by its name.
        """
        done = Arguments(list(given.args), dict(given.kwargs))
        for index, parameter in enumerate(_parameters(function)):
            name = parameter.name
            present = index < len(given.args) or name in given.kwargs
            if present or (parameter.default is not parameter.empty and name not in missing):
                continue
            value, source = self.value(name, _annotation(parameter), f"{owner}.{name}" if owner else name)
            getattr(done, source)[name] = value
            if parameter.kind is parameter.POSITIONAL_ONLY:
                done.args.append(value)
            else:
                done.kwargs[name] = value
        return done

    def value(self, name: str, annotation: str = "", path: str = "") -> tuple[object, str]:
        """(value, "stated" or "guessed") for one parameter, or for the field of one at `path` ("cfg.depth")."""
        path = path or name
        use = self.uses.get(path)
        kind = use.kind if use else None
        record = self.namespace.get(annotation)
        if isinstance(record, type) and is_dataclass(record):
            return self._config(name, annotation, path)
        if isinstance(record, type) and self.build is not None and _is_module(record):
            return self.build(record), "guessed"
        if CONFIG.fullmatch(name.lower()) and kind not in ("sequence", "count"):
            return self._config(name, annotation, path)
        if kind in ("module", "callable"):
            return self._callable(name, kind), "guessed"
        if NETWORKS.fullmatch(name.lower()) and kind in (None, "config") and not _plain(annotation):
            return self._callable(name, "module"), "guessed"
        if kind == "config" and not _plain(annotation):
            return self._config(name, annotation, path)
        key = normal(name)
        if key in self.stated and _fits(self.stated[key], kind) and not is_open(name, self.stated[key]):
            return self.stated[key], "stated"
        return guess(name, use, annotation, self.uses.get(f"{path}[]")), "guessed"

    def _config(self, name: str, annotation: str, path: str) -> tuple[object, str]:
        """A configuration of the file, or a stand-in that guesses every field that is read."""
        ranked = sorted(
            self.namespace.items(), key=lambda item: (item[0].lower() != name.lower(), item[0] != annotation)
        )
        for key, value in ranked:
            fits = type(value).__name__ == annotation if annotation in self.namespace else CONFIG.fullmatch(key.lower())
            if (key.lower() == name.lower() or fits) and _is_config(value):
                return value, "stated"
        for key, value in ranked:
            if isinstance(value, type) and (key == annotation if annotation else CONFIG.fullmatch(key.lower())):
                try:
                    return value(), "stated"
                except TypeError:  # it has required fields
                    if is_dataclass(value):
                        return value(**self.complete(value, Arguments(), owner=path).kwargs), "guessed"
        return GuessedConfig(self, path), "guessed"

    def _callable(self, name: str, kind: str) -> object:
        """A module for a parameter that the model calls: the file's class of that name, or a library module."""
        from torch import nn

        key = name.strip("_").lower()
        modules = {k: v for k, v in self.namespace.items() if isinstance(v, type) and issubclass(v, nn.Module)}
        local = [v for k, v in modules.items() if _alike(key, k)]
        if local:
            return local[0] if kind == "callable" or self.build is None else self.build(local[0])
        layer = next(made for pattern, made in LAYERS if re.search(pattern, key))
        factory = getattr(nn, layer)
        return factory if kind == "callable" else nn.Identity() if layer == "BatchNorm2d" else factory()


class GuessedConfig:
    """A configuration object nobody wrote: every attribute or key that is read is guessed by its name and its use."""

    def __init__(self, guesser: Guesser, path: str) -> None:
        self.__dict__["_guesser"] = guesser
        self.__dict__["_path"] = path

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        guesser: Guesser = self.__dict__["_guesser"]
        self.__dict__[name] = guesser.value(name, path=f"{self._path}.{name}")[0]
        return self.__dict__[name]

    def __getitem__(self, name: str) -> object:
        return getattr(self, name)

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__

    def get(self, name: str, default: object = None) -> object:
        """The default where the model gives one, as a dictionary would."""
        return self.__dict__.get(name, default)

    def __deepcopy__(self, memo: object) -> GuessedConfig:
        other = GuessedConfig(self.__dict__["_guesser"], self.__dict__["_path"])
        other.__dict__.update(self.__dict__)
        return other

    def __repr__(self) -> str:
        fields = {k: v for k, v in self.__dict__.items() if k not in ("_guesser", "_path")}
        return f"<{_listed(fields)}>"


def open_sizes(config: object) -> dict[str, int]:
    """A size for every field that a configuration sets to -1, "defined later": `vocab_size: int = -1`."""
    fields = vars(config) if hasattr(config, "__dict__") else {}
    named = [name for name, value in fields.items() if is_open(name, value)]
    guesses = {name: guess(name, None, "int") for name in named}
    return {name: size for name, size in guesses.items() if type(size) is int and size > 0}


def is_open(name: str, value: object) -> bool:
    """Whether a size is stated only to be set later, when the data are known: `n_vocab = 0`, `vocab_size = -1`."""
    return type(value) is int and (
        (value == -1 and bool(SIZE.search(name))) or (value == 0 and bool(COUNTED.search(name)))
    )


def with_sizes(config: object, sizes: Mapping[str, int]) -> object:
    """A copy of the configuration with these fields."""
    other = copy.copy(config)
    for name, size in sizes.items():
        object.__setattr__(other, name, size)  # a frozen dataclass, too
    return other


def _parameters(function: Callable[..., object]) -> list[inspect.Parameter]:
    """The parameters of a callable that can be passed by name or place; none when it has no readable signature."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p for p in signature.parameters.values() if p.kind not in kinds]


def _annotation(parameter: inspect.Parameter) -> str:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        return ""
    return (
        annotation
        if isinstance(annotation, str)
        else getattr(annotation, "__name__", str(annotation))
        if isinstance(annotation, type)
        else str(annotation)
    )


def _is_module(kind: type) -> bool:
    from torch import nn

    return issubclass(kind, nn.Module) and kind is not nn.Module


def _plain(annotation: str) -> bool:
    return annotation in ("int", "float", "bool", "str") or annotation.lower().startswith(("list", "tuple", "sequence"))


def _fits(value: object, kind: str | None) -> bool:
    if value is None:
        return False
    return (
        isinstance(value, list | tuple) if kind == "sequence" else not isinstance(value, list | tuple) or kind is None
    )


def _is_config(value: object) -> bool:
    return (
        not isinstance(value, type | str | int | float | list | tuple)
        and not callable(value)
        and not inspect.ismodule(value)
    )


def _alike(parameter: str, name: str) -> bool:
    plain = name.lower().replace("_", "")
    word = parameter.replace("_", "")
    return len(word) >= 3 and (word in plain or plain in word)


def shortened(call: str) -> str:
    """The text of a call, cut after an argument when it is long."""
    if len(call) <= LENGTH:
        return call
    head, cut, _ = call[:LENGTH].rpartition(", ")
    return f"{head}, …)" if cut else f"{call.partition('(')[0]}(…)"


def brief(value: object) -> str:
    """A value as it would be written in a call, shortened."""
    if isinstance(value, type):
        return value.__name__
    text = repr(value)
    if "\n" in text or len(text) > 60:
        text = f"{type(value).__name__}(…)"
    return text


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={brief(value)}" for name, value in values.items())
