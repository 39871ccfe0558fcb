"""Build a model as its file does: follow a recipe, and supply what it lacks."""

from __future__ import annotations

import argparse
import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from gradlint.error import GradlintError, LoadError, UsageError
from gradlint.load import meta
from gradlint.load.arguments import Arguments, Guesser, brief, shortened
from gradlint.load.construct import Constructor, Made, evaluated, makes_models
from gradlint.load.environment import Place, Session
from gradlint.load.guess import named_size
from gradlint.load.imports import Runner, user_error
from gradlint.load.unwrap import FunctionModule, as_module, holds_module
from gradlint.load.unwritten import Marking, settled
from gradlint.source.calls import trains
from gradlint.source.classes import definitions
from gradlint.source.constants import normal
from gradlint.source.models import Candidate
from gradlint.source.names import binds, is_definition, is_main_guard
from gradlint.source.recipe import Frame, Recipe
from gradlint.source.text import Source

SUPPLIES = 12  # values that the file does not set where it needs them


@dataclass(frozen=True)
class Built:
    """A model, the call that made it, and what had to be assumed."""

    model: nn.Module
    name: str
    rebuild: Callable[[], nn.Module]
    notes: tuple[str, ...] = ()
    partial: bool = False  # a network that it takes was left out
    unwritten: tuple[str, ...] = ()  # parameters that were made of memory as it is
    awaited: frozenset[str] = frozenset()  # parameters that do not hold, or see, what they will when they are trained

    @property
    def trainable(self) -> bool:
        """Whether it has any parameters."""
        return any(True for _ in self.model.parameters())


def build(
    candidate: Candidate,
    source: Source,
    where: Place,
    session: Session,
    *,
    seed: int = 0,
    overrides: Mapping[str, object] | None = None,
    memory: int | None = None,
) -> Built:
    """The candidate as a module, with initial weights drawn from `seed`; the global generator is left as it was.

    `overrides` are constructor arguments that win over the file's. Raises LoadError with the user's own line when no
    way of building it works. A model that does not fit `memory` (bytes) is built on meta, without numbers.
    """
    with torch.random.fork_rng(devices=[]):
        constructor = Constructor(source, seed, overrides or {})
        return _Builder(candidate, source, where, session, constructor, memory).build()


