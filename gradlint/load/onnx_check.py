"""Whether a converted file computes what onnxruntime does: before that is known, no gradient is believed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradlint.load.program_module import ProgramModule

TOLERANCE = 1e-3  # largest difference, relative to the largest output: float32 over hundreds of layers reaches 1e-4
DRAWN = ("randn", "rand", "randn_like", "rand_like", "bernoulli")
HALF = 3e-2  # the same where numbers are stored in 16 bits


def disagreement(module: ProgramModule, args: tuple[object, ...], path: Path) -> str:
    """Why the module's outputs are not those of onnxruntime on the same inputs; "" when they agree.

    The module runs in eval mode on the CPU; it is left as it was.
    """
    program = module.program
    if program.unknown:
        return f"it cannot be run: {', '.join(program.unknown[:3])} {_is_are(len(program.unknown))} not supported"
    if any(step.function.rpartition(".")[2] in DRAWN for step in program.steps):
        return "its forward draws random numbers, so its outputs cannot be compared with onnxruntime's"
    try:
        import onnxruntime
    except ImportError:
        return "onnxruntime is not installed, so the conversion cannot be checked: pip install 'torch-gradlint[onnx]'"
    try:
        own = _run(module, args)
    except Exception as error:  # noqa: BLE001  torch raises many classes; the reason is reported
        return f"the converted graph does not run: {type(error).__name__}: {_first(error)}"
    try:
        theirs = _reference(onnxruntime, module, args, path)
    except Exception as error:  # noqa: BLE001  onnxruntime's errors have no common class
        return f"onnxruntime does not run the file, so the conversion cannot be checked: {_first(error)}"
    return _compared(own, theirs, half=any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters()))


def _run(module: ProgramModule, args: tuple[object, ...]) -> list[Tensor]:
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            output = module(*args)
    finally:
        module.train(training)
    return [output] if isinstance(output, Tensor) else list(output)


def _reference(onnxruntime: Any, module: ProgramModule, args: tuple[object, ...], path: Path) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feeds = {s.name: a.numpy() for s, a in zip(module.program.inputs, args, strict=True) if isinstance(a, Tensor)}
    accepted = {value.name for value in session.get_inputs()}
    found: list[Any] = session.run(None, {name: array for name, array in feeds.items() if name in accepted})
    return found


def _compared(own: list[Tensor], theirs: list[Any], *, half: bool) -> str:
    pairs = [(a, np.asarray(b)) for a, b in zip(own, theirs, strict=False) if isinstance(b, np.ndarray)]
    for number, (tensor, expected) in enumerate(pairs):
        found = tensor.detach().to(torch.float64).numpy() if tensor.dtype != torch.bool else tensor.numpy()
        if found.shape != expected.shape:
            return f"output {number} has the shape {list(found.shape)}, onnxruntime's {list(expected.shape)}"
        difference = largest_difference(found, expected.astype(np.float64))
        if difference > (HALF if half or expected.dtype == np.float16 else TOLERANCE):
            return f"output {number} differs from onnxruntime's by {difference:.1e} of its largest entry"
    return ""


def largest_difference(found: Any, expected: Any) -> float:
    """The largest difference over the largest expected magnitude; entries that are not finite must be so in both."""
    if not expected.size:
        return 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(finite, np.isfinite(found)):
        return float("inf")
    if not finite.any():
        return 0.0
    largest = float(np.abs(expected[finite]).max())
    worst = float(np.abs(found[finite] - expected[finite]).max())
    return worst / largest if largest > 0 else worst


def _is_are(count: int) -> str:
    return "is" if count == 1 else "are"


def _first(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
