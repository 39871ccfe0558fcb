"""Entries so small that what a norm divides by is its ε, against real float64 backward passes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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