@dataclass
class _Builder:
    candidate: Candidate
    source: Source
    where: Place
    session: Session
    constructor: Constructor
    memory: int | None = None  # bytes that the model and its analysis may take
    notes: list[str] = field(default_factory=list)

    def build(self) -> Built:
        """Try every recipe, then the whole file; the first error that names the user's code is the one reported."""
        errors: list[BaseException] = []
        for recipe in self._recipes():
            torch.manual_seed(self.constructor.seed)
            self.notes.clear()
            if recipe in self.candidate.makes:
                self.notes.append(self._instead(recipe, errors[0]))
            try:
                return self._sized(recipe)
            except UsageError:
                raise
            except (Exception, SystemExit) as error:  # noqa: BLE001  kept, and reported when nothing else works
                errors.append(error)
        raise self._reported(errors)

    def _sized(self, recipe: Recipe) -> Built:
        """Built with real numbers when they fit the memory, else on meta."""
        try:
            with meta.Allocations((self.memory or meta.DEFAULT_MEMORY) // meta.BYTES_PER_ELEMENT), Marking():
                return self._finished(self._follow(recipe))
        except meta.TooLarge:
            return self._on_meta(recipe)

    def _on_meta(self, recipe: Recipe) -> Built:
        found: list[Built] = []

        def factory() -> nn.Module:
            found.append(self._finished(self._follow(recipe)))
            return found[-1].model

        model = meta.meta_build(factory)
        note = "too large for the memory: analysed without numbers, on meta"
        return replace(found[-1], model=model, rebuild=lambda: meta.meta_build(factory), notes=(*found[-1].notes, note))

    def _recipes(self) -> Iterator[Recipe]:
        """The file's own ways first; those that only name a finished model cannot take other arguments."""
        found = self.candidate.recipes
        if self.constructor.overrides:
            found = tuple(r for r in found if isinstance(r.expression, ast.Call)) + found[-1:]
        yield from found
        if self._calm:
            whole = tuple(s for s in self.source.tree.body if not is_main_guard(s))
            yield from (replace(recipe, module=whole) for recipe in found)
        yield from self.candidate.makes

    def _instead(self, recipe: Recipe, error: BaseException) -> str:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return f"{self.candidate.name} cannot be called ({said}): {recipe.text}, which it makes, is linted"

    @property
    def _calm(self) -> bool:
        """Whether importing the whole file would run no training."""
        defined = {id(d) for d in definitions(self.source.tree.body)}
        return not any(trains(s) for s in self.source.tree.body if id(s) not in defined and not is_main_guard(s))

    def _reported(self, errors: list[BaseException]) -> GradlintError:
        if not errors:
            return LoadError(f"no way to build {self.candidate.name} was found")
        error = next((e for e in errors if not isinstance(e, NameError)), errors[0])
        found = user_error(error, self.where, self.source, f"cannot build {self.candidate.name}")
        call = self.constructor.tried or f"{self.candidate.made_by or self.candidate.name}(…)"
        plain = f"say how: gradlint '{self.source.shown}:{call}'"
        own = f"write a function that makes it without arguments, and lint that: gradlint {self.source.shown}:FUNCTION"
        found.hint = found.hint or (own if "<" in call else plain)  # a guessed object cannot be typed
        found.span = found.span or self.candidate.span
        return found

    def _finished(self, made: Made) -> Built:
        model, note = as_module(made.value, made.name)
        if any(isinstance(m, nn.Embedding) and not m.num_embeddings for m in model.modules()):
            raise LoadError(f"{made.name} has an embedding without rows", "the data that it counts are not here")
        unwritten = settled(model)
        if unwritten:
            self.notes.append(f"never initialised, so drawn as nn.Linear draws its own: {_few(unwritten)}")
        options = [f"guessed: {name}={brief(value)}" for name, value in self.session.guessed.items()]
        notes = dict.fromkeys([*options, *self.notes, *made.notes, *([note] if note else [])])

        def rebuild() -> nn.Module:
            with Marking():
                again = as_module(made.again(), made.name)[0]
            settled(again)
            return again

        return Built(model, made.name, rebuild, tuple(notes), made.partial, unwritten)

    # -- following a recipe

    def _follow(self, recipe: Recipe) -> Made:
        """Follow a recipe; what it lacks and the file states elsewhere, or what can be guessed, is supplied."""
        given: dict[str, object] = {}
        for _ in range(SUPPLIES):
            runner = Runner(self.source, self.where, self.session, notes=self.notes, given=given)
            try:
                return self._followed(recipe, runner)
            except Exception as error:  # noqa: BLE001  raised again unless what it lacks can be supplied
                cause = runner.cause(error)
                supplied = self._supply_global(cause, given) or self._supply_option(cause) or runner.mend(cause)
                if not (supplied or self._supply_failed(error, runner, given)):
                    raise cause from None
        raise LoadError(f"{self.candidate.name} needs more than {SUPPLIES} values that the file does not set")

    def _followed(self, recipe: Recipe, runner: Runner) -> Made:
        names = runner.module(recipe.module).__dict__
        for frame in recipe.frames:
            names = self._entered(frame, names, runner)
        call = recipe.expression if isinstance(recipe.expression, ast.Call) else None
        plain = call is None or _unpacks(call)
        value = runner.evaluate(recipe.expression if call is None or plain else call.func, names)
        if not makes_models(value) or (call is not None and (plain or inspect.ismethod(value))):
            whole = value if plain else runner.evaluate(recipe.expression, names)
            return Made(whole, self._label(recipe), lambda: self._follow(recipe).value)
        given, missing = evaluated(call, value, names, runner) if call is not None else (Arguments(), [])
        made = self.constructor.make(value, given, missing, names)  # type: ignore[arg-type]
        if call is None and inspect.isfunction(value) and not holds_module(made.value):
            return Made(FunctionModule(value), self.candidate.name, lambda: FunctionModule(value))
        return made

    def _label(self, recipe: Recipe) -> str:
        """The variable for an instance, else the call that the file shows for it."""
        if self.candidate.kind in ("instance", "expression"):
            return self.candidate.name
        calls = [r.text for r in self.candidate.recipes if isinstance(r.expression, ast.Call)]
        return shortened(calls[0] if calls else recipe.text)

    def _entered(self, frame: Frame, outer: dict[str, object], runner: Runner) -> dict[str, object]:
        """The names of a function on the way to the model, as its caller in the file would set them."""
        inner = dict(outer)
        for name, value in frame.bindings:
            try:
                inner[name] = runner.evaluate(value, dict(outer))
            except (Exception, SystemExit) as error:  # noqa: BLE001  kept: whatever reads the parameter raises it
                inner.pop(name, None)
                runner.failed[name] = error
        for name in frame.guesses:
            inner[name] = Guesser(self.constructor.stated, outer).value(name)[0]
            self.notes.append(f"guessed: {name}={brief(inner[name])}")
        runner.run(frame.body, inner)
        return inner

    # -- supplying what is lacking

    def _supply_global(self, error: BaseException, given: dict[str, object]) -> bool:
        """A global that the file sets only under a condition: the constant that it sets it to."""
        name = getattr(error, "name", None) or ""
        stated = self.constructor.stated
        known = isinstance(error, NameError) and name not in given and normal(name) in stated
        if not known or not any(name in binds(s) for s in self.source.tree.body):
            return False
        given[name] = stated[normal(name)]
        self.notes.append(f"taken from the file: {name}={brief(given[name])}")
        return True

    def _supply_failed(self, error: BaseException, runner: Runner, given: dict[str, object]) -> bool:
        """A global whose own statement failed, as it asks what is not here (`env.action_space.n`): guessed by its name.

        Only where the name says what it counts, and never a model or a class: why that failed is what is reported.
        """
        name = getattr(error, "name", None) or ""
        defined = {d.name for d in definitions(self.source.tree.body) if is_definition(d)}
        if name in defined | self.candidate.variables | {self.candidate.name}:
            return False
        value = (
            named_size(name) if isinstance(error, NameError) and name in runner.failed and name not in given else None
        )
        if value is None:
            return False
        given[name] = value
        self.notes.append(f"guessed: {name}={brief(value)}")
        return True

    def _supply_option(self, error: BaseException) -> bool:
        """An attribute that the file adds to its parsed options later on: guessed by its name."""
        if not isinstance(error, AttributeError) or not isinstance(error.obj, argparse.Namespace) or not error.name:
            return False
        value = Guesser(self.constructor.stated, {}).value(error.name)[0]
        setattr(argparse.Namespace, error.name, value)
        self.notes.append(f"guessed: {error.name}={brief(value)}")
        return True


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _unpacks(call: ast.Call) -> bool:
    """Whether a call passes `*args` or `**kwargs`, so that its arguments cannot be evaluated one by one."""
    return any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords)
