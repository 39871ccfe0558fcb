"""Fixes put to a short training: both curves, from the same start, and the model left as it was."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlint.config import Settings
from gradlint.finding import Finding, Fix, settled
from gradlint.fix import prove
from gradlint.fix.candidate import Initialise, Normalise, Rescale, Skip, Swap
from gradlint.fix.interventions import apply
from gradlint.fix.training import FIXES, School, trained
from gradlint.load import LoadedModel
from gradlint.probe import Training, measure, train


def net(depth=6, width=16):
    rows = [row for _ in range(depth) for row in (nn.Linear(width, width), nn.Sigmoid())]
    return nn.Sequential(*rows, nn.Linear(width, 4))


@pytest.fixture
def school():
    torch.manual_seed(0)

    def draw(seed):
        return (torch.randn(16, 16, generator=torch.Generator().manual_seed(seed)),), {}

    loaded = LoadedModel(net(), draw(0)[0], {}, (), "net", None, None, draw)
    settings = Settings(device="cpu", loss="ce", steps=30, timeout=600)
    graph, measured = measure(loaded, settings=settings)
    return School(loaded, graph, settings, measured.loss)


def relu(graph):
    swaps = [Swap(op.index, "relu") for op in graph.ops if op.function == "sigmoid"]
    return (*swaps, *(Initialise(p, "kaiming_normal", 2**0.5, 16, 16) for p in graph.params if p.endswith("weight")))


def test_a_fix_of_the_flow_learns_what_the_model_as_it_is_does_not(school):
    before = {name: param.clone() for name, param in school.loaded.model.named_parameters()}
    runs = {run.optimizer: run for run in school.compare(relu(school.graph))}
    assert runs.keys() == {"sgd", "adam"}
    for run in runs.values():
        assert len(run.before) == len(run.after) == 30
        assert run.data == "made up"
        assert run.step_time > 0
        assert run.after[0] - settled(run.after) > run.before[0] - settled(run.before)
    assert all(torch.equal(before[name], param) for name, param in school.loaded.model.named_parameters())


def test_nothing_is_trained_twice(school):
    first = school.compare(relu(school.graph))
    runs = dict(school.runs)
    assert school.compare(relu(school.graph)) == first
    assert school.runs == runs and len(runs) == 4


def test_a_weight_is_rescaled_by_data_once(school):
    ops = [op for op in school.graph.ops if op.kind == "linear"]
    steps = tuple(Rescale(op.index, op.params[0]) for op in ops)
    (run, _) = school.compare(steps)
    assert all(map(math.isfinite, run.after))
    assert run.after != run.before


def test_fixes_of_a_few_findings_are_trained(school):
    fix = Fix("replace it", {}, {})
    finding = Finding("GL101", "saturating-chain", "vanishing", "error", "confirmed", "it saturates", fixes=(fix, fix))
    swaps = [(Swap(op.index, "relu"),) for op in school.graph.ops if op.function == "sigmoid"]
    done = [trained(replace_school(school), finding, [steps]) for steps in swaps[:1]]
    assert done[0].fixes[0].trained and not done[0].fixes[1].trained
    assert trained(school, replace(finding, fixes=()), []).fixes == ()
    many = [trained(school, finding, [steps]) for steps in swaps[: FIXES + 1]]
    assert [bool(each.fixes[0].trained) for each in many] == [True] * FIXES + [False]


def replace_school(school):
    return replace(school, settings=replace(school.settings, steps=2), runs={})


def test_a_fix_that_cannot_run_is_not_trained(school):
    assert school.compare((Swap(0, "nothing-of-the-kind"),)) == ()


class Listed(nn.Module):
    """Its layers are in a list, where no optimizer finds them."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(16, 16), nn.Linear(16, 16)]
        self.scale = torch.ones(16, requires_grad=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu() * self.scale
        return self.head(x)


def test_what_is_held_in_a_list_is_registered_and_trained():
    torch.manual_seed(0)
    x = torch.randn(16, 16)
    loaded = LoadedModel(Listed(), (x,), {}, (), "Listed", None, None, lambda seed: ((x,), {}))
    settings = Settings(device="cpu", loss="ce", steps=5, prove=True)
    graph, measured = measure(loaded, settings=settings)
    about = Finding("GL901", "unregistered-module", "wiring", "error", "not-probed", "they are not registered")
    (fix,) = prove(loaded, graph, [about], measured, settings)[0].fixes
    assert fix.title == "hold layers in nn.ModuleList, scale in nn.Parameter"
    assert fix.measured_before["registered parameters"] == 16 * 4 + 4
    assert fix.measured_after["registered parameters"] == 16 * 4 + 4 + 2 * (16 * 16 + 16) + 16
    assert {run.optimizer for run in fix.trained} == {"sgd", "adam"}
    assert all(settled(run.after) < settled(run.before) for run in fix.trained)
    assert isinstance(loaded.model.layers, list) and not isinstance(loaded.model.scale, nn.Parameter)


def test_registered_modules_have_no_such_fix():
    loaded = LoadedModel(nn.Linear(4, 4), (torch.randn(2, 4),), {}, (), "net", None, None, lambda seed: ((), {}))
    settings = Settings(device="cpu", loss="ce")
    graph, measured = measure(loaded, settings=settings)
    about = Finding("GL901", "unregistered-module", "wiring", "error", "not-probed", "they are not registered")
    assert prove(loaded, graph, [about], measured, settings)[0].fixes == ()


ADDED = {
    "norm": (lambda: [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3)], Normalise(0, "batch_norm")),
    "layer": (lambda: [nn.Linear(8, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 3)], Normalise(0, "layer_norm")),
}


@pytest.mark.parametrize("name", ADDED)
def test_a_norm_that_a_step_inserts_is_trained_as_the_written_one_is(name):
    made, step = ADDED[name]
    torch.manual_seed(0)
    written = nn.Sequential(*made())
    plain = nn.Sequential(written[0], *written[2:])
    losses, learned = [], ()
    for model, steps in ((plain, (step,)), (written, ())):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
        loaded = LoadedModel(model, (x,), {}, (), "net", None, None, lambda seed, x=x: ((x,), {}))
        graph, _ = measure(loaded, settings=Settings(device="cpu", loss="ce"))
        applied = apply(graph, steps, 0, lasting=True)
        training = Training(40, "sgd", 0.1, loss="ce")
        run = train(loaded, graph, training, interventions=applied.interventions, added=applied.learned)
        losses.append(run.losses)
        learned = learned or applied.learned()
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert [tuple(param.shape) for param in learned] == [(16,), (16,)]
    assert all(float(param.detach().std()) > 0 for param in learned)


def test_a_projection_is_learned():
    torch.manual_seed(0)
    x = torch.randn(16, 8)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))
    loaded = LoadedModel(model, (x,), {}, (), "net", None, None, lambda seed: ((x,), {}))
    graph, _ = measure(loaded, settings=Settings(device="cpu", loss="ce"))
    applied = apply(graph, (Skip(0, 1, graph.inputs[0], 1),), 0, lasting=True)
    train(loaded, graph, Training(1, "sgd", 0.1, loss="ce"), interventions=applied.interventions, added=applied.learned)
    (weight,) = applied.learned()
    assert weight.shape == (16, 8) and weight.grad.abs().sum() > 0
