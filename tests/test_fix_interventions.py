"""Steps act on a recorded run: what later readers see is what a model with the edited source would have computed."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.capture import capture, run
from gradlint.error import ProbeError
from gradlint.fix.candidate import Guard, Initialise, Normalise, Prenormalise, Rescale, Skip, Step, Swap
from gradlint.fix.changes import changes
from gradlint.fix.initialisation import initialise
from gradlint.fix.interventions import apply
from gradlint.fix.postnorm import pre_norm


def replay(model: nn.Module, x: torch.Tensor, *steps: Step) -> tuple[torch.Tensor, nn.Module]:
    """The output with the steps applied, and the copy that made it, after a backward pass."""
    graph, _ = capture(copy.deepcopy(model), (x,), {})
    changed = copy.deepcopy(model)
    applied = apply(graph, steps, 0)
    for change in applied.edits:
        change.function(changed.get_parameter(change.path))
    recording = run(changed, (x,), {}, record=False, interventions=applied.interventions)
    assert recording.calls == len(graph.ops)
    recording.output.sum().backward()
    return recording.output.detach(), changed


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 2))


X = torch.linspace(-2, 2, 60).reshape(10, 6)


def test_a_swapped_activation_is_the_other_function():
    model = mlp()
    expected = nn.Sequential(model[0], nn.ReLU(), model[2], nn.GELU(), model[4])(X)
    assert torch.equal(replay(model, X, Swap(1, "relu"), Swap(3, "gelu"))[0], expected)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "elu", "gelu", "silu", "selu", "tanh", "sigmoid", "identity"])
def test_every_activation_can_take_the_place_of_an_in_place_one(name):
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.layer(x)
            x.sigmoid_()  # the result is discarded: later readers see the tensor itself
            return self.head(x)

    torch.manual_seed(0)
    model = InPlace()
    function = torch.clone if name == "identity" else getattr(torch, name, None) or getattr(F, name)
    expected = model.head(function(model.layer(X)))
    assert torch.allclose(replay(model, X, Swap(1, name))[0], expected)


def test_an_in_place_module_is_seen_through_the_tensor_it_changed():
    class Aliased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.act = nn.Linear(6, 6), nn.ReLU(inplace=True)

        def forward(self, x):
            z = self.layer(x)
            y = self.act(z)
            return y + z  # z is the activation too

    torch.manual_seed(0)
    model = Aliased()
    assert torch.allclose(replay(model, X, Swap(1, "elu"))[0], 2 * F.elu(model.layer(X)))


@pytest.mark.parametrize(
    ("step", "norm"),
    [
        (Normalise(0, "batch_norm"), nn.BatchNorm1d(6, affine=False)),
        (Normalise(0, "layer_norm"), nn.LayerNorm(6, elementwise_affine=False)),
        (Normalise(0, "group_norm", 2), nn.GroupNorm(2, 6, affine=False)),
        (Normalise(0, "rms_norm"), nn.RMSNorm(6, eps=1e-6, elementwise_affine=False)),
    ],
    ids=["batch", "layer", "group", "rms"],
)
def test_a_norm_comes_between_a_layer_and_its_activation(step, norm):
    model = mlp()
    expected = nn.Sequential(model[0], norm, *list(model)[1:])(X)
    assert torch.allclose(replay(model, X, step)[0], expected, atol=1e-6)


def test_a_skip_adds_the_blocks_input_to_its_output():
    model = mlp()
    hidden = model[1](model[0](X))
    expected = model[4](hidden + model[3](model[2](hidden)))
    assert torch.allclose(replay(model, X, Skip(2, 3, 99))[0], expected)


def test_a_projected_skip_has_the_shape_of_the_block_and_is_the_same_at_every_run():
    torch.manual_seed(0)
    convs, x = (
        nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 4)),
        torch.randn(2, 3, 8, 8),
    )
    skip = Skip(0, 1, capture(convs, (x,))[0].inputs[0], 2, True)
    first, model = replay(convs, x, skip)
    assert torch.equal(first, replay(convs, x, skip)[0])
    assert not torch.allclose(first, model(x))
    narrow, y = nn.Sequential(nn.Linear(6, 4), nn.Tanh()), torch.randn(5, 6)
    step = Skip(0, 1, capture(narrow, (y,))[0].inputs[0], 1)
    added = replay(narrow, y, step)[0] - narrow(y)
    assert torch.linalg.matrix_rank(torch.linalg.lstsq(y, added).solution) == 4
    assert torch.allclose(y @ torch.linalg.lstsq(y, added).solution, added, atol=1e-4)


def test_a_skip_around_one_op_and_norms_and_swaps_at_the_same_op_go_together():
    model = mlp()
    z = F.layer_norm(model[2](model[1](model[0](X))), (6,))
    expected = model[4](torch.relu(z) + model[1](model[0](X)))
    steps = (Skip(2, 3, 99), Normalise(2, "layer_norm"), Swap(3, "relu"))
    assert torch.allclose(replay(model, X, *steps)[0], expected)


def test_a_skip_ends_at_an_in_place_activation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), nn.ReLU(inplace=True))
    hidden = F.relu(model[0](X))
    assert torch.allclose(replay(model, X, Skip(2, 3, 99))[0], hidden + F.relu(model[2](hidden)))


class Stack(nn.Module):
    """Two residual blocks with the norm after the sum, or before the branch and after all of them."""

    def __init__(self, *, first: bool, width: int = 8):
        super().__init__()
        self.first, self.inp, self.head = first, nn.Linear(6, width), nn.Linear(width, 2)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.up, self.down = nn.Linear(width, 9), nn.Linear(9, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def attend(self, x):
        return self.attention(x, x, x, need_weights=False)[0]

    def forward(self, x):
        x = self.inp(x)
        for norm, branch in zip(self.norms, (self.attend, lambda x: self.down(self.up(x).relu())), strict=True):
            x = x + branch(norm(x)) if self.first else norm(x + branch(x))
        return self.head(F.layer_norm(x, (8,)) if self.first else x)


def test_post_norm_becomes_pre_norm_with_a_final_norm():
    torch.manual_seed(0)
    post, pre, x = Stack(first=False), Stack(first=True), torch.randn(3, 5, 6)
    pre.load_state_dict(post.state_dict())
    steps = pre_norm(capture(post, (x,), {})[0])
    assert torch.allclose(replay(post, x, *steps)[0], pre(x), atol=1e-6)
    assert pre_norm(capture(pre, (x,), {})[0]) == ()


def test_cross_attention_is_a_branch_of_its_own_input():
    torch.manual_seed(0)
    post = nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True), 2)
    first = nn.TransformerDecoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=True)
    pre = nn.TransformerDecoder(first, 2, norm=nn.LayerNorm(8))
    pre.load_state_dict(post.state_dict(), strict=False)
    x = torch.randn(3, 5, 8)

    class Decoder(nn.Module):
        def __init__(self, stack) -> None:
            super().__init__()
            self.stack = stack

        def forward(self, x):
            return self.stack(x, x.flip(1))

    steps = pre_norm(capture(Decoder(post), (x,), {})[0])
    assert len(steps) == 6
    assert torch.allclose(replay(Decoder(post), x, *steps)[0], Decoder(pre)(x), atol=1e-5)


def test_the_norm_of_the_first_branch_is_learned_once_whatever_reads_it():
    x = torch.randn(3, 5, 6)
    graph, _ = capture(model := Stack(first=False), (x,), {})
    applied = apply(graph, pre_norm(graph), 0, lasting=True)
    for _ in range(2):
        run(model, (x,), {}, record=False, interventions=applied.interventions)
    assert [each.shape for each in applied.learned()] == [(8,), (8,)]


def test_an_addition_in_place_takes_what_went_into_the_norm():
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.n, self.m = nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6), nn.LayerNorm(6)

        def forward(self, x):
            x = self.n(x + self.a(x))
            x += self.b(x.sigmoid())
            return self.m(x)

    torch.manual_seed(0)
    model = InPlace()
    y = X + model.a(F.layer_norm(X, (6,)))
    expected = model.m(y + model.b(model.n(y).sigmoid()))
    graph, _ = capture(copy.deepcopy(model), (X,), {})
    steps = pre_norm(graph)
    assert isinstance(steps[0], Prenormalise)
    assert torch.allclose(replay(model, X, *steps)[0], expected, atol=1e-6)


def test_lsuv_leaves_every_output_with_unit_variance():
    model = mlp()
    _, changed = replay(model, X, Rescale(0, "0.weight"), Rescale(2, "2.weight"))
    first = changed[0](X).detach()
    assert float(first.std()) == pytest.approx(1, abs=0.05)
    assert float(changed[2](torch.sigmoid(first)).detach().std()) == pytest.approx(1, abs=0.05)
    assert not torch.equal(changed[0].weight, model[0].weight)


def test_the_gains_that_a_run_came_to_give_unit_variance_without_data():
    graph, _ = capture(mlp(), (X,), {})
    drawn = [Initialise(f"{index}.weight", "orthogonal", 1.0) for index in (0, 2)]
    steps = (*drawn, Rescale(0, "0.weight"), Rescale(2, "2.weight"))
    changed, applied = mlp(), apply(graph, steps, 0)
    for each in applied.edits:
        each.function(changed.get_parameter(each.path))
    run(changed, (X,), {}, record=False, interventions=applied.interventions)
    made = {change.module: change for change in changes(graph, steps, applied.scales) if change.kind == "init"}
    again = mlp()
    for index, name in ((0, "self[0]"), (2, "self[2]")):
        initialise(again[index].weight, replace(drawn[index // 2], gain=made[name].gain), 0)
        assert made[name].new == "orthogonal"
        assert float(again[: index + 1](X).detach().std()) == pytest.approx(1.0, abs=0.03)
    assert changes(graph, steps) == ()


def test_a_guard_keeps_a_logarithm_and_a_quotient_finite():
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            z = F.relu(self.layer(x))
            return torch.log(z) / z

    torch.manual_seed(0)
    output, changed = replay(Log(), X, Guard(2, 1e-6), Guard(3, 1e-6))
    assert output.isfinite().all()
    assert changed.layer.weight.grad.isfinite().all()


def test_a_vanilla_rnn_runs_with_relu():
    torch.manual_seed(0)
    model = nn.Sequential(nn.RNN(6, 4))
    expected = nn.RNN(6, 4, nonlinearity="relu")
    expected.load_state_dict(model[0].state_dict())

    class Last(nn.Module):
        def __init__(self, rnn: nn.RNN) -> None:
            super().__init__()
            self.rnn = rnn

        def forward(self, x):
            return self.rnn(x)[0]

    x = X.reshape(5, 2, 6)
    graph, _ = capture(Last(model[0]), (x,), {})
    index = next(op.index for op in graph.ops if op.kind == "recurrent")
    assert torch.allclose(replay(Last(model[0]), x, Swap(index, "rnn_relu"))[0], expected(x)[0])


def test_a_run_that_takes_another_way_is_refused():
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            x = torch.sigmoid(self.layer(x))
            if x.min() < 0:  # only once the sigmoid is replaced
                x = x + 1.0
            return torch.sigmoid(x)

    torch.manual_seed(0)
    with pytest.raises(ProbeError, match="another way"):
        replay(Fickle(), X, Swap(1, "identity"), Swap(4, "relu"))


def test_the_callers_model_and_generator_are_left_alone():
    model = mlp()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    replay(model, X, Initialise("0.weight", "orthogonal"), Rescale(2, "2.weight"))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("scheme", "gain", "std"),
    [
        ("kaiming_normal", 2**0.5, (2 / 200) ** 0.5),
        ("lecun_normal", 1.0, (1 / 200) ** 0.5),
        ("xavier_normal", 5 / 3, 5 / 3 * (2 / 300) ** 0.5),
        ("default", 1.0, (1 / 600) ** 0.5),
        ("siren", 6**0.5 / 30, 6**0.5 / 30 / 600**0.5),
        ("orthogonal", 2**0.5, 2**0.5 * (1 / 200) ** 0.5),
        ("scale", 0.5, 0.5),
        ("zeros", 1.0, 0.0),
    ],
)
def test_a_scheme_draws_the_variance_it_is_named_for(scheme, gain, std):
    weight = torch.randn(100, 200, generator=torch.Generator().manual_seed(1))
    initialise(weight, Initialise("w", scheme, gain, 200, 100), 0)
    assert float(weight.std()) == pytest.approx(std, rel=0.03, abs=1e-9)


def test_orthogonal_rows_are_orthonormal_times_the_gain():
    weight = torch.empty(4, 2, 3, 3)
    initialise(weight, Initialise("w", "orthogonal", 2.0), 0)
    assert torch.allclose(weight.flatten(1) @ weight.flatten(1).T, 4 * torch.eye(4), atol=1e-5)


def test_each_gate_of_a_recurrent_weight_is_orthogonal():
    weight = torch.empty(12, 3)
    initialise(weight, Initialise("w", "orthogonal_gates"), 0)
    for gate in weight.split(3):
        assert torch.allclose(gate @ gate.T, torch.eye(3), atol=1e-5)


def test_the_forget_gate_alone_gets_the_bias():
    bias = torch.zeros(8)
    initialise(bias, Initialise("b", "forget_bias", 1.0), 0)
    assert bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_a_draw_depends_on_the_seed_and_the_path_only():
    def draw(path: str, seed: int) -> torch.Tensor:
        weight = torch.empty(3, 3)
        initialise(weight, Initialise(path, "kaiming_normal", 1.0, 3, 3), seed)
        return weight

    assert torch.equal(draw("a", 0), draw("a", 0))
    assert not torch.equal(draw("a", 0), draw("b", 0))
    assert not torch.equal(draw("a", 0), draw("a", 1))
