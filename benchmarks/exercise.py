"""Labelled models with something to learn: fresh batches by number, of a task of the kind that the label tells.

What goes in is drawn as the label says. What is to be learnt is made for it, so that whatever the model is of its kind
can be learnt by a healthy one in a few hundred steps:

- classes: inputs are half noise, half the prototype of their class; with up to FEW features the class is the largest
  of some random linear functions of them, or whether a point lies in a circle. Pictures have smooth prototypes of
  different brightness; those of a digit's size keep an empty margin, as digits do, and so do those of kind `image0`.
- numbers: a vector that belongs to the class, or a random linear function of few features, squashed into the range that
  the label names; the distance of two pictures, of which one is a noisy copy of the other; the next of a series; the
  input itself, which an autoencoder gives back.
- maps of the input's height and width: what stands at each place, smoothed.

An uninformed prediction, whose loss is `Task.chance`, is the best constant: nothing of the input is used.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from labelled import GENERATORS, UNIT
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from gradlint.capture import run
from gradlint.capture.structure import flatten
from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.load import LoadedModel, load
from gradlint.load.model import Batch
from gradlint.probe.isolation import copy_model
from gradlint.source.target import parse

Label = dict[str, Any]

FEW = 16  # features, of which a linear function is learnt in a few hundred steps
CLASSES = 10
FLOPS = 2e8  # of a forward pass: larger ones get smaller batches, down to LEAST
LEAST = 4
MARGIN = 4  # pixels around a digit of 20 × 20 (LeCun et al. 1998)
COARSE = 4  # cells a side of a prototype's picture
REFERENCE = 16  # batches that the loss of a constant is estimated on

# How a label's inputs and loss are told on the command line.
VALUES = {
    **dict.fromkeys(UNIT, "~U(0,1)"),
    "image255": "~U(0,255)",
    "imagepm1": "~U(-1,1)",
    "uniform": "~U(-1,1)",
    "scale100": "~N(0,100)",
}
LOSSES = {
    **{name: name for name in ("ce", "nll", "bce", "mse")},
    "bce_onehot": "bce",
    "bce_clamped": "mse",  # as gradlint takes it for, which is not told of losses that are no plain ones
    **dict.fromkeys(("bcel", "bcel_seg"), "bce_logits"),
    **dict.fromkeys(("mse_vec", "recon_mse", "mse_onehot", "mse01", "mse_multi01", "mse_map", "next_step"), "mse"),
    "mse_pointdir": "mse",
    "mae01": "torch.nn:L1Loss",
    "gauss_nll": "exercise:gauss_nll",
}
CATEGORICAL = frozenset({"ce", "nll", "prob_nll_first"})

MOMENTS = {**dict.fromkeys(UNIT, (0.5, 1 / 12)), "uniform": (0.0, 1 / 3), "imagepm1": (0.0, 1 / 3)}  # of an entry

# Targets that are the input, or of it: the next number of a series, the direction of every point.
ITSELF: dict[str, Callable[[Tensor], Tensor]] = {
    "recon_mse": lambda x: x,
    "next_step": lambda x: torch.roll(x, -1, -1),
    "mse_pointdir": lambda x: F.normalize(x.abs(), dim=-1),
}

# Numbers around 0 of about unit size, in the range that a label's target has.
RANGES: dict[str | None, Callable[[Tensor], Tensor]] = {
    "pos": lambda x: F.softplus(2 * x),
    "abs": torch.abs,
    "tanh": torch.tanh,
    "unit": lambda x: torch.sigmoid(2 * x),
    "bits": lambda x: (x > 0).float(),
}


def gauss_nll(output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
    """The negative log-likelihood, but for a constant, of numbers under the mean and the deviation that come out."""
    mean, deviation = output
    return (0.5 * ((target - mean) / deviation).square() + deviation.log()).mean()


@dataclass
class Case:
    """A faulty model of a folder, loaded as a user could who tells its inputs and its loss."""

    name: str
    file: Path
    label: Label
    loaded: LoadedModel
    settings: Settings


def corpus(folder: Path, only: set[str]) -> Iterator[Case]:
    """The models of labels.json that fail to train, train badly or fail later, by name."""
    for name, label in sorted(json.loads((folder / "labels.json").read_text()).items()):
        if (only and name not in only) or label["severity"] in (None, "advice"):
            continue
        try:
            yield case(name, folder / f"{name}.py", label)
        except GradlintError as error:
            print(f"{name}: {error}", flush=True)


def case(name: str, file: Path, label: Label) -> Case:
    """The case with a batch that a pass of the model can afford."""
    settings = Settings(inputs=specs(label, label["B"]), loss=LOSSES.get(label["loss"]), device="cpu")
    loaded = load(parse(f"{file}:{label['entry']}"), settings)[0]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy_model(loaded.model, torch.device("cpu"), None)(*loaded.args, **loaded.kwargs)
    batch = int(label["B"] * FLOPS / max(1, counter.get_total_flops()))
    if batch >= label["B"]:
        return Case(name, file, label, loaded, settings)
    label = {**label, "B": min(label["B"], max(LEAST, batch))}
    settings = replace(settings, inputs=specs(label, label["B"]))
    return Case(name, file, label, load(parse(f"{file}:{label['entry']}"), settings)[0], settings)


def specs(label: Label, batch: int) -> tuple[str, ...]:
    """The inputs as `--input` takes them."""
    found = []
    for spec in label["inputs"]:
        kind, _, high = spec["gen"].partition(":")
        values = f"<{high}" if kind == "tokens" else VALUES.get(kind, "")
        found.append(f"{spec['dtype']}{json.dumps(_shape(spec, batch)).replace(' ', '')}{values}")
    return tuple(found)


def _shape(spec: Label, batch: int) -> list[int]:
    return ([batch] if spec.get("batch") else []) + list(spec["shape"])


def main_output(loaded: LoadedModel) -> Tensor:
    """The first tensor of numbers that comes out."""
    model = copy_model(loaded.model, torch.device("cpu"), None)
    output = run(model, loaded.args, loaded.kwargs, record=False).output
    return next(tensor for _, tensor in flatten(output) if tensor.is_floating_point()).detach()


@dataclass
class Task:
    """Batches of what a labelled model has to learn; `output` has the shape of what it puts out."""

    label: Label
    output: Tensor
    seed: int = 0
    prototypes: list[Tensor] = field(default_factory=list)  # one an input, of (classes, …)

    def __post_init__(self) -> None:
        self.random = torch.Generator().manual_seed(self.seed)
        name, width = self.label["loss"], self.output.shape[1] if self.output.ndim > 1 else 1
        self.categorical = name in CATEGORICAL
        self.classes = min(CLASSES, width) if self.categorical or name.endswith("onehot") else 4
        self.size = math.prod(self.output.shape[1:])
        first = self.label["inputs"][0]
        self.features = math.prod(first["shape"])
        few = self.features <= FEW and first["dtype"].startswith("float")
        self.linear = self._normal(self.features, max(self.size, self.classes)) if few else None
        vectors = self._normal(self.classes, *self.output.shape[1:])
        self.vectors = (vectors - vectors.mean(0)) / vectors.std(0)  # so that the classes differ in every number
        self.prototypes = [self._prototype(spec) for spec in self.label["inputs"]]

    def batch(self, step: int) -> Batch:
        """The inputs of a step and what the loss compares the output with: the same for every version of a model."""
        self.random.manual_seed(1_000_003 * (self.seed + 1) + step)
        noise = [self._draw(spec, self.label["B"]) for spec in self.label["inputs"]]
        if len(noise) == 2 and noise[0].shape == noise[1].shape:
            return self._pairs(noise)
        if self.linear is not None:
            return Batch(tuple(noise), {}, self._of_features(noise[0]))
        drawn = torch.randint(0, self.classes, (self.label["B"],), generator=self.random)
        itself = ITSELF.get(self.label["loss"])
        if itself and _picture(self.label["inputs"][0]) is None:
            return Batch(tuple(noise), {}, itself(noise[0]))
        inputs = [
            self._mixed(*parts, drawn) for parts in zip(self.label["inputs"], noise, self.prototypes, strict=True)
        ]
        return Batch(tuple(inputs), {}, itself(inputs[0]) if itself else self._of_class(inputs[0], drawn))

    @property
    def chance(self) -> float:
        """The loss of the best constant."""
        target = torch.cat([self.batch(-1 - i).target for i in range(REFERENCE)])
        if self.categorical:
            shares = target.flatten().bincount() / target.numel()
            return float(torch.special.entr(shares).sum())
        target = target.double()
        name = self.label["loss"]
        if LOSSES.get(name) in ("bce", "bce_logits"):
            mean = target.mean(0).clamp(1e-6, 1 - 1e-6)
            return float(F.binary_cross_entropy(mean.expand_as(target), target))
        if name == "gauss_nll":
            return float((0.5 + target.std(0).log()).mean())
        if name.startswith("mae"):
            return float((target - target.median(0).values).abs().mean())
        return float(target.var(0, correction=0).mean())

    def _draw(self, spec: Label, batch: int) -> Tensor:
        kind, _, detail = spec["gen"].partition(":")
        other = (lambda shape, _: torch.rand(shape)) if kind in UNIT else (lambda shape, _: torch.randn(shape))
        with torch.random.fork_rng([]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=self.random)))
            drawn = GENERATORS.get(kind, other)(tuple(_shape(spec, batch)), detail)
        return drawn.to(getattr(torch, spec["dtype"]))

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def _prototype(self, spec: Label) -> Tensor:
        """What the inputs of each class have in common."""
        picture = _picture(spec)
        if picture is None:
            return self._draw({**spec, "batch": True}, self.classes)
        cells = torch.rand(self.classes, picture[0], COARSE, COARSE, generator=self.random)
        light = torch.linspace(0.4, 1.0, self.classes)[:, None, None, None]
        smooth = F.interpolate(cells * light, picture[1:], mode="bilinear")
        return (smooth * _window(spec, picture)).reshape(self.classes, *spec["shape"])

    def _mixed(self, spec: Label, noise: Tensor, prototypes: Tensor, drawn: Tensor) -> Tensor:
        """Noise and what belongs to the class: in equal parts, of tokens one or the other, of pictures mostly that."""
        own, picture = prototypes[drawn], _picture(spec)
        if not noise.is_floating_point():
            return torch.where(torch.rand(noise.shape, generator=self.random) < 0.5, noise, own)
        if picture is not None:
            window = _window(spec, picture).expand(picture).reshape(spec["shape"])
            return 0.75 * own + 0.25 * noise * window
        return 0.5 * (noise + own) if spec["gen"] in VALUES else (noise + own) / math.sqrt(2)

    def _ranged(self, numbers: Tensor) -> Tensor:
        name = self.label["loss"]
        if name.startswith("bce") or name.endswith("01"):
            return RANGES["bits"](numbers)
        return RANGES.get(self.label["target"], lambda x: x)(numbers)

    def _of_features(self, x: Tensor) -> Tensor:
        """A function of a few features."""
        name, kind, shape = self.label["loss"], self.label["target"], (len(x), *self.output.shape[1:])
        if kind == "circle":
            return (x.square().sum(1) < 2 / math.pi).float().reshape(shape)  # half of the square [-1, 1]²
        if kind == "abs":
            return x.abs().sum(1).reshape(shape)
        if kind == "image2d":
            return (0.5 * torch.sin(3 * x[:, :1] + 1) + 0.5 * torch.cos(3 * x[:, 1:2])).reshape(shape)
        assert self.linear is not None
        centre, variance = MOMENTS.get(self.label["inputs"][0]["gen"], (0.0, 1.0))
        scores = (x.flatten(1) - centre) @ self.linear / math.sqrt(self.features * variance)
        if self.categorical:
            return scores[:, : self.classes].argmax(1)
        if name.endswith("onehot"):
            return F.one_hot(scores[:, : self.size].argmax(1), self.size).float()
        numbers = scores[:, : self.size].reshape(shape)
        if name == "gauss_nll":
            return numbers + 0.3 * self._normal(*shape)
        return self._ranged(numbers)

    def _of_class(self, x: Tensor, drawn: Tensor) -> Tensor:
        """What belongs to the class or, for a map of the input's height and width, to the place."""
        shape = self.output.shape
        if self.categorical:
            return drawn.reshape(-1, *[1] * (len(shape) - 2)).expand(-1, *shape[2:])
        if self.label["loss"].endswith("onehot"):
            return F.one_hot(drawn, shape[1]).float()
        if x.ndim == len(shape) == 4 and x.shape[2:] == shape[2:]:
            local = F.avg_pool2d(x.mean(1, keepdim=True), 3, 1, 1)
            return self._ranged(((local - local.mean()) / local.std()).expand(shape))
        return self._ranged(self.vectors)[drawn]

    def _pairs(self, noise: list[Tensor]) -> Batch:
        """Pictures and copies of them, each spoilt by another one as much as the target says."""
        window = _window(self.label["inputs"][0], tuple(noise[0].shape[1:]))
        left, other = (picture * window for picture in noise)
        spoilt = torch.rand(len(left), generator=self.random)
        part = spoilt.reshape(-1, *[1] * (left.ndim - 1))
        return Batch((left, (1 - part) * left + part * other), {}, spoilt.reshape(len(left), *self.output.shape[1:]))


def _picture(spec: Label) -> tuple[int, int, int] | None:
    """Channels, height and width of a picture, also of one that is flat or a series of pixels."""
    if not spec["gen"].startswith("image"):
        return None
    shape = tuple(spec["shape"])
    if len(shape) == 3:
        return shape
    pixels = math.prod(shape)
    side = math.isqrt(pixels)
    return (1, side, side) if side * side == pixels else None


def _window(spec: Label, picture: tuple[int, ...]) -> Tensor:
    """1 where a picture may show something, 0 in its margin."""
    height, width = picture[1:]
    window = torch.ones(height, width)
    if height == width == 28 or spec["gen"] == "image0":
        window = torch.zeros(height, width)
        window[MARGIN:-MARGIN, MARGIN:-MARGIN] = 1
    return window
