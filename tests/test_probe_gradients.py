"""Gradients that are had together by one call of the engine are those that hooks meet one by one."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from gradlint.capture import Names
from gradlint.probe import gradients
from gradlint.probe.run import Plan, step

X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


class Lambda(nn.Module):
    """A model whose forward is a function of itself and the input."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def inplace():
    def forward(m, x):
        h = m.head(F.relu(m.body(x).add_(x), inplace=True))
        h[:, 0] = 0.0
        h.view(-1)[1:3] *= 2.0
        return h

    return Lambda(forward, body=nn.Linear(16, 16), head=nn.Linear(16, 4))


def tied():
    model = Lambda(
        lambda m, x: m.head(torch.tanh(m.second(torch.tanh(m.first(x))))),
        first=nn.Linear(16, 16),
        second=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
    )
    model.second.weight = model.first.weight
    return model


def frozen():
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    model[0].requires_grad_(requires_grad=False)
    model[2].bias.requires_grad_(requires_grad=False)
    return model


def hooked():
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    model[0].weight.register_hook(lambda gradient: 2.0 * gradient)
    return model


def checkpointed():
    return Lambda(
        lambda m, x: m.head(checkpoint(m.body, m.stem(x), use_reentrant=True)),
        stem=nn.Linear(16, 16),
        body=nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True)),
        head=nn.Linear(16, 4),
    )


def twice():
    def forward(m, x):
        h = torch.tanh(m.body(x))
        return m.head(h) + m.other(h) * h[:, :4]

    return Lambda(forward, body=nn.Linear(16, 16), head=nn.Linear(16, 4), other=nn.Linear(16, 4))


MODELS = {
    "in-place operations and written views": inplace,
    "tied weights": tied,
    "frozen parameters": frozen,
    "a hook on a parameter": hooked,
    "checkpointed blocks": checkpointed,
    "an output used twice": twice,
    "an output returned by two operations": lambda: Lambda(
        lambda m, x: m.head(m.body(x).contiguous().to(torch.float32).relu()),
        body=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
    ),
    "views": lambda: Lambda(
        lambda m, x: m.head(torch.cat(m.body(x).view(8, 4, 4).transpose(1, 2).flatten(1).chunk(2, 1), 1)),
        body=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
    ),
    "complex numbers": lambda: Lambda(
        lambda m, x: m.head(torch.fft.rfft(m.body(x)).abs()), body=nn.Linear(16, 16), head=nn.Linear(9, 4)
    ),
    "integers": lambda: Lambda(
        lambda m, x: m.head(m.embed((x > 0).long()).mean(1) * (x.round().int() % 3).sum(1, keepdim=True)),
        embed=nn.Embedding(2, 16, sparse=True),
        head=nn.Linear(16, 4),
    ),
    "a branch that no gradient reaches": lambda: Lambda(
        lambda m, x: m.head(torch.relu(m.body(x)) + m.aside(x).detach()),
        body=nn.Linear(16, 16),
        aside=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
    ),
    "a recurrence": lambda: Lambda(
        lambda m, x: m.head(m.rnn(torch.tanh(x).view(8, 4, 4))[0][:, -1]),
        rnn=nn.RNN(4, 8, batch_first=True),
        head=nn.Linear(8, 4),
    ),
}


def passes(model, **options):
    """A recorded pass and a replay of it."""
    names, plan = Names(model), Plan(device=torch.device("cpu"), loss="unit", **options)
    recorded = step(model, (X.clone(),), {}, names, plan)
    model.zero_grad(set_to_none=True)
    replayed = step(model, (X.clone(),), {}, names, Plan(**{**vars(plan), "graph": recorded.graph}))
    return recorded, replayed


