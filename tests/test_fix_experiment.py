"""A fault that one pass need not show is provoked, once without the fix and once with it."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.config import Settings
from gradlint.finding import Finding, Fix
from gradlint.fix import prove
from gradlint.fix.experiment import experiment
from gradlint.load.model import LoadedModel
from gradlint.probe import measure

SETTINGS = Settings(device="cpu", loss="mse")


class Net(nn.Module):
    """A layer, what is to be tried, and a head."""

    def __init__(self, body) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.body, self.head = nn.Linear(8, 8), body, nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(self.layer(x)))


class Recurrent(nn.Module):
    """A recurrent net whose state grows by a factor of about three a step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.rnn, self.head = nn.Linear(1, 4), nn.RNN(4, 32, nonlinearity="relu"), nn.Linear(32, 3)
        nn.init.normal_(self.rnn.weight_hh_l0, std=4.0 * 32**-0.5)

    def forward(self, x):
        return self.head(self.rnn(self.layer(x.T.unsqueeze(-1).repeat(4, 1, 1)))[0][-1])


def fixes(model: nn.Module, rule: str, family: str, *functions: str) -> tuple[Fix, ...]:
    """The fixes of a finding that the graph alone decided, about the ops of these functions."""
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    subject = LoadedModel(model, (x,), {}, (), "Net()", None, None, lambda seed: ((x,), {}))
    graph, measurement = measure(subject, settings=SETTINGS)
    ops = tuple(op.index for op in graph.ops if (op.function or op.kind) in functions)
    about = Finding("GL000", rule, family, "warning", "not-probed", "", op=ops[0], ops=ops)
    return prove(subject, graph, [about], measurement, SETTINGS)[0].fixes


@pytest.mark.parametrize(
    ("body", "rule", "function"),
    [
        (lambda z: torch.log(2 * torch.sigmoid(z)), "log-of-zero", "log"),
        (lambda z: torch.sqrt(z.square().sum(1, keepdim=True)) * z, "root-at-zero", "sqrt"),
        (lambda z: z / z.square().sum(1, keepdim=True), "division-by-zero", "div"),
    ],
    ids=["log", "sqrt", "div"],
)
def test_a_singularity_is_shown_and_then_gone(body, rule, function):
    (fix,) = fixes(Net(body), rule, "numerics", function)
    assert fix.measured_before["finite"] is False and fix.measured_after["finite"] is True
    assert (
        fix.measured_before["health"] == fix.measured_after["health"] == "healthy"
    )  # of the run that nothing provokes
    assert "one sample set to 0" in fix.price


def test_an_exponential_is_clamped_before_it_overflows():
    (fix,) = fixes(Net(lambda z: torch.exp(z).clamp(max=5.0)), "clamp-after-exp", "numerics", "exp", "clamp")
    assert fix.title.startswith("clamp the argument of exp at 1.61")
    assert fix.measured_after["finite"] is True


def test_an_overflow_is_all_that_an_exponential_is_put_to():
    """Arguments far below 0 would make it 0, and the logarithm after it infinite with or without the clamp."""
    fix, *_ = fixes(Net(lambda z: torch.exp(z).clamp(max=5.0).log()), "clamp-after-exp", "numerics", "exp", "clamp")
    assert fix.title.startswith("clamp the argument of exp at 1.61")
    assert fix.measured_before["finite"] is False and fix.measured_after["finite"] is True


def test_an_activation_in_an_activation_is_taken_out_to_widen_the_range():
    (fix,) = fixes(Net(lambda z: torch.sigmoid(torch.tanh(z))), "double-activation", "wiring", "tanh", "sigmoid")
    assert fix.title.startswith("remove torch.tanh")
    assert fix.measured_before["output range"] < 0.5 and fix.measured_after["output range"] > 0.9


def test_weights_of_one_sign_are_drawn_so_that_units_differ():
    model = Net(F.relu)
    for weight in (model.layer.weight, model.head.weight):
        nn.init.uniform_(weight, 0.5, 1.0)
    found = fixes(model, "one-sided-init", "init", "linear")
    assert found and all(
        fix.measured_after["units unlike each other"] > 2 * fix.measured_before["units unlike each other"]
        for fix in found
    )


def test_nothing_is_provoked_for_a_cause_that_the_run_shows():
    assert experiment(Finding("GL000", "saturating-chain", "vanishing", "error", "confirmed", "", ops=(1, 2))) is None


def test_a_recurrence_that_explodes_is_made_orthogonal():
    fix, *_ = fixes(Recurrent(), "measured-exploding", "exploding", "linear")
    assert fix.title == "initialise the recurrent weights with orthogonal_"
    assert fix.measured_before["health"] == "error" and fix.measured_after["health"] == "healthy"


def test_a_rectified_probability_becomes_a_sigmoid_by_its_first_loss():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1), nn.ReLU()), torch.randn(64, 8)
    settings = Settings(device="cpu", loss="bce")
    subject = LoadedModel(model, (x,), {}, (), "Net()", None, None, lambda seed: ((x,), {}))
    graph, measurement = measure(subject, settings=settings)
    about = Finding("GL703", "rectified-output", "output", "warning", "not-probed", "", op=3, ops=(3,))
    (fix,) = prove(subject, graph, [about], measurement, settings)[0].fixes
    assert fix.title == "replace nn.ReLU by nn.Sigmoid (3)"
    assert abs(fix.measured_after["loss-above-chance"]) < 0.3 < fix.measured_before["loss-above-chance"]
