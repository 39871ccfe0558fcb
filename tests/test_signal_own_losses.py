"""Losses inside a model, against targets that its data says, held to real float64 backward passes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.signal import predict


class Regressed(nn.Module):
    """Two layers whose loss is a distance to what the data says, at those samples that the data picks."""

    def __init__(self, loss) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.loss = nn.Linear(16, 64), nn.Linear(64, 12), loss

    def forward(self, x: Tensor) -> Tensor:
        target = (5.0 * torch.sin(40.0 * x[:, :12])).round()
        y = self.last(torch.relu(self.first(x)))
        chosen = torch.where(x[:, 0] > 0.3)[0]
        return self.loss(y[chosen], target[chosen])


LOSSES = {
    "squared": lambda y, t: F.mse_loss(y, t, reduction="sum"),
    "absolute": lambda y, t: F.l1_loss(y, t, reduction="sum") / len(y),
    "smooth": lambda y, t: F.smooth_l1_loss(y, t, reduction="sum", beta=0.5) / len(y),
    "huber, one by one": lambda y, t: F.huber_loss(y, t, reduction="none", delta=4.0).mean(),
}


def measured(model: nn.Module, random: torch.Generator, passes: int = 8) -> dict[str, float]:
    """log10 RMS of every parameter's gradient of the model's own loss, over fresh inputs."""
    model, squares = model.double(), dict[str, float]()
    for _ in range(passes):
        model.zero_grad(set_to_none=True)
        model(torch.randn(256, 16, generator=random).double()).backward()
        for path, param in model.named_parameters():
            assert param.grad is not None
            squares[path] = squares.get(path, 0.0) + float((param.grad**2).mean()) / passes
    return {path: 0.5 * math.log10(square) if square else -math.inf for path, square in squares.items()}


@pytest.mark.parametrize("name", LOSSES)
def test_a_distance_to_what_the_data_says(name: str) -> None:
    model, random = Regressed(LOSSES[name]), torch.Generator().manual_seed(0)
    graph, _ = capture(model, (torch.randn(256, 16, generator=random),))
    signal = predict(graph, "own")
    for path, size in measured(model, random).items():
        assert signal.profile.params[path] == pytest.approx(size, abs=0.15), path


class Classified(nn.Module):
    """Two layers that tell classes of which the data knows next to one only, and a third one that no sample reaches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.rare = nn.Linear(16, 64), nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        y, strange = self.last(h), torch.where(x[:, 0] > 100.0)[0]
        y[strange] = self.rare(h[strange])
        return F.cross_entropy(y, (x[:, 0] > 1.8).long())


def test_labels_that_agree_and_a_layer_that_the_data_never_reaches() -> None:
    model, random = Classified(), torch.Generator().manual_seed(0)
    graph, _ = capture(model, (torch.randn(256, 16, generator=random),))
    signal, sizes = predict(graph, "own"), measured(model, random)
    for path in ("last.weight", "last.bias", "first.bias"):
        assert signal.profile.params[path] == pytest.approx(sizes[path], abs=0.15), path
    assert signal.profile.params["rare.weight"] == sizes["rare.weight"] == -math.inf
