"""A labelled model file as every tool of the comparison gets it: the model, one batch, its target and its loss.

Only torch is imported here, so that this runs in the interpreter of a rival as well.
"""

from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Label = dict[str, Any]

# What a label's input generator draws; the arguments are the shape and what follows the colon.
GENERATORS: dict[str, Callable[[tuple[int, ...], str], Tensor]] = {
    "randn": lambda shape, _: torch.randn(shape),
    "scale100": lambda shape, _: 100 * torch.randn(shape),
    "uniform": lambda shape, _: 2 * torch.rand(shape) - 1,
    "imagepm1": lambda shape, _: 2 * torch.rand(shape) - 1,
    "image255": lambda shape, _: 255 * torch.rand(shape),
    "tokens": lambda shape, high: torch.randint(0, int(high), shape),
    "sine": lambda shape, _: torch.sin(torch.linspace(0, 6 * math.pi, shape[-1]) + 6 * torch.rand(shape[0], 1)),
    "adj": lambda shape, _: ((torch.rand(shape) < 0.05) | torch.eye(shape[0], dtype=torch.bool)).float(),
}
UNIT = {"image", "image0", "imageseq", "rand"}


@dataclass(frozen=True)
class Case:
    """One batch of one labelled model. `loss(output, target)` is a scalar; `classes` is None where none are predicted.

    `batched` says that the first axis of every input is the batch.
    """

    model: nn.Module
    inputs: tuple[Tensor, ...]
    target: Tensor
    loss: Callable[[Any, Tensor], Tensor]
    classes: int | None
    batched: bool


def build(file: Path, label: Label, seed: int = 0) -> Case:
    """The case of a file and its label, from one seed.

    Raises:
        Exception: whatever the file raises while it is imported or built.
    """
    torch.manual_seed(seed)
    model = _entry(file, label["entry"]).train()
    inputs = tuple(_draw(spec, label["B"]) for spec in label["inputs"])
    with torch.no_grad():
        state = {name: value.clone() for name, value in model.state_dict().items()}
        output = main_output(model(*inputs))
        model.load_state_dict(state)
    loss, classes = _loss(label, output)
    batched = all(spec.get("batch") for spec in label["inputs"])
    return Case(model, inputs, _target(label["loss"], output, classes), loss, classes, batched)


def main_output(output: Any) -> Tensor:
    """The first floating-point tensor of whatever a model returns: what its loss is taken of."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, dict) else output
    return next(main_output(value) for value in values if isinstance(value, Tensor | tuple | list | dict))


def _entry(file: Path, entry: str) -> nn.Module:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    found = eval(entry, vars(module))
    return found() if isinstance(found, type) else found


def _draw(spec: Label, batch: int) -> Tensor:
    shape = ((batch,) if spec.get("batch") else ()) + tuple(spec["shape"])
    kind, _, detail = spec["gen"].partition(":")
    draw = GENERATORS.get(kind, lambda shape, _: torch.rand(shape) if kind in UNIT else torch.randn(shape))
    return draw(shape, detail).to(getattr(torch, spec["dtype"]))


def _rows(output: Tensor, classes: int | None) -> Tensor:
    """Class scores with the classes last: (…, C)."""
    return output.movedim(1, -1) if output.ndim > 2 and output.shape[1] == classes else output


def _loss(label: Label, output: Tensor) -> tuple[Callable[[Any, Tensor], Tensor], int | None]:
    """The label's loss by its name; one without a name here is compared with random vectors by mean squared error."""
    name, classes = label["loss"], label["classes"]
    width = _rows(output, classes).shape[-1] if output.ndim > 1 else 1
    if name in ("ce", "lm_ce", "focal"):
        return lambda out, to: F.cross_entropy(_flat(out, classes), to.reshape(-1)), width
    if name in ("nll", "nll_nodes", "lm_nll_tn"):
        return lambda out, to: F.nll_loss(_flat(out, classes), to.reshape(-1)), width
    if name == "prob_nll_first":
        return lambda out, to: F.nll_loss(_flat(out, classes).clamp_min(1e-30).log(), to.reshape(-1)), width
    if name in ("bce", "bce_clamped", "bce_onehot"):
        return lambda out, to: F.binary_cross_entropy(main_output(out).clamp(0, 1), to), None
    if name in ("bcel", "bcel_seg"):
        return lambda out, to: F.binary_cross_entropy_with_logits(main_output(out), to), None
    return lambda out, to: F.mse_loss(main_output(out), to), None


def _flat(output: Any, classes: int | None) -> Tensor:
    return _rows(main_output(output), classes).flatten(0, -2)


def _target(name: str, output: Tensor, classes: int | None) -> Tensor:
    if classes is not None:
        return torch.randint(0, classes, _rows(output, classes).shape[:-1])
    if name.startswith("bce"):
        return (torch.rand(output.shape) < 0.5).float()
    if name.endswith("01"):
        return torch.rand(output.shape)
    return torch.randn(output.shape)
