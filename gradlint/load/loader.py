"""From a candidate to a LoadedModel: import safely, build, put weights in, feed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from gradlint.error import GradlintError
from gradlint.load.build import Built, build
from gradlint.load.environment import Place, place, surroundings
from gradlint.load.imports import user_error
from gradlint.load.inputs import feed
from gradlint.load.model import LoadedModel
from gradlint.load.stub import StubFinder
from gradlint.load.weights import put_weights
from gradlint.source.models import Candidate
from gradlint.source.text import Source

if TYPE_CHECKING:
    from gradlint.config import Settings


class Loader:
    """Loads the models of one file."""

    def __init__(self, source: Source, settings: Settings, tracking: AbstractContextManager[object]) -> None:
        self.source = source
        self.settings = settings
        self.tracking = tracking
        self.where: Place = place(source.path)

    def each(self, found: list[Candidate]) -> Iterator[LoadedModel | GradlintError]:
        """Every candidate loaded, or the reason why it could not be; modules without parameters are left out beside others."""
        with self.tracking:
            built = [self._built(candidate) for candidate in found]
        trainable = [b for b in built if isinstance(b, Built) and any(True for _ in b.model.parameters())]
        for candidate, result in zip(found, built, strict=True):
            if isinstance(result, GradlintError):
                yield result
            elif not trainable or result in trainable:
                yield self._fed(candidate, result)

    def _built(self, candidate: Candidate) -> Built | GradlintError:
        try:
            with self._surroundings() as finder:
                return build(candidate, self.source, self.where, finder, self.settings.seed)
        except GradlintError as error:
            return error
        except (Exception, SystemExit) as error:  # noqa: BLE001  whatever user code raises is reported as its own
            return user_error(error, self.where, self.source, f"cannot load {candidate.name}")

    def _surroundings(self) -> AbstractContextManager[StubFinder]:
        return surroundings(self.where)

    def _fed(self, candidate: Candidate, built: Built) -> LoadedModel | GradlintError:
        """Weights first, since a refused checkpoint must not cost a search for inputs."""
        try:
            notes = list(built.notes)
            if self.settings.weights:
                notes.append(put_weights(built.model, Path(self.settings.weights)))
            with self._surroundings():
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
        )

    def _rebuild(self, built: Built) -> Callable[[], nn.Module]:
        def rebuild() -> nn.Module:
            with self._surroundings():
                return built.rebuild()

        return rebuild
