"""A stated memory budget: the batch in parts, and saved tensors out of the way, without other numbers."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradlint.probe import budget, measure
from gradlint.probe.budget import saved_bytes, spilled
from gradlint.probe.measurement import Fallback
from gradlint.probe.run import Plan, once

X = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))


def loaded(model, x=X):
    return SimpleNamespace(
        model=model, args=(x,), kwargs={}, loss=None, loss_hint=None, rebuild=None, draw=lambda _: ((x,), {})
    )


def run(model):
    return lambda args, kwargs: model(*args, **kwargs)


def test_saved_bytes_are_those_of_activations_once_each():
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))
    assert saved_bytes(model, ((X,), {}, None), run(model)) == 4 * (16 * 64 + 16 * 64)  # the input, and tanh's output


@pytest.mark.parametrize(
    ("room", "parts", "spill"), [(10.0, 1, False), (0.5, 2, False), (0.25, 4, False), (0.01, 8, True), (-5.0, 8, True)]
)
def test_the_fewest_parts_that_fit_are_taken(room, parts, spill):
    model = net()
    whole = saved_bytes(model, ((X,), {}, None), run(model))
    other = budget.COPIES * sum(4 * param.numel() for param in model.parameters()) + budget.RESERVE
    held = 123_456
    most = int(held + other + room * whole * budget.RECORDED / budget.SHARE) + 8
    found = budget.fit(model, ((X,), {}, None), run(model), most, held)
    assert (found.parts, found.spill) == (parts, spill)
    assert bool(found.note) == (parts > 1)


class Whole(nn.Module):
    """Holds to one batch size, as an exported model does."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 4)

    def forward(self, x):
        return torch.tanh(self.layer(x.reshape(16, 64)))


def test_a_batch_that_cannot_be_parted_is_taken_whole():
    model = Whole()
    assert budget.fit(model, ((X,), {}, None), run(model), 1 << 34, 0) == budget.Fit()
    tight = budget.fit(model, ((X,), {}, None), run(model), budget.RESERVE, 0)
    assert (tight.parts, tight.spill) == (1, True)


@pytest.mark.parametrize("spill", [False, True])
@pytest.mark.parametrize("loss", ["unit", "mse"])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(spill, loss):
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    target = torch.randn(16, 1)
    held = loaded(model)
    held.target = target if loss == "mse" else None
    graph, whole = once(held, Plan(torch.device("cpu"), loss=loss))
    small, parted = once(held, Plan(torch.device("cpu"), loss=loss, parts=4, spill=spill))
    assert small.values[small.inputs[0]].shape == (4, 64)
    assert graph.values[graph.inputs[0]].shape == (16, 64)
    if loss == "mse":
        for path, param in whole.params.items():
            assert parted.params[path].grad == pytest.approx(param.grad, abs=1e-4)
    assert {param.status for param in parted.params.values()} == {"ok"}


def test_what_autograd_saves_comes_back_from_disk_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Flatten(), nn.LazyLinear(3)
    )
    x = torch.randn(8, 1, 32, 32)
    model(x)
    gradients = []
    for active in (False, True):
        model.zero_grad()
        with spilled(active=active):
            F.cross_entropy(model(x), torch.zeros(8, dtype=torch.long)).backward()
        gradients.append([param.grad.clone() for param in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_measurement_says_how_it_stayed_within_its_budget():
    graph, measured = measure(loaded(net()), settings=Fallback(memory=1))
    _, replayed = measure(loaded(net()), settings=Fallback(memory=1), graph=graph)
    assert replayed.params == measured.params
    assert any("taken in 8 parts" in note and "on disk" in note for note in measured.notes)
    _, free = measure(loaded(net()), settings=Fallback(memory=1 << 40))
    assert not any("parts" in note for note in free.notes)
