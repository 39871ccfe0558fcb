"""Functions written out in steps are found, replaced by one that gives the same numbers, and stay finite at ±1000."""

import pytest
import torch
from torch import Tensor, nn

from gradlint.capture import capture, run
from gradlint.config import Settings
from gradlint.finding import Finding
from gradlint.fix import prove
from gradlint.fix.candidate import Stress
from gradlint.fix.fusion import fusions
from gradlint.fix.interventions import apply
from gradlint.load.model import LoadedModel
from gradlint.probe import measure


class Written(nn.Module):
    """A layer, and something written out of its output."""

    def __init__(self, form):
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(5, 6)
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        return self.form(self.fc(x))


FORMS = {
    "log_softmax": (lambda z: torch.log(z.softmax(1)), lambda z: z.log_softmax(1)),
    "logsigmoid": (lambda z: z.sigmoid().view(-1).log(), lambda z: nn.functional.logsigmoid(z).view(-1)),
    "negative_logsigmoid": (lambda z: torch.log(1.0 - torch.sigmoid(z)), lambda z: nn.functional.logsigmoid(-z)),
    "logsumexp": (lambda z: z.exp().sum(1, keepdim=True).log(), lambda z: z.logsumexp(1, keepdim=True)),
    "softmax": (lambda z: z.exp() / torch.exp(z).sum(-1, keepdim=True), lambda z: z.softmax(1)),
}


def recorded(form):
    model = Written(form).double()
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    graph, _ = capture(model, (x,))
    return model, x, graph


@pytest.mark.parametrize("name", FORMS)
def test_the_one_function_gives_the_numbers_and_gradients_of_the_steps(name):
    written, plain = FORMS[name]
    model, x, graph = recorded(written)
    (step,) = fusions(graph, [graph.ops[-1].index])
    assert step.function == name
    fused = run(model, (x,), record=False, interventions=apply(graph, (step,), 0).interventions).output
    expected = plain(model.fc(x))
    torch.testing.assert_close(fused, expected)
    torch.testing.assert_close(fused, model(x))
    weights = [torch.autograd.grad(out.square().sum(), model.fc.weight)[0] for out in (fused, expected)]
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("name", FORMS)
def test_the_steps_are_not_finite_at_extremes_and_the_one_function_is(name):
    model, x, graph = recorded(FORMS[name][0])
    (step,) = fusions(graph, [graph.ops[-1].index])
    stress = Stress(step.start, "extreme")
    finite = []
    for steps in ((stress,), (stress, step)):
        output = run(model, (x,), record=False, interventions=apply(graph, steps, 0).interventions).output
        finite.append(bool(output.isfinite().all()))
    assert finite == [False, True]


@pytest.mark.parametrize(
    "form",
    [
        lambda z: torch.log(z.softmax(1) + 1e-8),
        lambda z: torch.log(2.0 - z.sigmoid()),
        lambda z: torch.log(z.softmax(1).view(-1)),
        lambda z: z.exp() / torch.exp(2 * z).sum(1, keepdim=True),
        lambda z: (1.0 + z.square()).log(),
    ],
)
def test_what_one_function_does_not_compute_is_left(form):
    _, _, graph = recorded(form)
    assert fusions(graph, range(len(graph.ops))) == ()


def test_the_other_call_of_a_line_is_replaced_with_it():
    _, _, graph = recorded(lambda z: torch.log(z.sigmoid()) + torch.log(1 - z.sigmoid()))
    first = next(op.index for op in graph.ops if op.function == "log")
    assert [step.function for step in fusions(graph, [first])] == ["logsigmoid", "negative_logsigmoid"]


def loaded(model: nn.Module, loss: str | None) -> LoadedModel:
    x = torch.randn(32, 5, generator=torch.Generator().manual_seed(0))
    return LoadedModel(model, (x,), {}, (), "Net()", loss, None, lambda seed: ((x,), {}))


@pytest.mark.parametrize(("loss", "other"), [("nll", "CrossEntropyLoss"), ("bce", "BCEWithLogitsLoss")])
def test_logits_are_given_to_the_loss_that_takes_them(loss, other):
    subject, settings = loaded(Written(lambda z: z), loss), Settings(device="cpu", loss=loss)
    graph, measurement = measure(subject, settings=settings)
    about = Finding(
        "GL705", "wrong-range", "output", "error", "confirmed", "", op=0, ops=(0,), predicted={"loss": loss}
    )
    (fix,) = prove(subject, graph, [about], measurement, settings)[0].fixes
    assert other in fix.title and [change.kind for change in fix.changes] == ["loss"]
    assert abs(fix.measured_after["loss-above-chance"]) < 0.3 < abs(fix.measured_before["loss-above-chance"])


def test_the_safe_form_comes_before_the_bound():
    subject, settings = loaded(Written(lambda z: torch.log(z.softmax(1))), "nll"), Settings(device="cpu", loss="nll")
    graph, measurement = measure(subject, settings=settings)
    log = graph.ops[-1].index
    about = Finding(
        "GL801", "log-of-zero", "numerics", "warning", "confirmed", "", op=log, ops=(log,), cause="log-of-probability"
    )
    first, second = prove(subject, graph, [about], measurement, settings)[0].fixes
    assert first.title.startswith("compute log of softmax as F.log_softmax")
    assert second.title.startswith("keep the argument of log")
    assert first.measured_before["finite"] is False and first.measured_after["finite"] is True
