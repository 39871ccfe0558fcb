"""What a prediction depends on: asked only where a graph gives reason to, answered by one backward pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradlint import analysis
from gradlint.config import Settings
from gradlint.graph.ir import Graph
from gradlint.load.model import LoadedModel
from gradlint.probe.question import questions
from gradlint.profile import Measurement


def observed(model: nn.Module, *args: Tensor) -> tuple[Graph, Measurement]:
    loaded = LoadedModel(model, args, {}, (), "model", None, None, lambda seed: (args, {}), None)
    graph, measurement, reason = analysis.observe(loaded, Settings(fix=False, seeds=1, device="cpu"))
    assert measurement is not None, reason
    return graph, measurement


class Attend(nn.Module):
    """One causal attention; `upper` hides the past instead of the future."""

    def __init__(self, mask: Tensor, drop: float = 0.0) -> None:
        super().__init__()
        self.embed, self.qkv, self.drop = nn.Embedding(20, 8), nn.Linear(8, 24), nn.Dropout(drop)
        self.register_buffer("mask", mask)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = (q @ k.transpose(1, 2)).masked_fill(self.mask == 0, -1e9)
        return self.drop(x + scores.softmax(-1) @ v)


IDS = torch.arange(24).view(3, 8) % 20
LOWER = torch.ones(8, 8).tril()


def test_a_model_without_reason_asks_nothing() -> None:
    graph, measurement = observed(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(5, 4))
    assert questions(graph) == ()
    assert measurement.dependence == {}


def test_a_causal_prediction_has_no_gradient_at_later_positions() -> None:
    graph, measurement = observed(Attend(LOWER), IDS)
    (suspect,) = questions(graph)
    rows = measurement.dependence[suspect.question]
    assert all(row == -math.inf for row in rows[5:])
    assert all(math.isfinite(row) for row in rows[:5])


def test_dropout_is_off_while_dependence_is_measured() -> None:
    torch.manual_seed(0)
    graph, measurement = observed(Attend(LOWER, drop=0.9), IDS)
    (suspect,) = questions(graph)
    assert math.isfinite(measurement.dependence[suspect.question][4])


@pytest.mark.parametrize("mask", [torch.ones(8, 8), torch.eye(8), (torch.arange(64).view(8, 8) % 3 > 0).float()])
def test_a_mask_that_is_no_triangle_shows_no_intent(mask: Tensor) -> None:
    graph, measurement = observed(Attend(mask), IDS)
    assert len(questions(graph)) == 1
    assert measurement.dependence == {}


def test_a_model_that_cannot_run_in_evaluation_mode_leaves_a_note() -> None:
    class Trains(Attend):
        def forward(self, ids: Tensor) -> Tensor:
            if not self.training:
                raise RuntimeError("only for training")
            return super().forward(ids)

    _, measurement = observed(Trains(LOWER), IDS)
    assert measurement.dependence == {}
    assert any("only for training" in note for note in measurement.notes)


def test_the_model_is_left_as_it_was() -> None:
    model = Attend(LOWER).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    observed(model, IDS)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


class Padded(Attend):
    """A padding token's own row is hidden, so that its softmax reads all positions alike."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        mask = (ids != 0).unsqueeze(2) & (self.mask != 0)
        return x + (q @ k.transpose(1, 2)).masked_fill(mask == 0, -1e4).softmax(-1) @ v


def test_what_one_sample_s_padding_reads_is_no_leak() -> None:
    ids = torch.arange(1, 41).view(5, 8) % 19 + 1
    ids[2, 4] = 0  # the position that is asked about
    graph, measurement = observed(Padded(LOWER), ids)
    (suspect,) = questions(graph)
    rows = measurement.dependence[suspect.question]
    assert all(row == -math.inf for row in rows[5:])
    assert all(math.isfinite(row) for row in rows[:5])
