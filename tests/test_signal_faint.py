"""Entries so small that what a norm divides by is its ε, against real float64 backward passes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradlint.capture import capture
from gradlint.signal import predict
from tests.test_signal_mechanisms import errors


class Faint(nn.Module):
    """Samples of three features, and so of unequal energy, in a stream below the ε of the norms that read it."""

    def __init__(self, width: int = 256, depth: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Linear(3, width), nn.Linear(width, 64)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1.0) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        nn.init.normal_(self.stem.weight, 0.0, 0.02)
        for layer in self.layers:
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.stem.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            x = layer(norm(x)).tanh()
        return self.head(x.mean(1))


def test_samples_below_the_epsilon_of_a_norm_are_divided_alike() -> None:
    found, _ = errors(Faint(), (16, 8, 3))
    for name in ("stem.weight", *(f"layers.{place}.weight" for place in range(3))):
        assert abs(found[name]) < 0.06, name


class Padded(nn.Module):
    """Rows of a table, one of them zero as that of a padding token is, less and more a small branch, normalised."""

    def __init__(self, padding: int | None = 0, place: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.token, self.head = nn.Embedding(64, 32, padding_idx=padding), nn.Linear(32, 16)
        self.place = nn.Parameter(torch.randn(8, 32) * place)
        self.first, self.norm, self.last = (nn.LayerNorm(32, eps=1e-12) for _ in range(3))
        self.mix = nn.Linear(8, 8, bias=False)
        nn.init.normal_(self.mix.weight, 0.0, 0.01)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.first(self.token(tokens) + self.place)
        x = self.norm(x + self.mix(x.transpose(1, 2)).transpose(1, 2))
        return self.head(self.last(x))


def spread(model: nn.Module) -> float:
    graph, _ = capture(model.train(), (torch.randint(0, 64, (16, 8)),))
    return predict(graph).profile.spread["mix.weight"]


def test_a_few_rows_that_are_nearly_zero_may_make_up_a_gradient() -> None:
    model, random = Padded(), torch.Generator().manual_seed(0)
    graph, _ = capture(model.train(), (torch.randint(0, 64, (16, 8), generator=random),))
    profile, square = predict(graph).profile, 0.0
    model = model.double()
    for _ in range(8):
        model.zero_grad(set_to_none=True)
        y = model(torch.randint(0, 64, (16, 8), generator=random))
        (y * torch.randn(y.shape, generator=random, dtype=y.dtype)).sum().backward()
        square += float((model.mix.weight.grad**2).mean()) / 8  # type: ignore[operator]
    off = profile.params["mix.weight"] - 0.5 * math.log10(square)
    assert off < -0.5
    assert abs(off) < 1.96 * profile.spread["mix.weight"]


def test_a_table_without_an_empty_row_and_rows_that_something_is_added_to_are_as_sure_as_ever() -> None:
    sure = spread(Padded(padding=None))
    assert spread(Padded()) > sure + 0.2
    assert spread(Padded(place=1.0)) < sure + 0.05
