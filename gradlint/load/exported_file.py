"""An exported program (.pt2) as a graph with its example inputs; its code is data, and none of its pickles is run."""

from __future__ import annotations

import contextlib
import functools
import logging
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradlint.error import InputError, LoadError
from gradlint.load import exported_archive
from gradlint.load.environment import patched
from gradlint.load.feed_plan import NORMAL, Guess, Plan, draw
from gradlint.load.model import LoadedModel
from gradlint.load.onnx_model import refuse_options
from gradlint.load.spec import FLOATS, InputSpec, Values, parse_all
from gradlint.result import InputUsed

if TYPE_CHECKING:
    from gradlint.config import Settings

INFERENCE = ("_native_batch_norm_legit_no_training", "_native_batch_norm_legit_no_stats")


def load(path: Path, shown: str, settings: Settings) -> LoadedModel:
    """The program's graph module with example inputs.

    Raises LoadError for what is no well-formed exported program or would run code, UsageError and InputError for inputs
    that do not fit it.
    """
    refuse_options(settings, path)
    exported_archive.check(path, shown)
    program = _read(path, shown)
    module = program.module()
    named = _inputs(program, parse_all(settings.inputs), shown)

    def fresh(seed: int) -> tuple[tuple[object, ...], dict[str, object]]:
        generator = torch.Generator().manual_seed(seed)
        return tuple(_redrawn(tensor, spec, generator, seed) for _, tensor, spec in named), {}

    args = fresh(0)[0] if any(spec for _, _, spec in named) else tuple(tensor for _, tensor, _ in named)
    return LoadedModel(
        model=module,
        args=args,
        kwargs={},
        inputs=tuple(_used(name, tensor, spec) for name, tensor, spec in named),
        name="",
        span=None,
        rebuild=None,
        draw=fresh,
        notes=_notes(program),
    )


def _read(path: Path, shown: str) -> Any:
    """The program, by torch's own reader, which is kept from unpickling anything but tensors."""
    logging.getLogger("torch.export").setLevel(logging.CRITICAL)
    try:
        with _tensors_only():
            return torch.export.load(path)
    except pickle.UnpicklingError as error:
        raise LoadError(f"{shown} refused: reading it would execute code ({_first(error)})") from error
    except Exception as error:  # a damaged archive makes the reader raise almost anything
        raise LoadError(f"{shown} cannot be read as an exported program: {_first(error)}") from error


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.export.load unpickles constants and example inputs freely; inside, only tensors are."""
    safe: Callable[..., Any] = functools.partial(_load, torch.load)

    def refuse(*_: object, **__: object) -> Any:
        raise pickle.UnpicklingError("it holds a pickled object")

    with patched(torch, "load", safe), patched(pickle, "loads", refuse), patched(pickle, "load", refuse):
        yield


def _load(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return original(*args, **{**kwargs, "weights_only": True})


Named = list[tuple[str, Tensor, InputSpec | None]]


def _inputs(program: Any, specs: tuple[InputSpec, ...], shown: str) -> Named:
    """Every input with its example, and the user's spec for it."""
    example = program.example_inputs
    names = list(program.graph_signature.user_inputs)
    tensors = [*example[0], *example[1].values()] if example else []
    if len(tensors) != len(names) or not all(isinstance(value, Tensor) for value in tensors):
        raise InputError(
            f"{shown} does not hold one example tensor for each of its inputs {', '.join(map(str, names))}"
        )
    given = {spec.name: spec for spec in specs if spec.name}
    rest = iter([spec for spec in specs if not spec.name])
    return [(str(name), t, given.get(str(name)) or next(rest, None)) for name, t in zip(names, tensors, strict=True)]


def _redrawn(tensor: Tensor, spec: InputSpec | None, generator: torch.Generator, seed: int) -> Tensor:
    """Other entries: by the user's law, normal ones, or the example's own in another order."""
    if spec is not None:
        values: Values | None = spec.values or (NORMAL if spec.dtype in FLOATS else None)
        return draw(Plan((("x", Guess("given", spec.shape, spec.dtype, values)),), ()), seed).tensors["x"]
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, generator=generator, dtype=torch.float32).to(tensor.dtype)
    order = torch.randperm(tensor.numel(), generator=generator)
    return tensor.reshape(-1)[order].reshape(tensor.shape)


def _used(name: str, tensor: Tensor, spec: InputSpec | None) -> InputUsed:
    if spec is not None:
        return InputUsed(name, spec.shape, spec.dtype, "cli", str(spec.values or ""))
    dtype = str(tensor.dtype).removeprefix("torch.")
    return InputUsed(name, tuple(tensor.shape), dtype, "example", "stored in the file")


def _notes(program: Any) -> tuple[str, ...]:
    """That train mode cannot be had of a program that was exported in eval mode."""
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    norms = [node for node in calls if "batch_norm" in str(node.target)]
    still = [n for n in norms if any(name in str(n.target) for name in INFERENCE) or False in n.args[5:6]]
    if norms and len(still) == len(norms):
        return ("it was exported in eval mode: its norms use their stored statistics, as in inference",)
    return ()


def _first(error: BaseException) -> str:
    return (next(iter(str(error).strip().splitlines()), "") or type(error).__name__)[:300]
