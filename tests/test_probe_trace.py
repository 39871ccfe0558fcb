"""A short training run follows the gradient of every weight, on a copy, with the user's own batches or one made up."""

import math
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradlint.capture import Intervention
from gradlint.curves import trace_run
from gradlint.error import ForwardError, ProbeError, UsageError
from gradlint.load.data import Batches, with_data
from gradlint.probe import ParamEdit, Training, measure, train
from gradlint.probe.agreement import agreement, split
from gradlint.probe.measurement import Fallback


@dataclass
class Loaded:
    model: nn.Module
    args: tuple
    kwargs: dict = field(default_factory=dict)
    loss: str | None = None
    loss_hint: str | None = None
    rebuild: object = None
    draw: object = None


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))


def net(activation=nn.Tanh):
    return nn.Sequential(nn.Linear(8, 8), activation(), nn.Linear(8, 3))


FIVE = Training(5)


def traced(model, x=X, training=FIVE, **options):
    loaded = Loaded(model, (x,))
    graph, _ = measure(loaded)
    return graph, train(loaded, graph, training, **options)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_it_does_what_a_plain_training_loop_does(optimizer):
    model = net()
    graph, trace = traced(model, training=Training(4, optimizer, 0.01))
    plain, labels = net(), torch.randint(3, (16,), generator=torch.Generator().manual_seed(0))
    plain.load_state_dict(model.state_dict())
    momentum = torch.optim.SGD(plain.parameters(), 0.01, momentum=0.9)
    update = momentum if optimizer == "sgd" else torch.optim.Adam(plain.parameters(), 0.01)
    for step in range(4):
        loss = F.cross_entropy(plain(X), labels)
        update.zero_grad()
        loss.backward()
        assert trace.losses[step] == pytest.approx(loss.item(), rel=1e-5)
        rms = float(plain[0].weight.grad.double().pow(2).mean().sqrt())
        assert trace.gradients["0.weight"][step] == pytest.approx(math.log10(rms), abs=1e-4)
        update.step()
    assert (trace.optimizer, trace.loss, trace.data, trace.stopped) == (optimizer, "ce", "made up", "")
    assert list(trace.gradients) == ["0.weight", "2.weight"]
    assert [curve.parameter for curve in trace_run(graph, trace).curves] == ["0.weight", "2.weight"]


def test_a_budget_holds_for_training_too_and_changes_no_number():
    targets = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    loaded = Loaded(net(), (X,), loss="mse")
    loaded.target = targets
    graph, _ = measure(loaded)
    parted, _ = measure(loaded, settings=Fallback(memory=1))
    assert parted.values[parted.inputs[0]].shape[0] == 2  # of the 16 samples
    whole, tight = train(loaded, graph, FIVE), train(loaded, parted, replace(FIVE, memory=1))
    assert tight.losses == pytest.approx(whole.losses, abs=1e-4)
    for path, sizes in whole.gradients.items():
        assert tight.gradients[path] == pytest.approx(sizes, abs=1e-3)


def test_a_net_that_can_train_learns_the_batch_by_heart_and_a_dead_one_does_not():
    healthy = traced(net(), training=Training(60, rate=0.02))[1]
    chain = nn.Sequential(*[layer for _ in range(12) for layer in (nn.Linear(8, 8), nn.Sigmoid())], nn.Linear(8, 3))
    dead = traced(chain, training=Training(60, rate=0.02))[1]
    assert healthy.losses[-1] < 0.3 * healthy.losses[0]
    assert dead.losses[-1] > 0.8 * dead.losses[0]


