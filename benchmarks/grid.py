"""The small nets of the calibration: MLPs, convolutions and transformers of many depths, initialisations and norms.

`study` is the grid of the trainability study (research/signal.md §4, its 112 nets without recurrence), which spreads
over all that one meets. `limits` fills it up where nets begin to fail, which places the limits and is the harder half
to tell apart. Each takes 64 numbers, seen as an 8×8 image or as eight tokens where that is asked for, and answers with
ten logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

WIDTH, CLASSES = 64, 10
ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU, "selu": nn.SELU}
# gain of normal weights over √(1 / fan_in); a plain number is their standard deviation
GAINS = {"he": math.sqrt(2), "lecun": 1.0, "tanh": 5 / 3, "x2": 2.0, "x3": 3.0}
# gain that `nn.init` recommends for the activation
RECOMMENDED = {"relu": math.sqrt(2), "tanh": 5 / 3}
SCHEMES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "xavier": lambda weight, gain: nn.init.xavier_normal_(weight, gain),
    "orthogonal": lambda weight, gain: nn.init.orthogonal_(weight, gain),
}


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Positions(nn.Module):
    """Adds a learnt position to every token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.1 * torch.randn(1, tokens, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.positions


class Mean(nn.Module):
    """The mean over the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


def initialise(model: nn.Module, init: str, activation: str) -> nn.Module:
    """The model with its linear and convolutional weights drawn as told and their biases zero."""
    for module in model.modules():
        if not isinstance(module, (nn.Linear, nn.Conv2d)) or init == "default":
            continue
        if init in SCHEMES:
            SCHEMES[init](module.weight, RECOMMENDED.get(activation, 1.0))
        else:
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0.0, GAINS[init] / math.sqrt(fan_in) if init in GAINS else float(init))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return model


def mlp(depth: int, activation: str, *, init: str = "default", norm: str = "", skip: bool = False) -> nn.Module:
    def layer(inside: int) -> list[nn.Module]:
        norms = {"bn": nn.BatchNorm1d, "ln": nn.LayerNorm}
        return [nn.Linear(inside, WIDTH), *([norms[norm](WIDTH)] if norm else []), ACTIVATIONS[activation]()]

    hidden = [nn.Sequential(*layer(WIDTH)) for _ in range(depth - 2)]
    blocks = [Residual(block) for block in hidden] if skip else hidden
    return initialise(nn.Sequential(*layer(64), *blocks, nn.Linear(WIDTH, CLASSES)), init, activation)


def cnn(depth: int, activation: str, *, init: str = "default", norm: str = "", skip: bool = False) -> nn.Module:
    def layer(inside: int) -> list[nn.Module]:
        norms = [nn.BatchNorm2d(16)] if norm else []
        return [nn.Conv2d(inside, 16, 3, padding=1), *norms, ACTIVATIONS[activation]()]

    hidden = [nn.Sequential(*layer(16)) for _ in range(depth - 2)]
    blocks = [Residual(block) for block in hidden] if skip else hidden
    head = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, CLASSES)]
    return initialise(nn.Sequential(nn.Unflatten(1, (1, 8, 8)), *layer(1), *blocks, *head), init, activation)


def transformer(depth: int, activation: str, *, norm: str) -> nn.Module:
    """Torch's own layers at their own init, all tokens joined before the head."""
    tail = [nn.LayerNorm(32)] if norm == "pre" else []
    body = [*_encoder(depth, activation, norm), *tail]
    return nn.Sequential(nn.Unflatten(1, (8, 8)), nn.Linear(8, 32), *body, nn.Flatten(), nn.Linear(256, CLASSES))


def pooled(depth: int, activation: str, *, norm: str, scale: float = 1.0) -> nn.Module:
    """With positions, Xavier weights times `scale` and the mean over the tokens before the head."""
    layers = _encoder(depth, activation, norm)
    for weight in (p for layer in layers for p in layer.parameters() if p.dim() > 1):
        nn.init.xavier_uniform_(weight, scale)
    tail = [nn.LayerNorm(32)] if norm == "pre" else []
    head = [*tail, Mean(), nn.Linear(32, CLASSES)]
    return nn.Sequential(nn.Unflatten(1, (8, 8)), nn.Linear(8, 32), Positions(8, 32), *layers, *head)


def _encoder(depth: int, activation: str, norm: str) -> list[nn.Module]:
    return [
        nn.TransformerEncoderLayer(32, 4, 64, 0.0, activation, batch_first=True, norm_first=norm == "pre")
        for _ in range(depth)
    ]


@dataclass(frozen=True)
class Case:
    make: Callable[..., nn.Module]
    depth: int
    activation: str
    options: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        parts = [self.make.__name__, str(self.depth), self.activation]
        return " ".join(parts + [key if value is True else str(value) for key, value in self.options.items()])

    def build(self, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.make(self.depth, self.activation, **self.options)


def cases() -> dict[str, tuple[Case, frozenset[str]]]:
    """Every net once, by name, with the grids that it belongs to."""
    found: dict[str, tuple[Case, frozenset[str]]] = {}
    for grid, each in (("limits", limits()), ("study", study())):
        for case in each:
            _, before = found.get(case.name, (case, frozenset()))
            found[case.name] = case, before | {grid}
    return found


def limits() -> Iterator[Case]:
    for depth in (2, 3, 4, 5, 6, 8, 16):
        yield Case(mlp, depth, "sigmoid")
    for activation, depths in {
        "tanh": (3, 8, 12, 16, 24),
        "relu": (4, 6, 8, 10, 12, 16, 24),
        "gelu": (4, 8, 12, 16),
    }.items():
        yield from (Case(mlp, depth, activation) for depth in depths)
    for depth in (10, 24):
        yield Case(mlp, depth, "relu", {"init": "he"})
        yield Case(mlp, depth, "tanh", {"init": "lecun"})
        yield Case(mlp, depth, "sigmoid", {"init": "lecun"})
        for init in ("0.01", "0.1", "1.0", "x2"):
            yield Case(mlp, depth, "relu", {"init": init})
        yield Case(mlp, depth, "tanh", {"init": "1.0"})
        yield Case(mlp, depth, "tanh", {"init": "x3"})
        for activation in ("sigmoid", "relu"):
            yield Case(mlp, depth, activation, {"norm": "bn"})
            yield Case(mlp, depth, activation, {"norm": "ln"})
            yield Case(mlp, depth, activation, {"skip": True})
            yield Case(mlp, depth, activation, {"norm": "bn", "skip": True})
    for init, depths in {"0.01": (3, 4, 5), "0.03": (5, 7), "1.0": (3, 5)}.items():
        yield from (Case(mlp, depth, "relu", {"init": init}) for depth in depths)
    for depth in (4, 6, 9, 14):
        yield Case(cnn, depth, "relu")
    for depth in (4, 9):
        yield Case(cnn, depth, "sigmoid")
        yield Case(cnn, depth, "relu", {"norm": "bn", "skip": True})
        yield Case(cnn, depth, "relu", {"init": "he"})
        yield Case(transformer, depth, "relu", {"norm": "pre"})
        yield Case(transformer, depth, "relu", {"norm": "post"})


def study() -> Iterator[Case]:
    """The nets of the study, line by line as it made them."""
    for depth in (3, 10, 25, 50):
        yield from (Case(mlp, depth, activation) for activation in ("sigmoid", "tanh", "relu", "gelu"))
    matched = (("relu", "he"), ("tanh", "xavier"), ("sigmoid", "xavier"), ("relu", "orthogonal"), ("selu", "xavier"))
    for depth in (10, 25, 50):
        yield from (Case(mlp, depth, activation, {"init": init}) for activation, init in matched)
    wrong = (("relu", "1.0"), ("relu", "0.01"), ("tanh", "1.0"), ("relu", "0.1"), ("tanh", "x3"), ("relu", "x2"))
    for depth in (5, 10, 25):
        yield from (Case(mlp, depth, activation, {"init": init}) for activation, init in (*wrong, ("sigmoid", "1.0")))
    for depth in (10, 25, 50):
        for activation in ("sigmoid", "relu", "tanh"):
            yield Case(mlp, depth, activation, {"norm": "bn"})
            yield Case(mlp, depth, activation, {"norm": "ln"})
            yield Case(mlp, depth, activation, {"skip": True})
    for depth in (25, 50):
        yield Case(mlp, depth, "relu", {"norm": "bn", "skip": True})
        yield Case(mlp, depth, "sigmoid", {"norm": "ln", "skip": True})
        yield Case(mlp, depth, "relu", {"init": "he", "skip": True})
    for depth in (5, 12, 24):
        for activation, norm in (("relu", ""), ("relu", "bn"), ("tanh", ""), ("sigmoid", ""), ("sigmoid", "bn")):
            yield Case(cnn, depth, activation, {"norm": norm} if norm else {})
    for depth in (12, 24):
        yield Case(cnn, depth, "relu", {"init": "he"})
        yield Case(cnn, depth, "relu", {"skip": True})
    for depth in (2, 8, 16):
        yield from (Case(pooled, depth, "relu", {"norm": norm}) for norm in ("pre", "post"))
    yield from (Case(pooled, 8, "relu", {"norm": norm, "scale": 3.0}) for norm in ("post", "pre"))
