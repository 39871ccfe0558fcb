"""The probe measures what a plain forward and backward would show, on any model, and leaves everything as it was."""

import copy
import math
import random
from dataclasses import dataclass, replace

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

from gradlint.capture import Intervention, Names
from gradlint.error import ForwardError, ProbeError, UsageError
from gradlint.probe import ParamEdit, measure, measurement
from gradlint.probe.health import judge
from gradlint.probe.measurement import Fallback
from gradlint.probe.run import Plan, step


@dataclass
class Loaded:
    model: nn.Module
    args: tuple
    kwargs: dict
    loss: str | None = None
    loss_hint: str | None = None
    rebuild: object = None
    draw: object = None


class Lambda(nn.Module):
    """A model whose forward is a function of itself and the inputs."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args):
        return self.function(self, *args)


def probe(model, *args, hint=None, **options):
    return measure(Loaded(model, args, {}, loss_hint=hint), **options)


def mlp(depth, activation, width=16, std=None):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), activation())]
    model = nn.Sequential(*layers, nn.Linear(width, 4))
    if std is not None:
        for layer in model:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, std)
                nn.init.zeros_(layer.bias)
    return model


def value_of(graph, module):
    return next(op.outputs[0] for op in graph.ops if op.module_path == module)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


# what is measured ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [16, 200])  # tensors that are kept, and tensors that are measured at once
def test_sizes_are_those_of_a_plain_backward_pass(width):
    model, x = mlp(2, nn.Tanh, width), torch.randn(128, width)
    graph, measured = probe(model, x, loss="unit")
    plain = copy.deepcopy(model)
    hidden = plain[:2](x)
    hidden.retain_grad()
    output = plain[2:](hidden)
    noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    (output * noise).sum().backward()
    value = value_of(graph, "1")
    assert measured.profile.activation[value] == pytest.approx(log_rms(hidden), abs=1e-5)
    assert measured.profile.gradient[value] == pytest.approx(log_rms(hidden.grad), abs=1e-5)
    assert measured.params["0.weight"].grad == pytest.approx(log_rms(plain[0].weight.grad), abs=1e-5)
    assert measured.params["0.weight"].weight == pytest.approx(log_rms(model[0].weight), abs=1e-5)
    low, high = measured.extremes[value]
    assert (low, high) == pytest.approx((hidden.min().item(), hidden.max().item()))
    elasticity = math.log10((plain[0].weight.grad.norm() * model[0].weight.norm()).item())
    assert measured.params["0.weight"].elasticity == pytest.approx(elasticity, abs=1e-5)


def log_rms(tensor):
    return math.log10(float(tensor.detach().double().pow(2).mean().sqrt()))


def test_gradients_of_1e23_are_finite_and_not_an_error_of_their_own():
    graph, measured = probe(mlp(30, nn.ReLU, 64, std=1.0), torch.randn(32, 64))
    assert measured.nonfinite_gradient_op is None
    assert all(param.status == "ok" for param in measured.params.values())
    first, last = measured.params["0.weight"].grad, measured.params["60.weight"].grad
    assert first > 19
    assert abs(first - last) < 2  # what a first/last ratio of weight gradients sees
    gradient = measured.profile.gradient
    assert gradient[value_of(graph, "0")] - gradient[value_of(graph, "60")] > 15
    assert judge(graph, measured).state == "error"


def test_large_tensors_of_1e25_do_not_overflow_either():
    model = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 4))
    graph, measured = probe(model, 1e25 * torch.randn(128, 256), loss="unit")
    assert measured.profile.activation[graph.inputs[0]] == pytest.approx(25, abs=0.1)
    assert measured.profile.activation[value_of(graph, "0")] == pytest.approx(25, abs=0.5)
    assert measured.params["0.weight"].status == "ok"


def test_an_underflow_is_told_from_a_zero_and_gets_its_size():
    graph, measured = probe(mlp(100, nn.Sigmoid), X)
    first = measured.params["0.weight"]
    assert first.status == "underflow"
    assert -120 < first.grad < -60
    assert any("underflow" in note for note in measured.notes)
    assert judge(graph, measured).state == "error"


def test_units_that_are_dead_saturated_or_constant_are_counted():
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10), nn.Tanh(), nn.Linear(10, 4))
    with torch.no_grad():
        model[0].bias[:2] = -100.0  # two of eight are dead
        model[2].bias[:5] = 100.0  # five of ten saturate
    _, measured = probe(model, X)
    assert measured.units[1].dead == pytest.approx(0.25)
    assert measured.units[1].constant >= 0.25
    assert measured.units[1].saturated == 0.0
    assert measured.units[3].saturated == pytest.approx(0.5)
    assert measured.units[3].count == 10


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("known", [False, True])  # while the graph is being recorded, and in a replay of it
def test_dead_channels_of_large_convolutions_are_counted(inplace, known):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=inplace), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[0].bias[:2] = -100.0
    x = torch.randn(4, 3, 32, 32)
    graph, measured = probe(model, x)
    if known:
        _, measured = probe(model, x, graph=graph)
    assert measured.units[1].count == 8
    assert measured.units[1].dead == pytest.approx(0.25)


def test_correlation_between_samples_is_one_where_they_are_the_same():
    graph, measured = probe(mlp(1, nn.Tanh), torch.ones(8, 16))
    assert measured.profile.correlation[value_of(graph, "0")] == pytest.approx(1.0)
    assert measured.output_spread < -6


def test_the_gradient_through_time_is_told_apart_by_step():
    rnn = Lambda(lambda m, x: m.head(m.rnn(x)[0][:, -1]), rnn=nn.RNN(1, 32, batch_first=True), head=nn.Linear(32, 4))
    graph, measured = probe(rnn, torch.rand(4, 200, 1))
    (steps,) = measured.through_time.values()
    assert len(steps) == 200
    assert steps[-1] - steps[-20] > 2
    verdict = judge(graph, measured)
    assert (verdict.state, verdict.kind) == ("warning", "vanishing")
    assert verdict.m > -2  # its parameter gradients look normal


def test_the_time_axis_is_found_behind_an_embedding_and_for_gated_cells():
    model = Lambda(
        lambda m, x: m.head(m.rnn(m.embed(x))[0][-1]), embed=nn.Embedding(9, 8), rnn=nn.GRU(8, 8), head=nn.Linear(8, 4)
    )
    graph, measured = probe(model, torch.randint(9, (60, 4)))
    assert [len(steps) for steps in measured.through_time.values()] == [60]
    assert judge(graph, measured).state == "healthy"


# every kind of model -------------------------------------------------------------------------------------------------


def block():
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(inplace=True))


class Straight(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


MODELS = {
    "in-place ReLU after a skip": lambda: Lambda(
        lambda m, x: m.head(F.relu(m.body(x).add_(x), inplace=True)), body=nn.Linear(16, 16), head=nn.Linear(16, 4)
    ),
    "checkpoint, reentrant": lambda: Lambda(
        lambda m, x: m.head(checkpoint(m.body, m.stem(x), use_reentrant=True)),
        stem=nn.Linear(16, 16),
        body=block(),
        head=nn.Linear(16, 4),
    ),
    "checkpoint": lambda: Lambda(
        lambda m, x: m.head(checkpoint(m.body, x, use_reentrant=False)), body=block(), head=nn.Linear(16, 4)
    ),
    "views written in place": lambda: Lambda(
        lambda m, x: m.head(written(m.body(x))), body=nn.Linear(16, 16), head=nn.Linear(16, 4)
    ),
    "complex numbers": lambda: Lambda(lambda m, x: torch.fft.rfft(m.body(x)), body=nn.Linear(16, 16)),
    "complex parameters": lambda: Lambda(
        lambda m, x: (x.to(torch.complex64) @ m.weight).abs(),
        weight=nn.Parameter(torch.randn(16, 4, dtype=torch.complex64)),
    ),
    "a custom autograd function": lambda: Lambda(
        lambda m, x: m.head(Straight.apply(m.body(x))), body=block(), head=nn.Linear(16, 4)
    ),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(16, 16)), nn.Linear(16, 4)),
    "spectral norm": lambda: nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Linear(16, 16)), nn.Linear(16, 4)
    ),
    "old spectral norm": lambda: nn.Sequential(nn.utils.spectral_norm(nn.Linear(16, 16)), nn.Linear(16, 4)),
    "sparse gradients": lambda: Lambda(
        lambda m, x: m.head(m.embed((x > 0).long()).mean(1)),
        embed=nn.Embedding(2, 16, sparse=True),
        head=nn.Linear(16, 4),
    ),
    "a bidirectional LSTM": lambda: Lambda(
        lambda m, x: m.rnn(x.view(8, 4, 4)), rnn=nn.LSTM(4, 8, 2, batch_first=True, bidirectional=True)
    ),
    "attention": lambda: nn.Sequential(nn.Unflatten(1, (2, 8)), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
    "lazy layers": lambda: nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.LazyLinear(4)),
    "torch.compile": lambda: torch.compile(nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))),
}


def written(x):
    x[:, 0] = 0.0
    x.view(-1)[1:3] *= 2.0
    return x


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_gets_its_gradient(name):
    model = MODELS[name]()
    graph, measured = probe(model, X)
    assert {param.status for param in measured.params.values()} == {"ok"}
    assert math.isfinite(measured.loss_value)
    assert judge(graph, measured).state == "healthy"
    assert set(graph.params) == set(measured.params)


def test_small_activations_that_lie_in_memory_in_another_order_are_measured_together():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            h = self.layer(x).transpose(1, 2)  # elementwise operations keep the order of its memory
            return torch.tanh(torch.relu(h))

    torch.manual_seed(0)
    x = torch.randn(4, 5, 6)
    model = Turned()
    graph, measured = probe(model, x)
    (relu,) = [op for op in graph.ops if op.function == "relu"]
    expected = torch.relu(model.layer(x)).square().mean().log10().item() / 2
    assert measured.profile.activation[relu.outputs[0]] == pytest.approx(expected, abs=1e-5)


def test_a_class_with_another_method_called_train_is_measured_in_train_mode():
    modes = []

    class Layer(nn.Linear):
        def train(self, positive, negative):
            raise AssertionError("this trains the layer")

        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    model = nn.Sequential(Layer(4, 4))
    model[0].training = False
    _, measured = probe(model, torch.randn(8, 4))
    assert measured.params["0.weight"].status == "ok"
    assert modes == [True]
    assert not model[0].training


def test_a_replay_measures_what_the_recording_did():
    model = nn.Sequential(
        nn.Linear(16, 16), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Linear(16, 4)
    )
    graph, recorded = probe(model, X)
    again, replayed = probe(model, X, graph=graph)
    assert again is graph
    assert replayed.params == recorded.params
    assert replayed.profile.gradient == pytest.approx(recorded.profile.gradient)
    assert replayed.profile.activation == pytest.approx(recorded.profile.activation)


def test_halves_are_measured_in_single_precision():
    _, measured = probe(mlp(1, nn.ReLU).to(torch.bfloat16), X.bfloat16())
    assert measured.dtype == "bfloat16"
    assert measured.params["0.weight"].status == "ok"


def test_float64_on_request():
    model = Lambda(lambda m, x: m.body(x + torch.zeros(16)), body=nn.Linear(16, 4))
    _, single = probe(model, X)
    _, double = probe(model, X, dtype="float64")
    assert double.dtype == "float64"
    assert double.params["body.weight"].grad == pytest.approx(single.params["body.weight"].grad, abs=1e-5)
    assert next(model.parameters()).dtype is torch.float32


# gradients that are missing, zero or not finite ----------------------------------------------------------------------


def test_statuses_say_why_a_parameter_has_no_gradient():
    model = Lambda(
        lambda m, x: m.head(torch.sign(m.cut(m.frozen(x))) + m.used(x)) + m.detached(x).detach(),
        frozen=nn.Linear(16, 16).requires_grad_(False),
        cut=nn.Linear(16, 16),
        used=nn.Linear(16, 16),
        head=nn.Linear(16, 4),
        detached=nn.Linear(16, 4),
        spare=nn.Linear(16, 4),
    )
    _, measured = probe(model, X)
    status = {path.removesuffix(".weight"): m.status for path, m in measured.params.items() if path.endswith("weight")}
    assert status == {
        "frozen": "frozen",
        "cut": "zero",
        "used": "ok",
        "head": "ok",
        "detached": "none",
        "spare": "unused",
    }


def test_a_zero_head_is_opened_before_judging():
    model = mlp(3, nn.ReLU)
    nn.init.zeros_(model[-1].weight)
    graph, measured = probe(model, X)
    assert measured.params["0.weight"].status == "zero"
    assert measured.moved == ("6.weight",)
    assert measured.unblocked.params["0.weight"].status == "ok"
    assert judge(graph, measured).state == "healthy"


def test_a_net_of_zeros_stays_dead():
    model = mlp(2, nn.ReLU)
    for param in model.parameters():
        nn.init.zeros_(param)
    graph, measured = probe(model, X)
    assert measured.unblocked is None
    assert judge(graph, measured).state == "error"


def test_tied_weights_are_one_parameter_with_the_sum_of_both_gradients():
    embed, head = nn.Embedding(50, 16), nn.Linear(16, 50, bias=False)
    head.weight = embed.weight
    model = Lambda(lambda m, x: m.head(m.embed(x)), embed=embed, head=head)
    _, measured = probe(model, torch.randint(50, (4, 7)))
    assert list(measured.params) == ["embed.weight"]


def test_the_op_that_made_the_first_nan_is_named():
    model = Lambda(lambda m, x: m.head(torch.log(m.body(x))), body=nn.Linear(16, 16), head=nn.Linear(16, 4))
    graph, measured = probe(model, X)
    assert graph.ops[measured.nonfinite_op].function == "log"
    assert judge(graph, measured).state == "error"


def test_a_mask_of_minus_infinity_is_no_fault():
    mask = torch.full((16, 16), -math.inf).triu(1)
    model = Lambda(
        lambda m, x: m.head((m.body(x).unsqueeze(1) + mask).softmax(-1) @ x.unsqueeze(-1)).squeeze(-1),
        body=nn.Linear(16, 16),
        head=nn.Linear(1, 1),
    )
    _, measured = probe(model, X)
    assert measured.nonfinite_op is None


def test_a_gradient_that_is_not_finite_is_named_where_it_begins():
    model = Lambda(lambda m, x: m.head((m.body(x) * 0.0).sqrt()), body=nn.Linear(16, 16), head=nn.Linear(16, 4))
    graph, measured = probe(model, X)
    assert measured.nonfinite_op is None
    assert graph.ops[measured.nonfinite_gradient_op].kind == "mul"
    assert measured.params["body.weight"].status == "nonfinite"
    assert judge(graph, measured).state == "error"


def test_an_infinite_gradient_that_a_relu_takes_back_is_no_fault():
    model = Lambda(lambda m, x: m.head(F.relu(m.body(x)).sqrt()), body=nn.Linear(16, 16), head=nn.Linear(16, 4))
    graph, measured = probe(model, X)
    assert max(measured.profile.gradient.values()) == math.inf
    assert measured.nonfinite_gradient_op is None
    assert judge(graph, measured).state == "healthy"


@pytest.mark.parametrize(
    "model",
    [
        Lambda(lambda m, x: x.relu()),
        Lambda(lambda m, x: m.body(x).argmax(-1), body=nn.Linear(16, 4)),
        Lambda(lambda m, x: m.body(x[:0]), body=nn.Linear(16, 4)),
        Lambda(lambda m, x: m.body(x).detach(), body=nn.Linear(16, 4)),
        Lambda(lambda m, x: None),
    ],
    ids=["no parameters", "integers", "empty", "detached", "nothing"],
)
def test_without_a_differentiable_output_the_forward_pass_is_still_measured(model):
    graph, measured = probe(model, X)
    assert measured.loss == "none"
    assert {param.status for param in measured.params.values()} <= {"none"}
    assert judge(graph, measured).state == "unknown"


# errors --------------------------------------------------------------------------------------------------------------


def test_a_batch_norm_over_one_sample_is_the_models_own_error_with_a_hint():
    with pytest.raises(ForwardError, match="more than 1 value") as caught:
        probe(nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8)), X[:1])
    assert "batch of 2" in caught.value.hint


def test_the_users_line_is_named_when_the_forward_raises():
    def broken(module, x):
        raise KeyError("feature")

    with pytest.raises(ForwardError, match="KeyError: 'feature'") as caught:
        probe(Lambda(broken), X)
    assert caught.value.span.path == __file__
    assert caught.value.span.line == broken.__code__.co_firstlineno + 1


def test_a_backward_pass_that_raises_is_a_probe_error():
    def overwrites(module, x):
        hidden = module.body(x).sigmoid()
        doubled = hidden * 2
        hidden.add_(1)
        return doubled

    with pytest.raises(ProbeError, match="inplace") as caught:
        probe(Lambda(overwrites, body=nn.Linear(16, 4)), X)
    assert "in place" in caught.value.hint


def test_a_device_that_is_not_there_is_a_usage_error():
    settings = Fallback(device="cuda:99")
    with pytest.raises(UsageError, match="cuda:99"):
        probe(nn.Linear(16, 4), X, settings=settings)


def test_a_model_on_the_meta_device_is_refused():
    with pytest.raises(ProbeError, match="meta"):
        probe(nn.Linear(16, 4, device="meta"), X)
    with pytest.raises(ProbeError, match="meta"):
        probe(nn.Linear(16, 4), X, settings=Fallback(device="meta"))


# changes to the run --------------------------------------------------------------------------------------------------


def test_an_intervention_changes_the_replay_and_not_the_model():
    model = mlp(20, nn.Sigmoid)
    graph, before = probe(model, X)
    swaps = tuple(
        Intervention(op.index, replace=lambda func, args, kwargs: F.relu(args[0]))
        for op in graph.ops
        if op.kind == "activation"
    )
    _, after = probe(model, X, graph=graph, interventions=swaps)
    assert after.params["0.weight"].grad - before.params["0.weight"].grad > 5


def test_an_edit_draws_a_parameter_anew_on_the_copy():
    model = mlp(1, nn.Tanh)
    graph, _ = probe(model, X)
    before = model[0].weight.clone()
    _, measured = probe(model, X, graph=graph, edits=(ParamEdit("0.weight", lambda w: torch.full_like(w, 0.01)),))
    assert measured.params["0.weight"].weight == pytest.approx(-2.0, abs=1e-6)
    assert torch.equal(model[0].weight, before)
    with pytest.raises(ProbeError, match="no parameter"):
        probe(model, X, edits=(ParamEdit("nope", torch.zeros_like),))


# everything as it was ------------------------------------------------------------------------------------------------


def test_nothing_of_the_callers_is_touched():
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.ReLU(inplace=True), nn.Linear(16, 4))
    model.eval()
    model(X).sum().backward()
    hook = model[0].register_forward_hook(lambda *_: None)
    x = X.clone().requires_grad_()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [param.grad.clone() for param in model.parameters()]
    rng = (torch.get_rng_state(), random.getstate(), numpy.random.get_state()[1].copy())
    probe(model, x)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert all(torch.equal(a, p.grad) for a, p in zip(gradients, model.parameters(), strict=True))
    assert not any(module.training for module in model.modules())
    assert x.grad is None
    assert torch.equal(x, X)
    assert torch.equal(rng[0], torch.get_rng_state())
    assert rng[1] == random.getstate()
    assert numpy.array_equal(rng[2], numpy.random.get_state()[1])
    assert list(model[0]._forward_hooks) == [hook.id]
    assert not any(module._backward_hooks for module in model.modules())
    assert torch.get_default_dtype() is torch.float32


def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not():
    model = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.5), nn.Linear(16, 4))
    first, same, other = (probe(model, X, seed=seed)[1].loss_value for seed in (1, 1, 2))
    assert first == same != other


# seeds ---------------------------------------------------------------------------------------------------------------


def seeded(depth, **changes):
    def build():
        return mlp(depth, nn.Sigmoid, 32)

    def draw(seed):
        return (torch.randn(32, 32, generator=torch.Generator().manual_seed(seed)),), {}

    return Loaded(build(), *draw(0), rebuild=build, draw=draw), Fallback(device="cpu", seeds=3)


def test_one_seed_is_enough_far_from_every_limit():
    loaded, settings = seeded(12)
    assert measure(loaded, settings=settings)[1].seeds == (0,)


def test_near_a_limit_further_seeds_are_measured_and_their_spread_is_told():
    loaded, settings = seeded(4)
    graph, measured = measure(loaded, settings=settings)
    assert len(measured.seeds) > 1
    assert 0 < measured.profile.spread["0.weight"] < 0.5
    assert judge(graph, measured).m == pytest.approx(-4, abs=0.6)


def test_a_model_that_cannot_be_built_again_is_measured_once_and_that_is_noted():
    loaded, settings = seeded(4)
    loaded.rebuild = lambda: 1 / 0
    _, measured = measure(loaded, settings=settings)
    assert measured.seeds == (0,)
    assert any("ZeroDivisionError" in note for note in measured.notes)


def test_a_fault_that_only_a_guessed_loss_shows_is_not_the_models(monkeypatch):
    def by_loss(graph, measured, **options):
        return replace(judge(graph, measured, **options), state="warning" if measured.loss == "ce" else "healthy")

    monkeypatch.setattr(measurement, "judge", by_loss)
    _, guessed = probe(mlp(2, nn.Tanh), X)
    assert guessed.loss == "unit"
    assert "ce, a guess" in guessed.notes[0]
    _, told = probe(mlp(2, nn.Tanh), X, loss="ce")
    assert told.loss == "ce"


def test_a_fault_that_every_loss_shows_is_judged_by_the_guess():
    graph, measured = probe(mlp(12, nn.Sigmoid), X)
    assert measured.loss == "ce"
    assert measured.guessed
    assert judge(graph, measured).state == "error"


# what the issue of measuring asks a test of each for, beyond those above ---------------------------------------------


def test_an_inf_of_the_forward_pass_is_named_where_it_begins_and_is_not_a_large_number():
    model = Lambda(lambda m, x: m.head(m.body(x) / 0.0), body=nn.Linear(16, 16), head=nn.Linear(16, 4))
    graph, measured = probe(model, X)
    assert graph.ops[measured.nonfinite_op].module_path == "head"  # where Inf times weights of both signs became NaN
    assert measured.profile.activation[graph.ops[1].outputs[0]] == math.inf
    verdict = judge(graph, measured)
    assert (verdict.state, verdict.kind) == ("error", "blow-up")


def test_empty_tensors_and_their_gradients_are_passed_over():
    model = Lambda(
        lambda m, x: torch.cat([m.body(x), m.spare(x[:0])]), body=nn.Linear(16, 4), spare=nn.Linear(16, 4, bias=False)
    )
    model.register_parameter("none", nn.Parameter(torch.empty(0, 3)))
    graph, measured = probe(model, X)
    assert measured.params["body.weight"].status == "ok"
    assert measured.params["spare.weight"].status == "zero"  # it was read by a batch of no samples
    assert measured.params["none"].status == "unused"
    assert judge(graph, measured).state == "healthy"


def test_integer_and_boolean_tensors_carry_no_gradient_and_stop_none():
    model = Lambda(
        lambda m, x: m.head(
            m.embed((x > 0).long() + 1).mean(1) * (x.round().int() % 3).sum(1, keepdim=True).clamp(1, 2)
        ),
        embed=nn.Embedding(3, 16),
        head=nn.Linear(16, 4),
    )
    graph, measured = probe(model, X)
    whole = [v.id for v in graph.values if v.dtype.startswith(("int", "bool"))]
    assert whole
    assert not set(whole) & set(measured.profile.gradient)
    assert {param.status for param in measured.params.values()} == {"ok"}
    assert judge(graph, measured).state == "healthy"


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_replay_of_checkpointed_blocks_counts_every_operation_once(reentrant):
    model = Lambda(
        lambda m, x: m.head(checkpoint(m.body, m.stem(x), use_reentrant=reentrant)),
        stem=nn.Linear(16, 16),
        body=block(),
        head=nn.Linear(16, 4),
    )
    graph, recorded = probe(model, X)
    _, replayed = probe(model, X, graph=graph)
    assert replayed.params == recorded.params
    assert replayed.profile.gradient == pytest.approx(recorded.profile.gradient)


def test_a_replay_meets_custom_functions_as_the_recording_did():
    model = Lambda(lambda m, x: m.head(Straight.apply(m.body(x))), body=block(), head=nn.Linear(16, 4))
    graph, recorded = probe(model, X)
    _, replayed = probe(model, X, graph=graph)
    assert replayed.profile.gradient == pytest.approx(recorded.profile.gradient)
    assert list(replayed.profile.activation) == list(recorded.profile.activation)


class Beside(nn.Module):
    """A branch with a computed weight, of which nothing reaches the loss."""

    def __init__(self, width):
        super().__init__()
        self.inner, self.head = nn.Linear(16, width), nn.Linear(width, 4)
        self.branch = weight_norm(nn.Linear(16, width))

    def forward(self, x):
        return self.head(torch.relu(self.inner(x)) + self.branch(x).detach())


@pytest.mark.parametrize("width", [32, 2048])  # measured together with others, and by itself
def test_what_the_recording_asks_of_a_computed_weight_is_no_gradient_of_the_loss(width):
    torch.manual_seed(0)
    model = Beside(width)
    found = step(model, (torch.randn(8, 16),), {}, Names(model), Plan(device=torch.device("cpu"), loss="ce"))
    computed = next(op for op in found.graph.ops if op.function == "weight_norm")
    assert (computed.index, 0) not in found.tables["gradient"]
