"""Batches of the user's own: where they come from, and which part of one goes into forward."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils.data import default_convert

from gradlint.error import GradlintError, InputError, UsageError
from gradlint.graph.ir import Span
from gradlint.load.model import Batch, LoadedModel
from gradlint.result import InputUsed

MOST = 64  # batches that are held; a longer run goes round
POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
STEP = "training_step"


def find(name: str) -> Iterable[object]:
    """What "module:name" names: an iterable of batches, or what a function of no arguments returns.

    Raises UsageError when it cannot be imported, raises, or is no iterable.
    """
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--data {name}: {error}", "give module:name; the file's own folder is searched") from error
    if callable(found) and not hasattr(found, "__iter__"):
        found = _called(found, name)
    if not hasattr(found, "__iter__"):
        raise UsageError(f"--data {name} is of type {type(found).__name__}, not an iterable of batches")
    return found  # type: ignore[no-any-return]


def _called(function: Callable[[], object], name: str) -> object:
    try:
        return function()
    except Exception as error:
        problem = f"--data {name} raised {type(error).__name__}: {error}"
        raise UsageError(problem, "it is called without arguments, and returns an iterable of batches") from error


@dataclass
class Batches:
    """Batches by number, for a model's forward; the source is iterated as far as was asked for, and then gone round."""

    source: Iterable[object]
    model: nn.Module
    entry: str = "forward"
    _held: list[Batch] = field(default_factory=list)
    _iterator: Iterator[object] | None = None

    def __call__(self, index: int) -> Batch:
        """The batch of this number.

        Raises InputError when there is none, forward takes more than it holds, or the user's own code raises.
        """
        try:
            self._iterator = iter(self.source) if self._iterator is None else self._iterator
            while len(self._held) <= min(index, MOST - 1):
                self._held.append(self._split(next(self._iterator)))
        except StopIteration:
            pass
        except GradlintError:
            raise
        except Exception as error:
            raise InputError(f"the data raised {type(error).__name__}: {error}") from error
        if not self._held:
            raise InputError("the data hold no batch")
        return self._held[index % len(self._held)]

    def _split(self, raw: object) -> Batch:
        batch = default_convert(raw)  # type: ignore[no-untyped-call]
        if self.entry == STEP:
            given = (batch, 0)
            return Batch(given[: len(_positions(getattr(self.model, STEP)))], {})
        return split(batch, self.model)


def entry(model: nn.Module, loss: str | None) -> str:
    """What a batch is given to: a LightningModule's `training_step`, which knows its loss, unless another is told."""
    lightning = any(cls.__name__ == "LightningModule" for cls in type(model).__mro__)
    return STEP if lightning and loss in (None, "own") else "forward"


def with_data(
    model: nn.Module,
    batches: Batches,
    name: str,
    *,
    span: Span | None = None,
    rebuild: Callable[[], nn.Module] | None = None,
    hint: str | None = None,
    notes: tuple[str, ...] = (),
) -> LoadedModel:
    """The model with its first batch as example inputs. Raises InputError when there is no batch that fits forward."""
    first = batches(0)
    return LoadedModel(
        model=model,
        args=first.args,
        kwargs=first.kwargs,
        inputs=used(first, model),
        name=name,
        span=span,
        rebuild=rebuild,
        draw=lambda seed: (batches(seed).args, batches(seed).kwargs),
        loss="own" if batches.entry == STEP else None,
        loss_hint=hint,
        notes=notes,
        target=first.target,
        batches=batches,
        entry=batches.entry,
    )


def split(batch: object, model: nn.Module) -> Batch:
    """A batch as arguments of forward and what remains for the loss.

    Of a tuple as many entries as forward requires, of a mapping those that are arguments of forward; anything else is
    the one argument. Raises InputError when forward requires more than the batch holds.
    """
    if isinstance(batch, Mapping):
        return _of_mapping(batch, model)
    if not isinstance(batch, (tuple, list)):
        return Batch((batch,), {})
    first = batch[0] if batch else None
    if isinstance(first, Mapping) and set(_required(model)) <= set(first):
        return Batch((), dict(first), _alone(batch[1:]))
    needed = max(1, len(_required(model)))
    if len(batch) < needed:
        raise InputError(f"a batch of {len(batch)} entries, but forward requires {needed} arguments")
    return Batch(tuple(batch[:needed]), {}, _alone(batch[needed:]))


def used(batch: Batch, model: nn.Module) -> tuple[InputUsed, ...]:
    """The tensors of the arguments, as a report lists them."""
    names = [*_positions(model.forward), *(f"input_{i}" for i in range(len(batch.args)))]
    given = [*zip(names, batch.args, strict=False), *batch.kwargs.items()]
    return tuple(
        InputUsed(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), "data")
        for key, value in given
        for name, tensor in _tensors(key, value)
    )


def _of_mapping(batch: Mapping[str, object], model: nn.Module) -> Batch:
    parameters = inspect.signature(model.forward).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and set(_required(model)) <= set(batch):
        return Batch((), dict(batch))
    taken = {key: value for key, value in batch.items() if key in parameters}
    missing = [name for name in _required(model) if name not in taken]
    if missing and taken:
        raise InputError(f"forward requires {missing[0]!r}, which a batch does not hold: {', '.join(map(str, batch))}")
    if not taken:
        return Batch((batch,), {})
    rest = {key: value for key, value in batch.items() if key not in taken}
    return Batch((), taken, next(iter(rest.values())) if len(rest) == 1 else rest or None)


def _required(model: nn.Module) -> list[str]:
    parameters = inspect.signature(model.forward).parameters.values()
    return [p.name for p in parameters if p.kind in POSITIONAL and p.default is p.empty]


def _positions(function: Any) -> list[str]:
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in POSITIONAL]


def _alone(rest: Sequence[object]) -> object:
    return rest[0] if len(rest) == 1 else tuple(rest) or None


def _tensors(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(f"{name}.{key}", item)
    elif isinstance(value, (tuple, list)):
        for place, item in enumerate(value):
            yield from _tensors(f"{name}.{place}", item)
