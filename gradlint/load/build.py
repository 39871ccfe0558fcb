"""Build a model as its file does: follow a recipe, or call the class with stated and guessed arguments."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import nn

from gradlint.error import GradlintError, LoadError
from gradlint.load.arguments import Arguments, GuessedConfig, Guesser, brief, split_call
from gradlint.load.environment import Place, Session
from gradlint.load.guess import alternatives
from gradlint.load.imports import Runner, user_error
from gradlint.source.calls import trains
from gradlint.source.classes import definitions
from gradlint.source.constants import normal, stated_values
from gradlint.source.models import Candidate
from gradlint.source.names import binds, is_main_guard
from gradlint.source.recipe import Frame, Recipe
from gradlint.source.text import Source
from gradlint.source.usage import parameter_uses

REPAIRS = 12  # other values tried for guessed arguments
SUPPLIES = 12  # values that the file does not set where it needs them


@dataclass(frozen=True)
class Built:
    """A model, the call that made it, and what had to be assumed."""

    model: nn.Module
    name: str
    rebuild: Callable[[], nn.Module]
    notes: tuple[str, ...] = ()

    @property
    def trainable(self) -> bool:
        """Whether it has any parameters."""
        return any(True for _ in self.model.parameters())


@dataclass(frozen=True)
class _Made:
    value: object
    name: str
    again: Callable[[], object]
    notes: tuple[str, ...] = ()


def build(candidate: Candidate, source: Source, where: Place, session: Session, seed: int = 0) -> Built:
    """The candidate as a module, with initial weights drawn from `seed`; the global generator is left as it was.

    Raises LoadError with the user's own line when no way of building it works.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _Builder(candidate, source, where, session, seed).build()


