"""An ONNX file ready to be understood, without torch; and with torch, as a module with example inputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradlint.error import LoadError, UsageError
from gradlint.load.onnx_inputs import MASK, stated_sizes, tries, values
from gradlint.load.spec import FLOATS, INTEGERS, parse_all
from gradlint.onnx.build import fitted
from gradlint.onnx.file import File, read
from gradlint.onnx.inputs import Sized, declared
from gradlint.onnx.program import Program
from gradlint.result import InputUsed

if TYPE_CHECKING:
    from gradlint.config import Settings
    from gradlint.load.model import LoadedModel

MALFORMED = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
MOST_ENTRIES = 2**28  # of all inputs together
DEFAULT_MEMORY = 4 * 2**30
BYTES_PER_ELEMENT = 16  # weight, the probe's copy, its gradient and room for activations


class TooLargeError(LoadError):
    """The model can be read, and not be held to be measured."""


@dataclass(frozen=True)
class Prepared:
    """A file's program and the inputs it is sized for; `roles` say what an input without a law of its own is for."""

    file: File
    program: Program
    sized: tuple[Sized, ...]
    inputs: tuple[InputUsed, ...]

    @property
    def parameters(self) -> int:
        """How many numbers its weights hold."""
        leaves = self.program.leaves.values()
        return sum(math.prod(symbol.shape or ()) for symbol in leaves if symbol.kind == "param")


def prepare(path: Path, shown: str, settings: Settings) -> Prepared:
    """The file as a program, for the user's inputs where given. Never imports torch.

    Raises LoadError for a file that is no well-formed ONNX model, UsageError for options that do not fit it, InputError
    when its open dimensions cannot be guessed.
    """
    refuse_options(settings, path)
    specs = parse_all(settings.inputs)
    try:
        file = read(path, shown)
        inputs = declared(file)
        found = fitted(file, inputs, tries(inputs, specs, stated_sizes(file)))
    except MALFORMED as error:  # whatever a hostile file makes numpy, onnx or a handler raise
        told = next(iter(str(error).splitlines()), "")
        raise LoadError(f"{shown} is not a well-formed model: {type(error).__name__}: {told[:200]}") from error
    sized = tuple(values(found.program, found.sized))
    used = tuple(
        InputUsed(symbol.name, size.shape, size.dtype, size.source, law(symbol.name, size))
        for symbol, size in zip(found.program.inputs, sized, strict=True)
    )
    return Prepared(file, found.program, sized, used)


def refuse_options(settings: Settings, path: Path) -> None:
    """Raise UsageError for options that only make sense where a model is built."""
    if settings.init:
        raise UsageError(f"--init is for models that are built, and {path.name} holds a finished one")
    if settings.weights:
        raise UsageError(f"--weights is for models that are built, and {path.name} holds its own")


def role(name: str, size: Sized) -> str:
    """What the input is for, as far as its name tells: a mask is open."""
    return "mask" if MASK.search(name) and size.dtype not in FLOATS else "given"


def law(name: str, size: Sized) -> str:
    """How the entries are drawn, in a few words for the report."""
    if size.values is not None:
        return str(size.values)
    if role(name, size) == "mask" or size.dtype not in INTEGERS:
        return "ones"
    return "<2"


def load(path: Path, shown: str, settings: Settings) -> LoadedModel:
    """The file as a module that runs, with example inputs and a check of its outputs against onnxruntime's.

    Raises what `prepare` raises, and TooLargeError for a model that does not fit the memory.
    """
    from gradlint.load.feed_plan import Guess, Plan, draw
    from gradlint.load.model import LoadedModel
    from gradlint.load.onnx_check import disagreement
    from gradlint.load.program_module import ProgramModule

    prepared = prepare(path, shown, settings)
    entries = sum(math.prod(size.shape) for size in prepared.sized)
    if entries > MOST_ENTRIES:
        raise TooLargeError(f"it takes {entries:,} input entries, too many to run it on")
    needed = prepared.parameters * BYTES_PER_ELEMENT
    if needed > (settings.memory or DEFAULT_MEMORY):
        raise TooLargeError(f"its {prepared.parameters:,} parameters need {needed / 2**30:.1f} GiB: raise --memory")
    named = zip(prepared.program.inputs, prepared.sized, strict=True)
    guesses = tuple((s.name, Guess(role(s.name, size), size.shape, size.dtype, size.values)) for s, size in named)
    plan = Plan(guesses, ())
    module = ProgramModule(prepared.program)

    def fresh(seed: int) -> tuple[tuple[object, ...], dict[str, object]]:
        return draw(plan, seed).args, {}

    args, _ = fresh(0)
    return LoadedModel(
        model=module,
        args=args,
        kwargs={},
        inputs=prepared.inputs,
        name="",
        span=None,
        rebuild=None,
        draw=fresh,
        doubt=lambda: disagreement(module, args, path),
    )
