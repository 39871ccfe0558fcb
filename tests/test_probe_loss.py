"""The loss fits the output: named, guessed from the last op and the shape, and reaching every parameter that it can."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.error import ProbeError, UsageError
from gradlint.probe import measure
from gradlint.probe.loss import LOSSES, choose, compute, targets

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(12).reshape(2, 6)


class Lambda(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args):
        return self.function(self, *args)


def chosen(model, x):
    graph, recording = capture(model, (x,))
    return choose(recording.outputs, graph)


def value(model, x, name=None):
    graph, recording = capture(model, (x,))
    return compute(recording.output, recording.outputs, graph, torch.Generator().manual_seed(0), name)


def statuses(model, *args, hint=None):
    loaded = SimpleNamespace(model=model, args=args, kwargs={}, loss=None, loss_hint=hint, rebuild=None, draw=None)
    _, measured = measure(loaded)
    return measured.loss, {param.status for param in measured.params.values()}


HEADS = {
    "logits": (lambda: nn.Linear(16, 10), X, "ce"),
    "one number": (lambda: nn.Linear(16, 1), X, "mse"),
    "no class axis": (lambda: nn.Sequential(nn.Linear(16, 1), nn.Flatten(0)), X, "mse"),
    "log-probabilities": (lambda: nn.Sequential(nn.Linear(16, 10), nn.LogSoftmax(1)), X, "nll"),
    "probabilities": (lambda: nn.Sequential(nn.Linear(16, 10), nn.Softmax(1)), X, "nll_prob"),
    "sigmoid": (lambda: nn.Sequential(nn.Linear(16, 1), nn.Sigmoid()), X, "bce"),
    "sigmoid, then a view": (lambda: nn.Sequential(nn.Linear(16, 1), nn.Sigmoid(), nn.Flatten(0)), X, "bce"),
    "sigmoids of two scales": (
        lambda: Lambda(
            lambda m, x: torch.cat([m.a(x).sigmoid(), m.b(x).sigmoid()], 1), a=nn.Linear(16, 4), b=nn.Linear(16, 2)
        ),
        X,
        "bce",
    ),
    "a sigmoid beside logits": (
        lambda: Lambda(lambda m, x: torch.cat([m.a(x).sigmoid(), m.b(x)], 1), a=nn.Linear(16, 4), b=nn.Linear(16, 2)),
        X,
        "ce",
    ),
    "tanh": (lambda: nn.Sequential(nn.Linear(16, 4), nn.Tanh()), X, "mse"),
    "an image": (lambda: nn.Conv2d(3, 3, 3, padding=1), IMAGES, "mse"),
    "tokens": (lambda: nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20)), TOKENS, "ce"),
    "its own loss": (lambda: Lambda(lambda m, x: m.body(x).square().mean(), body=nn.Linear(16, 4)), X, "own"),
    "its own among others": (
        lambda: Lambda(
            lambda m, x: {"logits": (y := m.body(x)), "loss": F.cross_entropy(y, x.argmax(1))}, body=nn.Linear(16, 16)
        ),
        X,
        "own",
    ),
    "integers": (lambda: Lambda(lambda m, x: x.argmax(1)), X, "unit"),
}


@pytest.mark.parametrize("name", HEADS)
def test_the_loss_is_chosen_by_the_last_op_and_then_by_the_shape(name):
    make, x, expected = HEADS[name]
    picked, reason = chosen(make(), x)
    assert picked == expected
    assert reason


AXES = {
    "a linear map puts classes last": (lambda: nn.Sequential(nn.Embedding(20, 64), nn.Linear(64, 5)), TOKENS, 2),
    "a convolution puts them second": (lambda: nn.Sequential(nn.Embedding(20, 8), nn.Conv1d(6, 5, 1)), TOKENS, 1),
    "a softmax says it": (lambda: nn.Sequential(nn.Linear(16, 10), nn.Unflatten(1, (5, 2)), nn.Softmax(1)), X, 1),
    "behind a view the longer of two axes": (lambda: nn.Sequential(nn.Linear(16, 10), nn.Unflatten(1, (5, 2))), X, 1),
}


@pytest.mark.parametrize("name", AXES)
def test_the_class_axis_is_where_the_last_weighted_op_puts_it(name):
    make, x, axis = AXES[name]
    graph, recording = capture(make(), (x,))
    (target,) = targets(recording.outputs, graph)
    assert target.axis == axis


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "own"])
def test_every_named_loss_is_finite_on_probabilities_and_reaches_the_weights(name):
    model = nn.Sequential(nn.Linear(16, 4), nn.Softmax(1))
    loss = value(model, X, name)
    assert (loss.name, loss.reason) == (name, "told")
    loss.total.backward()
    assert model[0].weight.grad.abs().max() > 0


def test_an_uninformed_output_has_the_chance_loss():
    flat = nn.Linear(16, 10)
    nn.init.zeros_(flat.weight)
    nn.init.zeros_(flat.bias)
    loss = value(flat, X)
    assert loss.chance == pytest.approx(math.log(10))
    assert float(loss.total.detach()) == pytest.approx(loss.chance, rel=1e-5)
    assert value(nn.Sequential(nn.Linear(16, 1), nn.Sigmoid()), X, "bce").chance == pytest.approx(math.log(2))


def test_targets_of_a_bounded_output_lie_within_its_bounds():
    loss = value(nn.Sequential(nn.Linear(16, 4), nn.Sigmoid()), X, "mse")
    assert loss.chance == pytest.approx(1 / 12)
    assert float(loss.total.detach()) < 0.5


def test_targets_depend_on_the_seed_alone():
    model = nn.Linear(16, 10)
    torch.manual_seed(1)
    first = float(value(model, X).total.detach())
    torch.manual_seed(2)
    assert float(value(model, X).total.detach()) == first


def test_an_output_outside_the_unit_interval_is_measured_under_bce_and_noted():
    loss = value(nn.Linear(16, 4), X, "bce")
    assert math.isfinite(float(loss.total.detach()))
    assert any("outside [0, 1]" in note for note in loss.notes)


def test_the_last_state_of_an_rnn_adds_no_loss_of_its_own():
    loss = value(nn.LSTM(16, 8, batch_first=True), X.view(8, 1, 16))
    assert loss.notes == ()


def test_a_second_head_is_trained_too():
    model = Lambda(
        lambda m, x: (m.policy(m.body(x)).softmax(-1), m.critic(m.body(x))),
        body=nn.Linear(16, 16),
        policy=nn.Linear(16, 4),
        critic=nn.Linear(16, 1),
    )
    assert statuses(model, X) == ("nll_prob", {"ok"})


def test_a_reconstruction_beside_its_auxiliary_loss_is_trained_too():
    model = Lambda(
        lambda m, x: (m.decode(m.encode(x)), m.encode(x).square().mean()),
        encode=nn.Linear(16, 4),
        decode=nn.Linear(4, 16),
    )
    assert statuses(model, X) == ("own", {"ok"})


def test_a_hint_that_does_not_fit_gives_way_to_a_guess():
    model = Lambda(lambda m, x: m.body(x).to(torch.complex64), body=nn.Linear(16, 4))
    assert statuses(model, X, hint="bce")[1] == {"ok"}
    assert statuses(nn.Linear(16, 10), X, hint="mse")[0] == "mse"


def summed(output):
    return output.sum()


def against(output, target):
    return F.cross_entropy(output, target)


@pytest.mark.parametrize("name", ["summed", "against"])
def test_a_loss_of_the_users_own_takes_the_output_and_a_target_if_it_wants_one(name, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "users", SimpleNamespace(summed=summed, against=against))
    loss = value(nn.Linear(16, 10), X, f"users:{name}")
    assert loss.name == f"users:{name}"
    assert loss.total.ndim == 0


def test_a_loss_that_does_not_exist_is_a_usage_error():
    with pytest.raises(UsageError, match="unknown loss 'mae'"):
        value(nn.Linear(16, 4), X, "mae")
    with pytest.raises(UsageError, match="cannot be imported"):
        value(nn.Linear(16, 4), X, "nowhere:loss")
    with pytest.raises(UsageError, match="not callable"):
        value(nn.Linear(16, 4), X, "math:pi")


def test_a_users_loss_that_raises_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "users", SimpleNamespace(bad=lambda output: 1 / 0, wide=lambda o: o))
    with pytest.raises(ProbeError, match="users:bad raised ZeroDivisionError"):
        value(nn.Linear(16, 4), X, "users:bad")
    with pytest.raises(ProbeError, match="one element"):
        value(nn.Linear(16, 4), X, "users:wide")