@dataclass
class _Builder:
    candidate: Candidate
    source: Source
    where: Place
    session: Session
    seed: int
    notes: list[str] = field(default_factory=list)

    def build(self) -> Built:
        """Try every recipe, then the whole file; the first error that names the user's code is the one reported."""
        errors: list[BaseException] = []
        for recipe in self._recipes():
            torch.manual_seed(self.seed)
            try:
                made = self._follow(recipe)
                return self._finished(made)
            except (Exception, SystemExit) as error:  # noqa: BLE001  kept, and reported when nothing else works
                errors.append(error)
        raise self._reported(errors)

    def _recipes(self) -> Iterator[Recipe]:
        yield from self.candidate.recipes
        if self._calm:
            body = tuple(s for s in self.source.tree.body if not is_main_guard(s))
            yield from (replace(recipe, module=body) for recipe in self.candidate.recipes)

    @property
    def _calm(self) -> bool:
        """Whether importing the whole file would run nothing but definitions and assignments."""
        defined = {id(d) for d in definitions(self.source.tree.body)}
        return not any(trains(s) for s in self.source.tree.body if id(s) not in defined and not is_main_guard(s))

    def _reported(self, errors: list[BaseException]) -> GradlintError:
        if not errors:
            return LoadError(f"no way to build {self.candidate.name} was found")
        error = next((e for e in errors if not isinstance(e, NameError)), errors[0])
        found = user_error(error, self.where, self.source, f"cannot build {self.candidate.name}")
        found.hint = (
            found.hint or f"say how: gradlint '{self.source.shown}:{self.candidate.made_by or self.candidate.name}(…)'"
        )
        found.span = found.span or self.candidate.span
        return found

    def _finished(self, made: _Made) -> Built:
        model, note = as_module(made.value, made.name)
        options = [f"guessed: {name}={brief(value)}" for name, value in self.session.guessed.items()]
        notes = dict.fromkeys([*options, *self.notes, *made.notes, *([note] if note else [])])

        def rebuild() -> nn.Module:
            return as_module(made.again(), made.name)[0]

        return Built(model, made.name, rebuild, tuple(notes))

    def _follow(self, recipe: Recipe) -> _Made:
        """Follow a recipe; where it lacks something that the file states or that can be guessed, supply it and start again."""
        given: dict[str, object] = {}
        for _ in range(SUPPLIES):
            runner = Runner(self.source, self.where, self.session, notes=self.notes, given=given)
            try:
                return self._followed(recipe, runner)
            except (NameError, AttributeError) as error:
                cause = runner.cause(error)
                if not (self._supply_global(cause, given) or self._supply_option(cause)):
                    raise cause from None
        raise LoadError(f"{self.candidate.name} needs more than {SUPPLIES} values that the file does not set")

    def _supply_global(self, error: BaseException, given: dict[str, object]) -> bool:
        """A global that the file sets only under a condition: the constant that it sets it to."""
        name = getattr(error, "name", None) or ""
        known = isinstance(error, NameError) and name not in given and normal(name) in self._stated
        if known and any(name in binds(s) for s in self.source.tree.body):
            given[name] = self._stated[normal(name)]
            self.notes.append(f"taken from the file: {name}={brief(given[name])}")
            return True
        return False

    def _supply_option(self, error: BaseException) -> bool:
        """An attribute that the file adds to its parsed options later on: guessed by its name."""
        if not isinstance(error, AttributeError) or not isinstance(error.obj, argparse.Namespace) or not error.name:
            return False
        value = Guesser(self._stated, {}).value(error.name)[0]
        setattr(argparse.Namespace, error.name, value)
        self.notes.append(f"guessed: {error.name}={brief(value)}")
        return True

    def _followed(self, recipe: Recipe, runner: Runner) -> _Made:
        namespace = runner.module(recipe.module).__dict__
        for frame in recipe.frames:
            namespace = self._entered(frame, namespace, runner)
        call = split_call(recipe.expression)
        function = runner.evaluate(call[0] if call else recipe.expression, namespace)
        if call is None and not _needs_call(function):
            return _Made(function, self._label(recipe), lambda: self._follow(recipe).value)
        if not _needs_call(function) or inspect.ismethod(function):
            return _Made(runner.evaluate(recipe.expression, namespace), recipe.text, lambda: self._follow(recipe).value)
        guesser = self._guesser(function, namespace)
        given, missing = self._given(call, function, namespace, runner)
        return self._called(function, guesser, guesser.complete(function, given, missing))

    def _label(self, recipe: Recipe) -> str:
        """The call that made a variable, where the file shows one."""
        if self.candidate.kind in ("instance", "expression"):
            return self.candidate.name
        calls = [r.text for r in self.candidate.recipes if isinstance(r.expression, ast.Call)]
        return calls[0] if calls else recipe.text

    def _entered(self, frame: Frame, outer: Mapping[str, object], runner: Runner) -> dict[str, object]:
        inner = dict(outer)
        guesser = Guesser(self._stated, outer)
        for name, value in frame.bindings:
            try:
                inner[name] = runner.evaluate(value, dict(outer))
            except (Exception, SystemExit) as error:  # noqa: BLE001  kept: whatever reads the parameter raises it
                inner.pop(name, None)
                runner.failed[name] = error
        for name in frame.guesses:
            inner[name] = guesser.value(name)[0]
            self.notes.append(f"guessed: {name}={brief(inner[name])}")
        runner.run(frame.body, inner)
        return inner

    def _given(
        self,
        call: tuple[ast.expr, list[ast.expr], list[ast.keyword]] | None,
        function: object,
        namespace: dict[str, object],
        runner: Runner,
    ) -> tuple[Arguments, list[str]]:
        """The arguments of a call in the file that can be evaluated, and the names of those that cannot."""
        given, missing = Arguments(), list[str]()
        if call is None:
            return given, missing
        names = [p for p in _signature(function)]
        for index, value in enumerate(call[1]):
            try:
                result = runner.evaluate(value, dict(namespace))
            except (Exception, SystemExit):  # noqa: BLE001  an argument read from data that is not here is guessed by its name
                if index >= len(names):
                    raise
                missing.append(names[index])
                continue
            if missing:
                given.kwargs[names[index]] = result
            else:
                given.args.append(result)
        for keyword in call[2]:
            try:
                given.kwargs[str(keyword.arg)] = runner.evaluate(keyword.value, dict(namespace))
            except (Exception, SystemExit):  # noqa: BLE001  as above
                missing.append(str(keyword.arg))
        return given, missing

    def _called(self, function: Callable[..., object], guesser: Guesser, arguments: Arguments) -> _Made:
        """Call with the arguments; where they were guessed, other guesses are tried when the constructor rejects them."""
        name = getattr(function, "__name__", self.candidate.name)
        first: Exception | None = None
        for trial in _variations(arguments):
            try:
                torch.manual_seed(self.seed)
                value = function(*trial.args, **trial.kwargs)
            except Exception as error:  # noqa: BLE001  the error of the first guess is raised when none is accepted
                first = first or error
                continue
            notes = tuple(trial.notes())
            return _Made(value, trial.label(name), lambda: function(*trial.args, **trial.kwargs), notes)
        assert first is not None
        raise first

    def _guesser(self, function: object, namespace: Mapping[str, object]) -> Guesser:
        node = next(
            (
                d
                for d in definitions(self.source.tree.body)
                if getattr(d, "name", "") == getattr(function, "__name__", None)
            ),
            None,
        )
        uses = parameter_uses(node) if node is not None else {}  # type: ignore[arg-type]

        def part(owner: object, name: str) -> object:
            inner = self._guesser(owner, namespace)
            return self._called(owner, inner, inner.complete(owner, Arguments())).value  # type: ignore[arg-type]

        return Guesser(self._stated, namespace, uses, part)

    @cached_property
    def _stated(self) -> dict[str, object]:
        return stated_values(self.source)


