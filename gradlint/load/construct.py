"""Call a class or factory of the file: with the arguments of a call in the file, with stated ones, with guesses."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from gradlint.error import UsageError
from gradlint.load.arguments import Arguments, GuessedConfig, Guesser, is_open, open_sizes, with_sizes
from gradlint.load.guess import alternatives
from gradlint.load.imports import Runner
from gradlint.source.classes import definitions
from gradlint.source.constants import constant, stated_values
from gradlint.source.names import is_definition
from gradlint.source.text import Source
from gradlint.source.usage import parameter_uses

DEPTH = 2  # models within models that are made as arguments
PASSED_ON = 2  # times that a constructor lacks arguments which its `**kwargs` pass on
REPAIRS = 16  # other values tried for guessed arguments


@dataclass(frozen=True)
class Made:
    """What a recipe gave: the value, the call as text, how to make it again, and what was assumed.

    `partial` says that a network which nobody gave was left out, with an identity in its place.
    """

    value: object
    name: str
    again: Callable[[], object]
    notes: tuple[str, ...] = ()
    partial: bool = False


@dataclass
class Constructor:
    """Calls the classes and functions of one file. `tried` is the last call, for the hint when none works."""

    source: Source
    seed: int
    overrides: Mapping[str, object] = field(default_factory=dict)  # arguments that the user gave by --init
    tried: str = ""
    depth: int = 0  # of models made to be arguments of others

    def make(
        self, function: Callable[..., Any], given: Arguments, missing: Sequence[str], names: Mapping[str, object]
    ) -> Made:
        """Call with the given arguments and a value for whatever else is required; `names` are the file's variables.

        Other guesses are tried when the call fails. Raises the error of the first.
        """
        self._override(function, given)
        guesser = self.guesser(function, names)
        wanted = guesser.complete(function, given, missing)
        name = getattr(function, "__name__", type(function).__name__)
        self.tried = wanted.label(name)
        for _ in range(PASSED_ON):
            try:
                return self._accepted(function, wanted, name)
            except TypeError as error:
                lacking = _lacking(error) if "**" in signature(function) else []
                if not lacking or wanted.kwargs.keys() & set(lacking):
                    raise
                guesses = {n: guesser.value(n)[0] for n in lacking}
                wanted = replace(wanted, kwargs={**wanted.kwargs, **guesses}, guessed={**wanted.guessed, **guesses})
        return self._accepted(function, wanted, name)

    def _accepted(self, function: Callable[..., Any], wanted: Arguments, name: str) -> Made:
        """The first call that is accepted. Raises the error of the first when none is."""
        errors: list[Exception] = []
        for arguments in _variations(wanted):
            try:
                value = self._call(function, arguments)
            except Exception as error:  # noqa: BLE001  the error of the first guess is raised when none is accepted
                errors.append(error)
                continue
            again = _Call(function, arguments)
            partial = any(type(guess) is nn.Identity for guess in arguments.guessed.values())
            return Made(value, arguments.label(name), again, tuple(arguments.notes()), partial)
        raise errors[0]

    def guesser(self, function: object, names: Mapping[str, object]) -> Guesser:
        """What chooses the arguments that nobody gave to a class or function of the file."""
        name = getattr(function, "__name__", None)
        node = next((d for d in definitions(self.source.tree.body) if is_definition(d) and d.name == name), None)

        def part(owner: Callable[..., Any]) -> object:
            if owner is function or self.depth >= DEPTH:
                return nn.Identity()
            self.depth += 1
            try:
                return self._call(owner, self.guesser(owner, names).complete(owner, Arguments()))
            finally:
                self.depth -= 1

        uses = parameter_uses(node, self.source) if node is not None else {}
        return Guesser(self.stated, {**names, **_own_config(function)}, uses, part)

    @cached_property
    def stated(self) -> dict[str, object]:
        """Values that the file states by name."""
        return stated_values(self.source)

    def _call(self, function: Callable[..., Any], arguments: Arguments) -> object:
        torch.manual_seed(self.seed)
        return function(*arguments.args, **arguments.kwargs)

    def _override(self, function: Callable[..., Any], given: Arguments) -> None:
        """Put the user's arguments in place of the file's."""
        names = signature(function)
        for name, value in self.overrides.items():
            if name not in names and names and "**" not in names:
                called = getattr(function, "__name__", "the model")
                raise UsageError(f"--init {name}: {called} has no such argument", f"it takes {', '.join(names)}")
            if name in names[: len(given.args)]:
                given.args[names.index(name)] = value
            else:
                given.kwargs[name] = value


@dataclass(frozen=True)
class _Call:
    function: Callable[..., Any]
    arguments: Arguments

    def __call__(self) -> object:
        return self.function(*self.arguments.args, **self.arguments.kwargs)


def evaluated(
    call: ast.Call, function: object, names: dict[str, object], runner: Runner
) -> tuple[Arguments, list[str]]:
    """The arguments of a call in the file that can be evaluated, and the names of those that cannot.

    An argument read from data that is not here is one that cannot; without a signature to name it, its error is raised.
    """
    known = signature(function)
    passed: list[tuple[str, ast.expr, bool]] = [
        (known[i] if i < len(known) else "", value, True) for i, value in enumerate(call.args)
    ]
    passed += [(str(k.arg), k.value, False) for k in call.keywords]
    given, missing = Arguments(), list[str]()
    for name, value, by_place in passed:
        try:
            result = runner.evaluate(value, dict(names))
        except (Exception, SystemExit):
            if not name:
                raise
            missing.append(name)
            continue
        if name and is_open(name, result) and not isinstance(value, ast.Constant):  # counted in data that are not here
            missing.append(name)
        elif by_place and not missing:
            given.args.append(result)
        else:
            given.kwargs[name] = result
    return given, missing


def _own_config(function: object) -> dict[str, object]:
    """The default of the configuration class that a model names as its own, as those of transformers do."""
    kind = getattr(function, "config_class", None)
    try:
        return {"config": kind()} if isinstance(kind, type) else {}
    except TypeError:  # it has required fields
        return {}


def _lacking(error: TypeError) -> list[str]:
    """The arguments that a call, or one that `**kwargs` are passed on to, lacked, as Python's message names them."""
    said = re.search(r"missing \d+ required (?:positional|keyword-only) arguments?: (.*)", str(error))
    return re.findall(r"'(\w+)'", said[1]) if said else []


