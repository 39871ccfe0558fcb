"""The static prediction against real float64 backward passes, and what it says when it does not know."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.graph import Graph
from gradlint.profile import Signal
from gradlint.quantity import QUANTITIES
from gradlint.signal import predict

ZERO = 10.0  # decades below the largest gradient


def measured(model: nn.Module, draw: Callable[[torch.Generator], Tensor], loss: str, passes: int) -> dict[str, float]:
    """log10 RMS of every parameter's gradient over several passes."""
    model = model.double()
    random = torch.Generator().manual_seed(3)
    squares: dict[str, float] = {}
    for _ in range(passes):
        model.zero_grad(set_to_none=True)
        x = draw(random)
        y = model(x.double() if x.is_floating_point() else x)
        if loss == "ce":
            rows = y.reshape(-1, y.shape[-1])
            F.cross_entropy(rows, torch.randint(0, y.shape[-1], (len(rows),), generator=random)).backward()
        elif loss == "mse":
            ((y - torch.randn(y.shape, generator=random, dtype=y.dtype)) ** 2).mean().backward()
        else:
            (y * torch.randn(y.shape, generator=random, dtype=y.dtype)).sum().backward()
        for name, param in model.named_parameters():
            if param.grad is not None:
                squares[name] = squares.get(name, 0.0) + float((param.grad**2).mean()) / passes
    return {name: 0.5 * math.log10(square) if square > 0 else -math.inf for name, square in squares.items()}


def predicted(model: nn.Module, draw: Callable[[torch.Generator], Tensor], loss: str = "unit") -> tuple[Graph, Signal]:
    graph, _ = capture(model.train(), (draw(torch.Generator().manual_seed(1)),))
    return graph, predict(graph, loss)


def normal(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda random: torch.randn(*shape, generator=random)


def check(
    model: nn.Module,
    draw: Callable[[torch.Generator], Tensor],
    loss: str = "unit",
    within: float = 0.1,
    passes: int = 6,
) -> Signal:
    """Every matrix within `within` decades, vectors of 32 entries and more within twice that; zeros found exactly."""
    _, signal = predicted(model, draw, loss)
    sizes = {name: (param.ndim, param.numel()) for name, param in model.named_parameters()}
    real = measured(model, draw, loss, passes)
    largest = max(real.values())
    assert set(real) <= set(signal.profile.params), signal.unknown
    for name, actual in real.items():
        guess = signal.profile.params[name]
        if actual < largest - ZERO:
            assert guess == -math.inf, (name, guess, actual)
        elif sizes[name][0] > 1:
            assert guess == pytest.approx(actual, abs=within), name
        elif sizes[name][1] >= 32:
            assert guess == pytest.approx(actual, abs=2 * within), name
    return signal


def deep(
    act: type[nn.Module], depth: int, width: int, norm: Callable[[int], nn.Module] = lambda n: nn.Identity()
) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(24, width), norm(width), act()]
    for _ in range(depth - 2):
        layers += [nn.Linear(width, width), norm(width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 10))


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.inner(x))