def _variations(arguments: Arguments) -> Iterator[Arguments]:
    yield arguments
    plain = [(n, v) for n, v in arguments.guessed.items() if not isinstance(v, GuessedConfig) and n in arguments.kwargs]
    others = [(name, other) for name, value in plain for other in list(alternatives(name, value))[:1]]
    for name, other in others[:REPAIRS]:
        yield replace(arguments, kwargs={**arguments.kwargs, name: other}, guessed={**arguments.guessed, name: other})


def _needs_call(value: object) -> bool:
    """Whether a value is something that makes a model rather than a model."""
    return inspect.isclass(value) or (callable(value) and not isinstance(value, nn.Module))


def _signature(function: object) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return []


class FunctionModule(nn.Module):
    """A plain function of tensors, as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: object, **kwargs: object) -> object:
        """The function's own result."""
        return self.function(*args, **kwargs)


def as_module(value: object, name: str) -> tuple[nn.Module, str]:
    """(the module in a value, a note on how it was taken out of it); of several, the first.

    Raises LoadError when the value holds no module.
    """
    if isinstance(value, nn.Module):
        return _with_forward(value)
    parts = (
        list(value.values()) if isinstance(value, Mapping) else list(value) if isinstance(value, tuple | list) else []
    )
    for part in parts:
        if isinstance(part, nn.Module):
            return _with_forward(part)[0], f"{name} returns several values; the first module is linted"
    raise LoadError(f"{name} is a {type(value).__name__}, not a model", "name an nn.Module, or a call that returns one")


def _with_forward(model: nn.Module) -> tuple[nn.Module, str]:
    """The network itself: wrappers are taken off, and a Lightning module without a forward stands for what it trains."""
    for attribute in ("_orig_mod", "module"):  # torch.compile; DataParallel, DistributedDataParallel
        inner = getattr(model, attribute, None)
        if isinstance(inner, nn.Module) and type(model).__module__.startswith("torch."):
            return _with_forward(inner)
    forward = getattr(type(model), "forward", None)
    if getattr(forward, "__module__", "").startswith(("lightning", "pytorch_lightning")):
        sizes = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
        largest = max(sizes, key=lambda n: sizes[n], default="")
        if largest:
            return model.get_submodule(largest), f"it has no forward of its own; its {largest} is linted"
    return model, ""
