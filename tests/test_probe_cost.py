"""What a replay takes beside a bare pass, and that it is as exact as if it did not matter."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradlint.capture import Names
from gradlint.probe import gradients, sites
from gradlint.probe.ledger import Ledger, alike, log_rms, log_rms_alike, log_spread
from gradlint.probe.run import Plan, once, step

CPU = torch.device("cpu")


def mlp(layers, activation=nn.Sigmoid, width=64):
    torch.manual_seed(0)
    hidden = [layer for _ in range(layers) for layer in (nn.Linear(width, width), activation())]
    return nn.Sequential(*hidden, nn.Linear(width, 10))


def peak(model, call):
    """Bytes that torch allocated at most at one time during the call, beyond what it held before."""
    model.zero_grad(set_to_none=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    held = most = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


@pytest.mark.parametrize(
    ("layers", "batch", "width", "beyond"),
    [(20, 32, 64, 2 * sites.FEW), (10, 64, 64, 2 * sites.FEW), (30, 8, 64, 2 * sites.FEW), (16, 16, 512, 0)],
)
def test_a_replay_takes_hardly_more_memory_than_the_bare_pass(layers, batch, width, beyond):
    model, x = mlp(layers, width=width), torch.randn(batch, width)
    labels, names = torch.randint(10, (batch,)), Names(model)
    plan = Plan(device=CPU, loss="ce")
    plan = replace(plan, graph=step(model, (x,), {}, names, plan).graph)
    bare = peak(model, lambda: F.cross_entropy(model(x), labels).backward())
    assert beyond or bare > 16e6
    assert peak(model, lambda: step(model, (x,), {}, names, plan)) <= max(1.10 * bare, bare + beyond)


def test_what_is_measured_does_not_depend_on_when(monkeypatch):
    loaded = SimpleNamespace(model=mlp(12, nn.Tanh), args=(torch.randn(16, 64),), kwargs={}, loss=None, loss_hint=None)
    plan = Plan(device=CPU)
    monkeypatch.setattr(sites, "FEW", 0)
    monkeypatch.setattr(gradients, "FEW", -1)
    graph, _ = once(loaded, plan)
    assert sites.sites(graph).full
    assert sites.sites(graph).due
    _, often = once(loaded, replace(plan, graph=graph))
    monkeypatch.undo()
    monkeypatch.setattr(sites, "ROOM", 1e9)
    again, _ = once(loaded, plan)  # another graph, for which the sites are worked out anew
    assert not sites.sites(again).full
    _, seldom = once(loaded, replace(plan, graph=again))
    for table in ("activation", "gradient", "correlation"):
        assert getattr(often.profile, table) == pytest.approx(getattr(seldom.profile, table), abs=1e-6)
    assert often.extremes == seldom.extremes
    assert often.units == seldom.units


def exact(tensor):
    return math.log10(float(torch.linalg.vector_norm(tensor, dtype=torch.float64))) - 0.5 * math.log10(tensor.numel())


@pytest.mark.parametrize("scale", [1e-30, 1e-17, 1.0, 1e17, 1e30])
@pytest.mark.parametrize("shape", [(5,), (40, 50), (300, 400), (400, 300, 20)])
def test_every_size_is_exact_at_every_scale(shape, scale):
    tensor = scale * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for given in (tensor, tensor.transpose(0, -1)):
        ledger = Ledger()
        log_rms(ledger, "one", "a", given)
        for keys, tensors in alike({"a": given, "b": tensor[:2], "c": given.clone()}.items()):
            log_rms_alike(ledger, "each", keys, tensors)
        found = ledger.read()
        assert found["one"]["a"] == pytest.approx(exact(tensor), abs=1e-4)
        assert found["each"] == pytest.approx(
            {"a": exact(tensor), "b": exact(tensor[:2]), "c": exact(tensor)}, abs=1e-4
        )


@pytest.mark.parametrize("shape", [(8, 10), (6, 300, 200), (7,)])
def test_the_spread_between_samples_is_that_about_their_mean(shape):
    tensor = 3.0 + 1e-3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    log_spread(ledger := Ledger(), "output", "spread", tensor)
    wide = tensor.double()
    assert ledger.read()["output"]["spread"] == pytest.approx(exact(wide - wide.mean(0)), abs=1e-3)