class Attention(nn.Module):
    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.norm = nn.Embedding(50, 64), nn.LayerNorm(64)
        self.qkv, self.out, self.head, self.causal = nn.Linear(64, 192), nn.Linear(64, 64), nn.Linear(64, 50), causal

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        b, t, c = x.shape
        q, k, v = (p.view(b, t, 4, c // 4).transpose(1, 2) for p in self.qkv(self.norm(x)).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.head(x + self.out(y.transpose(1, 2).reshape(b, t, c)))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.head = kind(16, 96, batch_first=True), nn.Linear(96, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x)[0][:, -1])


class Handmade(nn.Module):
    """x·σ(x) written out, twice: a gradient that adds up coherently over the two uses of x."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(24, 128), nn.Linear(128, 128), nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.a, self.b):
            x = layer(x)
            x = x * torch.sigmoid(x)
        return self.c(x)


@pytest.mark.parametrize("loss", ["unit", "ce", "mse"])
@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SELU, nn.SiLU, nn.Softplus])
def test_plain_networks(act: type[nn.Module], loss: str) -> None:
    check(deep(act, 6, 128), normal(64, 24), loss, within=0.15)


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm])
def test_normalised_networks(norm: Callable[[int], nn.Module]) -> None:
    signal = check(deep(nn.ReLU, 10, 128, norm), normal(64, 24))
    found = [path for path in signal.zeros if path.endswith("bias")]
    assert len(found) == (9 if norm is nn.BatchNorm1d else 0)


def test_a_convolutional_network_with_pools() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1, groups=4), nn.BatchNorm2d(64), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(64, 64, 1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )
    check(model, normal(8, 3, 16, 16), within=0.15)


def test_a_rectified_residual_stream() -> None:
    torch.manual_seed(0)
    blocks = [
        Residual(nn.Sequential(nn.Linear(96, 96), nn.BatchNorm1d(96), nn.ReLU(), nn.Linear(96, 96), nn.BatchNorm1d(96)))
        for _ in range(8)
    ]
    model = nn.Sequential(nn.Linear(24, 96), nn.BatchNorm1d(96), nn.ReLU(), *blocks, nn.Linear(96, 10))
    check(model, normal(64, 24))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("loss", ["unit", "ce"])
def test_attention_over_embedded_tokens(causal: bool, loss: str) -> None:
    check(Attention(causal=causal), lambda random: torch.randint(0, 50, (8, 24), generator=random), loss, within=0.15)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_networks_over_time(kind: type[nn.RNNBase]) -> None:
    check(Recurrent(kind), normal(32, 25, 16), within=0.15, passes=10)


def test_one_gaussian_used_twice_adds_coherently() -> None:
    check(Handmade(), normal(64, 24))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([nn.ReLU, nn.Tanh, nn.GELU, nn.SELU, nn.ELU]),
    st.sampled_from([nn.BatchNorm1d, nn.LayerNorm, nn.Identity]),
    st.integers(2, 6),
    st.sampled_from([64, 96, 160]),
    st.sampled_from(["unit", "ce"]),
)
def test_any_small_network(
    act: type[nn.Module], norm: Callable[[int], nn.Module], depth: int, width: int, loss: str
) -> None:
    check(deep(act, depth, width, norm), normal(48, 24), loss, within=0.2, passes=4)


def test_the_first_layer_of_a_deep_sigmoid_network_vanishes() -> None:
    _, signal = predicted(deep(nn.Sigmoid, 20, 64), normal(16, 24))
    assert signal.profile.params["0.weight"] < signal.profile.params["57.weight"] - 10


def test_gains_split_the_chain_rule_into_its_factors() -> None:
    graph, signal = predicted(deep(nn.Sigmoid, 5, 128), normal(16, 24))
    sigmoids = [signal.profile.gains[op.index] for op in graph.ops if op.kind == "activation"]
    linears = [signal.profile.gains[op.index] for op in graph.ops[1:] if op.kind == "linear"]
    for gain in sigmoids:
        assert gain.derivative is not None and gain.derivative == gain.backward
        assert gain.derivative == pytest.approx(math.log10(0.25), abs=0.06)
    for gain in linears:
        assert gain.weight is not None and gain.weight == gain.backward


def test_correlation_says_that_samples_are_forgotten() -> None:
    graph, signal = predicted(deep(nn.Sigmoid, 12, 128), normal(16, 24))
    first, last = graph.ops[0].outputs[0], graph.outputs[0]
    assert signal.profile.correlation[graph.inputs[0]] == pytest.approx(0.0, abs=1e-9)
    assert signal.profile.correlation[first] < 0.5 < 0.999 < signal.profile.correlation[last]


def test_a_gradient_that_cannot_arrive_is_a_structural_zero_and_not_a_vanishing_one() -> None:
    model = deep(nn.ReLU, 4, 64)
    assert isinstance(model[6], nn.Linear)
    nn.init.zeros_(model[6].weight)
    _, signal = predicted(model, normal(16, 24))
    assert signal.profile.params["0.weight"] == -math.inf
    assert "0.weight" in signal.zeros
    assert "6.weight" not in signal.zeros


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(torch.fft.fft(self.before(x)).imag)


def test_what_depends_on_an_unknown_op_is_unknown() -> None:
    graph, signal = predicted(Strange(), normal(4, 8))
    assert signal.unknown and all(graph.ops[index].kind != "linear" for index in signal.unknown)
    assert not set(signal.profile.params) & {"before.weight", "after.weight"}
    assert graph.ops[0].outputs[0] in signal.profile.activation


def test_a_parameter_without_statistics_makes_its_layer_unknown() -> None:
    graph, _ = predicted(deep(nn.ReLU, 3, 16), normal(4, 24))
    bare = {path: replace(param, moments={}, mean=None, std=None) for path, param in graph.params.items()}
    signal = predict(replace(graph, params=bare))
    assert not signal.profile.params


def test_the_mean_and_deviation_of_the_weights_are_enough() -> None:
    model = deep(nn.ReLU, 6, 256)
    graph, signal = predicted(model, normal(16, 24))
    bare = {path: replace(param, moments={}) for path, param in graph.params.items()}
    expected = predict(replace(graph, params=bare))
    for path in ("0.weight", "6.weight", "15.weight"):
        assert expected.profile.params[path] == pytest.approx(signal.profile.params[path], abs=0.05)


def test_inputs_may_be_told() -> None:
    graph, signal = predicted(deep(nn.ReLU, 2, 64), normal(16, 24))
    louder = predict(graph, inputs={graph.inputs[0]: (0.0, 10.0)})
    assert louder.profile.params["0.weight"] == pytest.approx(signal.profile.params["0.weight"] + 1.0, abs=0.01)


def test_the_stated_interval_covers_what_is_measured() -> None:
    model = deep(nn.Tanh, 12, 64)
    _, signal = predicted(model, normal(64, 24))
    real = measured(model, normal(64, 24), "unit", 6)
    held = [abs(signal.profile.params[k] - v) <= 1.96 * signal.profile.spread[k] for k, v in real.items()]
    assert sum(held) >= 0.9 * len(held)


def test_the_samples_of_a_deep_sigmoid_net_collapse_and_its_depth_scale_is_known() -> None:
    graph, signal = predicted(deep(nn.Sigmoid, 12, 128), normal(16, 24))
    layers = [op.outputs[0] for op in graph.ops if op.kind == "linear"]
    collapse, scale = (QUANTITIES[name].function for name in ("sample-collapse", "depth-scale"))
    found = collapse(graph, signal, layers[-1:])
    assert found is not None and found < -5 < (collapse(graph, signal, layers[:1]) or 0.0)
    chi = math.sqrt(128) * 0.25 / math.sqrt(3 * 128)  # √n · φ′ · std of a torch default weight
    assert scale(graph, signal, layers[:-1]) == pytest.approx(-1 / math.log(chi), rel=0.1)


@pytest.mark.parametrize("norm", [lambda n: nn.Identity(), nn.BatchNorm1d])
def test_the_work_grows_with_the_number_of_ops_and_no_faster(norm: Callable[[int], nn.Module]) -> None:
    def calls(depth: int) -> float:
        graph, _ = capture(deep(nn.ReLU, depth, 16, norm).train(), (torch.zeros(8, 24),))
        count = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event == "call"

        predict(graph)  # what is remembered once is not counted
        sys.setprofile(note)
        try:
            predict(graph)
        finally:
            sys.setprofile(None)
        return count / len(graph.ops)

    assert calls(100) <= 1.05 * calls(10)