def test_everything_of_the_callers_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).eval()
    model[0].weight.grad = torch.ones(8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    traced(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones(8, 8))
    assert not model.training
    assert not model[0]._forward_hooks


def test_it_stops_at_a_loss_that_is_not_finite():
    model = net(nn.ReLU)
    trace = traced(model, 1e3 * X, Training(50, "sgd", 1e12))[1]
    assert 1 < len(trace.losses) < 50
    assert "not finite" in trace.stopped
    assert not trace.finite


def test_it_stops_when_the_time_is_spent():
    trace = traced(net(), training=Training(50, seconds=0.0))[1]
    assert len(trace.losses) == 1
    assert "1 of 50 steps" in trace.stopped


def test_batches_of_the_users_own_are_taken_in_turn_with_their_targets():
    x, y = torch.randn(6, 16, 8), torch.randint(3, (6, 16))
    model = net()
    loaded = with_data(model, Batches(list(zip(x, y, strict=True)), model), "net")
    graph, measured = measure(loaded)
    trace = train(loaded, graph, Training(3, "sgd", 1e-12))
    assert trace.data == "given"
    assert trace.losses == pytest.approx([F.cross_entropy(model(x[i]), y[i]).item() for i in range(3)], rel=1e-5)
    assert measured.loss_value == pytest.approx(trace.losses[0])


def test_interventions_and_edits_are_those_of_a_measurement():
    plain = traced(net())[1]
    changed = traced(net(), interventions=(Intervention(1, after=lambda out, *_: 0.0 * out),))[1]
    edited = traced(net(), edits=(ParamEdit("2.weight", torch.zeros_like),))[1]
    assert changed.gradients["0.weight"][0] == -math.inf
    assert edited.gradients["0.weight"][0] == -math.inf
    assert edited.gradients["0.weight"][1] > -math.inf  # the head has moved by then
    assert plain.gradients["0.weight"][0] > -math.inf


@pytest.mark.parametrize(
    ("model", "training", "error"),
    [
        (net(), Training(2, "lion"), UsageError),
        (nn.Sequential(nn.Linear(8, 3).requires_grad_(False)), Training(2), ProbeError),
        (nn.Linear(9, 3), Training(2), ForwardError),
    ],
)
def test_what_cannot_be_trained_is_one_error(model, training, error):
    graph, _ = measure(Loaded(net(), (X,)))
    with pytest.raises(error):
        train(Loaded(model, (X,)), graph, training)


# agreement between samples -------------------------------------------------------------------------------------------


def agreed(model, x, y):
    def backward(args, kwargs, target):
        F.mse_loss(model(*args), target).backward()

    return agreement(model, ((x,), {}, y), backward)


def test_samples_agree_when_they_are_the_same_and_cancel_when_they_are_opposite():
    model = nn.Linear(8, 1, bias=False)
    x = torch.ones(8, 8)
    assert agreed(model, x, torch.full((8, 1), 9.0)) == pytest.approx(1.0, abs=1e-5)
    nn.init.zeros_(model.weight)
    y = torch.cat([torch.ones(4, 1), -torch.ones(4, 1)])
    assert agreed(model, x, y) == pytest.approx(-1 / 3, abs=1e-5)  # of six pairs two agree and four cancel


def test_agreement_is_the_mean_cosine_of_the_parts():
    model, x, y = nn.Linear(8, 1), torch.randn(8, 8), torch.randn(8, 1)
    gradients = []
    for i in range(0, 8, 2):
        model.zero_grad()
        F.mse_loss(model(x[i : i + 2]), y[i : i + 2]).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    products = sum(float(gradients[a] @ gradients[b]) for a, b in pairs)
    lengths = sum(float(gradients[a].norm() * gradients[b].norm()) for a, b in pairs)
    model.zero_grad()
    assert agreed(model, x, y) == pytest.approx(products / lengths, abs=1e-4)
    assert all(param.grad is None for param in model.parameters())


def test_a_batch_that_cannot_be_split_has_no_agreement():
    assert split(((torch.randn(3, 4),), {}, None)) == []
    assert agreed(nn.Linear(8, 1), torch.randn(3, 8), torch.randn(3, 1)) is None
    parts = split((([torch.zeros(8, 2), torch.zeros(5)],), {"n": 3}, torch.arange(8)))
    assert [len(part[2]) for part in parts] == [2, 2, 2, 2]
    assert parts[1][2].tolist() == [2, 3]
    assert [len(part[0][0][1]) for part in parts] == [5, 5, 5, 5]


def test_buffers_do_not_move_with_the_parts():
    model = nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    before = model[1].running_mean.clone()
    assert agreed(model, torch.randn(8, 8), torch.randn(8, 1)) is not None
    assert torch.equal(model[1].running_mean, before)