def signature(function: object) -> list[str]:
    """The names of a callable's parameters, `**` for a variable part; none when it has no readable signature."""
    if not callable(function):
        return []
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return ["**" if p.kind is p.VAR_KEYWORD else p.name for p in found if p.kind is not p.VAR_POSITIONAL]


def makes_models(value: object) -> bool:
    """Whether a value is called to get a model, rather than being one."""
    return inspect.isclass(value) or inspect.isfunction(value) or (callable(value) and not isinstance(value, nn.Module))


def parsed_overrides(texts: Sequence[str]) -> dict[str, object]:
    """`--init` texts as arguments: `num_classes=10`; a value that is no literal is a string.

    Raises UsageError for a text without `=`.
    """
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip().isidentifier():
            raise UsageError(f"cannot read --init {text!r}", "write --init num_classes=10")
        try:
            found[name.strip()] = constant(ast.parse(value.strip(), mode="eval").body)
        except (ValueError, SyntaxError):
            found[name.strip()] = value
    return found


def _variations(arguments: Arguments) -> Iterator[Arguments]:
    """The arguments, then the same with one guess replaced: every guess's likeliest alternative, then the next.

    Before those, with the sizes that a configuration of the file leaves open.
    """
    yield arguments
    for name, config in arguments.stated.items():
        if name in arguments.kwargs and (sizes := open_sizes(config)):
            guessed = {**arguments.guessed, **{f"{name}.{field}": size for field, size in sizes.items()}}
            yield replace(arguments, kwargs={**arguments.kwargs, name: with_sizes(config, sizes)}, guessed=guessed)
    plain = {n: v for n, v in arguments.guessed.items() if not isinstance(v, GuessedConfig) and n in arguments.kwargs}
    others = [(rank, name, other) for name, v in plain.items() for rank, other in enumerate(alternatives(name, v))]
    for _, name, other in sorted(others, key=lambda item: item[0])[:REPAIRS]:
        yield replace(arguments, kwargs={**arguments.kwargs, name: other}, guessed={**arguments.guessed, name: other})
