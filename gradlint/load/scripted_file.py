"""A TorchScript archive as a model with example inputs; its code is data, and no Python is run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gradlint.error import ForwardError, InputError, LoadError
from gradlint.load import scripted_archive
from gradlint.load.inputs import Feed, feed
from gradlint.load.model import LoadedModel
from gradlint.load.onnx_check import largest_difference
from gradlint.load.onnx_model import refuse_options
from gradlint.load.scripted_module import ScriptedModule, module_of
from gradlint.source.examples import ShapeHint, SourceHints

if TYPE_CHECKING:
    from gradlint.config import Settings

TOLERANCE = 1e-4  # largest difference, relative to the largest output: both sides call the same kernels


def load(path: Path, shown: str, settings: Settings) -> LoadedModel:
    """The archive's module with example inputs and a check of its outputs against TorchScript's own.

    Raises LoadError for what is no well-formed archive or holds nothing to train, UsageError and InputError for inputs
    that do not fit it.
    """
    refuse_options(settings, path)
    scripted_archive.check(path, shown)
    script, module = _read(path, shown)
    if not any(p.requires_grad for p in module.parameters()):
        hint = "save it before torch.jit.freeze, optimize_for_inference or requires_grad_(False)"
        raise LoadError(f"{shown} holds no weights that can be trained: it was frozen", hint)
    evaluated = script.hasattr("training") and not script.getattr("training")
    module.train()
    fed = _fed(module, settings, shown)
    source = {"example": "guessed"}
    return LoadedModel(
        model=module,
        args=fed.args,
        kwargs=fed.kwargs,
        inputs=tuple(replace(used, source=source.get(used.source, used.source)) for used in fed.inputs),
        name="",
        span=None,
        rebuild=None,
        draw=fed.draw,
        loss=fed.loss,
        notes=(*fed.notes, *_notes(module, evaluated=bool(evaluated))),
        doubt=lambda: disagreement(module, script, fed.args, fed.kwargs),
    )


def _read(path: Path, shown: str) -> tuple[Any, ScriptedModule]:
    """The module by torch's own reader. `torch.jit.load` does not read where TorchScript is switched off."""
    unit = torch._C.CompilationUnit()
    try:
        script = torch._C.import_ir_module(unit, str(path), torch.device("cpu"), {}, False)  # type: ignore[call-arg]
        module = module_of(script, unit)
        module.script_unknown  # noqa: B018  reads every graph
    except Exception as error:  # a damaged archive makes the reader raise almost anything
        raise LoadError(f"{shown} cannot be read as TorchScript: {_first(error)}") from error
    return script, module


def _fed(module: ScriptedModule, settings: Settings, shown: str) -> Feed:
    """Example inputs; where none are found and the archive holds operators that cannot be run, that is why."""
    try:
        return feed(module, settings, SourceHints(shapes=tuple(dict.fromkeys(_hints(module)))))
    except (InputError, ForwardError) as error:
        if module.script_unknown:
            raise LoadError(
                f"{shown} uses {', '.join(module.script_unknown[:3])}, which gradlint cannot run"
            ) from error
        raise


def _hints(module: nn.Module) -> Iterator[ShapeHint]:
    """What the first layers of the archive take, by their class and the shape of their first weight."""
    for layer in module.modules():
        weight = next(layer.parameters(recurse=False), None)
        take = TAKES.get(type(layer).__name__)
        if weight is not None and take is not None:
            yield from take(weight.shape)


TAKES: dict[str, Callable[[torch.Size], list[ShapeHint]]] = {
    "Embedding": lambda shape: [ShapeHint(("B", "T"), dtype="int64", high=shape[0])],
    "Conv1d": lambda shape: [ShapeHint(("B", shape[1], "L"))],
    "Conv2d": lambda shape: [ShapeHint(("B", shape[1], "H", "W"))],
    "Conv3d": lambda shape: [ShapeHint(("B", shape[1], 8, "H", "W"))],
    "Linear": lambda shape: [ShapeHint(("B", shape[1])), ShapeHint(("B", "T", shape[1]))],
    "LayerNorm": lambda shape: [ShapeHint(("B", *shape)), ShapeHint(("B", "T", *shape))],
    "BatchNorm1d": lambda shape: [ShapeHint(("B", *shape))],
    "BatchNorm2d": lambda shape: [ShapeHint(("B", *shape, "H", "W"))],
    **dict.fromkeys(("RNN", "GRU", "LSTM"), lambda shape: [ShapeHint(("B", "T", shape[1]))]),
    **dict.fromkeys(
        ("MultiheadAttention", "TransformerEncoderLayer"), lambda shape: [ShapeHint(("B", "T", shape[-1]))]
    ),
}


def disagreement(module: ScriptedModule, script: Any, args: tuple[object, ...], kwargs: dict[str, object]) -> str:
    """Why the module's outputs are not those of TorchScript's own run on the same inputs; "" when they agree.

    Both run in eval mode, as far as the archive knows it, with the same random numbers; the module is left as it was.
    """
    copied = copy.deepcopy(module).eval()
    try:
        own = _outputs(copied, args, kwargs)
    except Exception as error:  # noqa: BLE001  torch raises many classes; the reason is reported
        return f"the archive's graph does not run: {type(error).__name__}: {_first(error)}"
    try:
        theirs = _outputs(_evaluated(script)._get_method("forward"), args, kwargs)
    except Exception as error:  # noqa: BLE001  torch raises many classes; the reason is reported
        return f"TorchScript does not run the archive, so its reading cannot be checked: {_first(error)}"
    if len(own) != len(theirs):
        return f"it gives {len(own)} tensors, TorchScript {len(theirs)}"
    for number, (found, expected) in enumerate(zip(own, theirs, strict=True)):
        if found.shape != expected.shape:
            return f"output {number} has the shape {list(found.shape)}, TorchScript's {list(expected.shape)}"
        difference = largest_difference(_numbers(found), _numbers(expected))
        if difference > TOLERANCE:
            return f"output {number} differs from TorchScript's by {difference:.1e} of its largest entry"
    return ""


def _outputs(run: Callable[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> list[Tensor]:
    """Every tensor of the output, on inputs of its own, with random numbers from one seed."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return list(_tensors(run(*copy.deepcopy(args), **copy.deepcopy(kwargs))))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from (tensor for key in value for tensor in _tensors(value[key]))
    elif isinstance(value, (list, tuple)):
        yield from (tensor for item in value for tensor in _tensors(item))


def _numbers(tensor: Tensor) -> Any:
    return tensor.detach().to(torch.float64).numpy()


def _evaluated(script: Any) -> Any:
    """The original in eval mode, all the way down."""
    if script.hasattr("training"):
        script.setattr("training", False)
    for _, child in torch._C.ModuleDict(script).items():
        _evaluated(child)
    return script


def _notes(module: ScriptedModule, *, evaluated: bool) -> tuple[str, ...]:
    """What the archive settles: a trace keeps the mode that it was made in."""
    if module.script_keeps_mode:
        return ("it was traced: norms and dropout are as they were in that run, whatever the mode",)
    return ("it was saved in eval mode, and is run in train mode",) if evaluated else ()


def _first(error: BaseException) -> str:
    """The line of torch's message that says what is wrong."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return (lines[-1] if lines and lines[0].startswith("The following operation failed") else (lines or [""])[0])[
        :300
    ] or type(error).__name__