def log_rms(tensor):
    dense = tensor.detach().to_dense()
    return math.log10(float(torch.linalg.vector_norm(dense, dtype=torch.float64))) - 0.5 * math.log10(dense.numel())


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_the_same_together_and_one_by_one(name, monkeypatch):
    torch.manual_seed(0)
    model = MODELS[name]()
    together = passes(model)
    assert all(param.grad is None for param in model.parameters())  # none was accumulated
    monkeypatch.setattr(gradients, "FEW", -1)
    alone = passes(copy.deepcopy(model) if name != "a hook on a parameter" else model)
    assert together[0].tables["gradient"]
    for one, other in zip(together, alone, strict=True):
        for table in ("gradient", "grad", "steps"):
            assert one.tables.get(table, {}) == pytest.approx(other.tables.get(table, {}), abs=1e-6)
    assert together[1].tables["gradient"] == pytest.approx(together[0].tables["gradient"], abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_get_what_a_plain_backward_pass_gives_them(name):
    torch.manual_seed(0)
    model = MODELS[name]()
    _, replayed = passes(model)
    output = model(X.clone())
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    expected = {path: log_rms(param.grad) for path, param in model.named_parameters() if param.grad is not None}
    assert replayed.tables["grad"] == pytest.approx(expected, abs=1e-5)


def test_what_waits_for_an_accumulated_gradient_gets_it():
    model, seen = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4)), []
    model[0].weight.register_post_accumulate_grad_hook(lambda param: seen.append(log_rms(param.grad)))
    recorded, replayed = passes(model)
    assert seen == pytest.approx([found.tables["grad"]["0.weight"] for found in (recorded, replayed)], abs=1e-6)


class Again(torch.autograd.Function):
    """Runs a module in the forward pass, and once more with gradients in the backward pass."""

    @staticmethod
    def forward(ctx, x, module):
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            ctx.module(x).backward(gradient)
        return x.grad, None


def test_a_backward_pass_within_the_backward_pass_gives_parameters_their_gradients():
    torch.manual_seed(0)
    model = Lambda(
        lambda m, x: m.head(Again.apply(m.stem(x), m.body)),
        stem=nn.Linear(16, 16),
        body=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
    )
    _, replayed = passes(model)
    assert set(replayed.tables["grad"]) == {path for path, _ in model.named_parameters()}


def test_a_gradient_that_the_model_asks_for_itself_is_not_that_of_the_loss():
    def forward(m, x):
        h = torch.tanh(m.body(x))
        (slope,) = torch.autograd.grad(1e6 * h.sum(), m.body.weight, create_graph=True)
        return m.head(h) + slope.square().mean()

    torch.manual_seed(0)
    model = Lambda(forward, body=nn.Linear(16, 16), head=nn.Linear(16, 4))
    recorded, _ = passes(model)
    body = next(op for op in recorded.graph.ops if op.module_path == "body")
    plain = model.body(X)
    plain.retain_grad()
    hidden = torch.tanh(plain)
    (slope,) = torch.autograd.grad(1e6 * hidden.sum(), model.body.weight, create_graph=True)
    output = model.head(hidden) + slope.square().mean()
    (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert recorded.tables["gradient"][body.index, 0] == pytest.approx(log_rms(plain.grad), abs=1e-5)


def test_more_than_a_few_bytes_are_met_one_by_one(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(16, 16) for _ in range(80)))  # more than are hooked at a time
    few, _ = passes(model)
    monkeypatch.setattr(gradients, "FEW", 4 * 8 * 16 * 5)  # five outputs
    many, _ = passes(model)
    assert all(param.grad is not None for param in model.parameters())
    assert many.tables["gradient"] == pytest.approx(few.tables["gradient"], abs=1e-6)
    assert len(many.tables["gradient"]) == 80


def test_the_many_outputs_of_one_operation_are_met_by_one_hook(monkeypatch):
    met, arrive = [], gradients.Gradients._arrive

    def counted(self, slots, arrived):
        met.append(len(slots))
        arrive(self, slots, arrived)

    monkeypatch.setattr(gradients, "FEW", -1)
    monkeypatch.setattr(gradients.Gradients, "_arrive", counted)
    torch.manual_seed(0)
    model = Lambda(lambda m, x: torch.stack(m.body(x).unbind(1), 1).tanh(), body=nn.Linear(16, 16))
    names = Names(model)
    step(model, (X.clone(),), {}, names, Plan(device=torch.device("cpu"), loss="unit"))
    assert sorted(met) == [1, 1, 1, 16]  # the linear map, the stack, the tanh; and the outputs of unbind


def test_micro_batches_have_their_mean_accumulated():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    whole = step(model, (X,), {}, Names(model), Plan(device=torch.device("cpu"), loss="mse"), X[:, :4])
    parts = step(model, (X,), {}, Names(model), Plan(device=torch.device("cpu"), loss="mse", parts=2), X[:, :4])
    assert parts.tables["grad"] == pytest.approx(whole.tables["grad"], abs=1e-5)
