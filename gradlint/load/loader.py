"""From a candidate to a LoadedModel: import safely, build, put weights in, feed."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from gradlint.error import GradlintError, UsageError
from gradlint.load.build import Built, build
from gradlint.load.construct import parsed_overrides
from gradlint.load.data import Batches, entry, find, with_data
from gradlint.load.devices import on_cpu, wants_accelerator
from gradlint.load.downloads import offline
from gradlint.load.environment import Place, Session, place, surroundings
from gradlint.load.imports import is_from, user_error
from gradlint.load.inputs import feed
from gradlint.load.model import LoadedModel
from gradlint.load.weights import put_weights
from gradlint.source.models import Candidate
from gradlint.source.names import parents
from gradlint.source.text import Source

if TYPE_CHECKING:
    from gradlint.config import Settings


ACCELERATOR = re.compile(r"\b(cuda|mps|xpu)\b")


class Loader:
    """Loads the models of one file."""

    def __init__(self, source: Source, settings: Settings, tracking: AbstractContextManager[object]) -> None:
        self.source = source
        self.settings = settings
        self.tracking = tracking
        self.where: Place = place(source.path, parents(source.tree))
        self.overrides = parsed_overrides(settings.init)
        self.accelerated = wants_accelerator(settings.device)
        self.lasting = contextlib.ExitStack()  # closed by nobody but tests
        self.whole: set[str] = set()  # the file's own module, where data or a loss were asked for that stand in it

    def each(self, found: list[Candidate]) -> Iterator[LoadedModel | GradlintError]:
        """Every candidate loaded, or why it could not be; modules without parameters are left out beside others."""
        with self.tracking:
            built = [self._built(candidate) for candidate in found]
        self._stay_on_cpu()
        some = any(isinstance(b, Built) and b.trainable for b in built)
        for candidate, result in zip(found, built, strict=True):
            if isinstance(result, GradlintError):
                yield result
            elif result.trainable or not some:
                yield self._fed(candidate, result)

    def _built(self, candidate: Candidate) -> Built | GradlintError:
        try:
            with self._surroundings() as session:
                built = build(
                    candidate,
                    self.source,
                    self.where,
                    session,
                    seed=self.settings.seed,
                    overrides=self.overrides,
                    memory=self.settings.memory,
                )
            notes = tuple(dict.fromkeys((*session.notes, *built.notes)))
            waiting = _within(built.model, [built.model] if built.partial else session.empty)
            return replace(built, notes=notes, awaited=waiting.union(built.unwritten))
        except GradlintError as error:
            return error
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever user code raises is reported as its own
            return user_error(error, self.where, self.source, f"cannot load {candidate.name}")

    @contextlib.contextmanager
    def _surroundings(self) -> Iterator[Session]:
        """Where user code runs: its own folder, no network, and no accelerator when none is there or wanted."""
        with contextlib.ExitStack() as stack:
            session = stack.enter_context(surroundings(self.where))
            downloads = stack.enter_context(offline())
            device = None if self.accelerated else stack.enter_context(on_cpu())
            session.imported, session.whole = downloads.patch, self.whole
            yield session
            session.notes += downloads.notes()
            session.empty += downloads.empty
            if device is not None and device.moved:
                session.notes.append("asks for an accelerator; run on the CPU")

    def _stay_on_cpu(self) -> None:
        """A forward may ask for an accelerator again, so the redirection is left on for the rest of the process."""
        files = [getattr(m, "__file__", None) or "" for m in list(sys.modules.values())]
        texts = [Path(f).read_text(errors="replace") for f in files if f.endswith(".py") and self.where.is_user(f)]
        if not self.accelerated and any(ACCELERATOR.search(text) for text in (self.source.text, *texts)):
            self.lasting.enter_context(on_cpu())

    def _fed(self, candidate: Candidate, built: Built) -> LoadedModel | GradlintError:
        """Weights first, since a refused checkpoint must not cost a search for inputs."""
        try:
            notes = list(built.notes)
            if self.settings.weights:
                notes.append(put_weights(built.model, Path(self.settings.weights)))
            with self._surroundings():
                for name in (self.settings.loss, self.settings.data):
                    self._import(name or "")
                if self.settings.data:
                    return self._with_data(candidate, built, find(self.settings.data), tuple(notes))
                fed = feed(built.model, self.settings, candidate.hints)
        except GradlintError as error:
            error.span = error.span or candidate.span
            return error
        return LoadedModel(
            model=built.model,
            args=fed.args,
            kwargs=fed.kwargs,
            inputs=fed.inputs,
            name=built.name,
            span=candidate.span,
            rebuild=None if self.settings.weights else self._rebuild(built),
            draw=fed.draw,
            loss=fed.loss,
            loss_hint=candidate.loss,
            notes=(*notes, *fed.notes),
            awaited=frozenset() if self.settings.weights else built.awaited,
        )

    def _with_data(
        self, candidate: Candidate, built: Built, source: Iterable[object], notes: tuple[str, ...]
    ) -> LoadedModel:
        if self.settings.inputs:
            raise UsageError("--input and --data both say what the model is fed", "give one of them")
        batches = Batches(source, built.model, entry(built.model, self.settings.loss))
        rebuild = None if self.settings.weights else self._rebuild(built)
        return with_data(
            built.model, batches, built.name, span=candidate.span, rebuild=rebuild, hint=candidate.loss, notes=notes
        )

    def _import(self, name: str) -> None:
        """Import the module of "module:name" now, while the file's folder is searched.

        The file itself was run only as far as its model needs: for what else stands in it, all of it is imported.
        Raises LoadError for what its own code raises then; a module that is missing is for its user to report.
        """
        module, colon, _ = name.partition(":")
        part = sys.modules.get(module)
        if colon and part is not None and is_from(part, self.source.path) and module not in self.whole:
            self.whole.add(module)
            del sys.modules[module]
            try:
                importlib.import_module(module)
            except (Exception, SystemExit) as error:
                raise user_error(error, self.where, self.source, f"cannot import {module} for {name}") from error
        elif colon:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)

    def _rebuild(self, built: Built) -> Callable[[], nn.Module]:
        def rebuild() -> nn.Module:
            with self._surroundings():
                return built.rebuild()

        return rebuild


def _within(model: nn.Module, modules: Iterable[nn.Module]) -> frozenset[str]:
    """The model's parameters that are those of these modules."""
    theirs = {id(param) for module in modules for param in module.parameters()}
    return frozenset(name for name, param in model.named_parameters(remove_duplicate=False) if id(param) in theirs)
