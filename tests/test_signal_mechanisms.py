"""What single mechanisms do to gradients, each against real float64 backward passes of a small network."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlint.capture import capture
from gradlint.profile import Signal
from gradlint.signal import predict
from gradlint.signal.spectrum import divided, spectrum
from gradlint.signal.windows import windows


def errors(model: nn.Module, shape: tuple[int, ...], passes: int = 8) -> tuple[dict[str, float], Signal]:
    """Predicted minus measured log10 gradient RMS of every parameter whose gradient is not exactly zero."""
    random = torch.Generator().manual_seed(1)
    graph, _ = capture(model.train(), (torch.randn(*shape, generator=random),))
    signal = predict(graph)
    model, squares = model.double(), dict[str, float]()
    for _ in range(passes):
        model.zero_grad(set_to_none=True)
        y = model(torch.randn(*shape, generator=random).double())
        (y * torch.randn(y.shape, generator=random, dtype=y.dtype)).sum().backward()
        for name, param in model.named_parameters():
            if param.grad is not None:
                squares[name] = squares.get(name, 0.0) + float((param.grad**2).mean()) / passes
    largest = max(squares.values())
    real = {name: 0.5 * math.log10(square) for name, square in squares.items() if square > 1e-22 * largest}
    return {name: signal.profile.params[name] - value for name, value in real.items()}, signal


def conv(before: int, after: int, kernel: int, groups: int = 1, stride: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size, and a batch norm."""
    layer = nn.Conv2d(before, after, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out" if groups == 1 else "fan_in")
    return [layer, nn.BatchNorm2d(after)]


def head(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


def separable(act: Callable[[], nn.Module], blocks: int, width: int = 96) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [*conv(3, width, 3), act()]
    for _ in range(blocks):
        layers += [*conv(width, width, 3, groups=width), act(), *conv(width, width, 1), act()]
    return nn.Sequential(*layers, *head(width))


def worst(found: dict[str, float], kind: str) -> float:
    return max(abs(error) for name, error in found.items() if name.endswith(kind))


@pytest.mark.parametrize("size", [4, 8])
def test_a_norm_by_channel_evens_out_filters_of_nine_taps(size: int) -> None:
    model = separable(nn.ReLU, 4)
    found, _ = errors(model, (8, 3, size, size))
    matrices = [error for name, error in found.items() if dict(model.named_parameters())[name].ndim > 1]
    assert max(map(abs, matrices)) < 0.08
    assert abs(float(np.mean(matrices))) < 0.04


def test_a_later_norm_leaves_of_a_gain_what_its_epsilon_does() -> None:
    found, signal = errors(separable(nn.ReLU, 3), (8, 3, 8, 8))
    gain = "1.weight"  # its ReLU, its depthwise convolution and their norm undo any change of scale
    assert signal.profile.params[gain] < signal.profile.params["0.weight"] - 3.0
    assert abs(found[gain]) < 0.3


def test_zeros_around_a_map_lie_at_its_edges() -> None:
    """Padding that is an operation of its own, more after than before (TensorFlow's "same" at a stride of two)."""
    torch.manual_seed(0)
    around = nn.ZeroPad2d((1, 2, 1, 2))
    layers = [nn.Conv2d(3, 48, 3, padding=1), nn.ReLU(), around, nn.Conv2d(48, 48, 5, 2), nn.ReLU()]
    found, _ = errors(nn.Sequential(*layers, around, nn.Conv2d(48, 48, 5, 2), nn.ReLU(), *head(48)), (16, 3, 8, 8))
    assert max(abs(error) for name, error in found.items() if name.endswith("weight")) < 0.05


def test_zeros_around_a_map_keep_what_a_later_norm_leaves_of_a_gain() -> None:
    torch.manual_seed(0)
    deep = nn.Conv2d(32, 32, 5, 2, groups=32, bias=False)
    layers = [*conv(3, 32, 3), nn.ReLU(), nn.ZeroPad2d((1, 2, 1, 2)), deep, nn.BatchNorm2d(32), nn.ReLU()]
    found, signal = errors(nn.Sequential(*layers, *head(32)), (8, 3, 8, 8))
    gain = "1.weight"
    assert signal.profile.params[gain] < signal.profile.params["0.weight"] - 3.0
    assert abs(found[gain]) < 0.3


def test_one_tap_before_a_norm_has_next_to_no_gradient() -> None:
    torch.manual_seed(0)
    scale = nn.Conv2d(32, 32, 1, groups=32, bias=False)
    nn.init.normal_(scale.weight, 1.0, 0.2)
    model = nn.Sequential(*conv(3, 32, 3), nn.GELU(), scale, nn.BatchNorm2d(32), nn.GELU(), *conv(32, 32, 1), *head(32))
    found, signal = errors(model, (8, 3, 8, 8))
    assert signal.profile.params["3.weight"] < signal.profile.params["0.weight"] - 3.0
    assert abs(found["3.weight"]) < 0.3


def test_moments_fall_off_towards_padded_edges() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.BatchNorm2d(3)]
    for before in (3, *[64] * 9):
        layers += [*conv(before, 64, 3), nn.ReLU()]
    model = nn.Sequential(*layers, *head(64))
    found, _ = errors(model, (8, 3, 6, 6))
    matrices = [error for name, error in found.items() if dict(model.named_parameters())[name].ndim > 1]
    assert max(map(abs, matrices)) < 0.06


class Gated(nn.Module):
    """Squeeze and excitation before a maximum pool: the gradient goes to the largest entry, which is positive."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(*conv(3, 64, 3), nn.ReLU())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 64, 1), nn.Hardsigmoid())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.rest = nn.Sequential(*conv(64, 64, 3), nn.ReLU(), *head(64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.rest(self.pool(x * self.gate(x)))


def test_a_gated_rectifier_before_a_maximum_pool() -> None:
    found, _ = errors(Gated(), (8, 3, 16, 16))
    assert abs(found["stem.0.weight"]) < 0.1
    assert abs(found["rest.0.weight"]) < 0.1


class Tokens(nn.Module):
    """A batch norm over samples and tokens as one axis, and the mean over tokens after it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.place = nn.Parameter(torch.randn(1, 12, 64))
        self.first, self.norm = nn.Linear(16, 64), nn.BatchNorm1d(64)
        self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x.mean(1, keepdim=True)).expand(-1, 12, -1) + 0.3 * self.place
        x = self.norm(x.flatten(0, 1)).reshape_as(x)
        return self.head(torch.relu(self.second(x)).mean(1))


class Pooled(nn.Module):
    """A convolution whose mean over each map is taken off, and the mean over its positions, each normalised."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.inst = nn.Conv2d(3, 16, 3, padding=padding, bias=False), nn.InstanceNorm2d(16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.inst(self.conv(x)).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize("padding", [0, 1])
def test_tokens_of_unequal_energy_get_unequal_gradients_of_a_layer_norm(padding: int) -> None:
    """What tokens have in common is taken off below: that each was divided by a deviation of its own is left."""
    found, _ = errors(Pooled(padding), (8, 3, 12, 12), 12)
    assert abs(found["conv.weight"]) < 0.045


@pytest.mark.parametrize(("act", "bound"), [(nn.GELU, 0.15), (nn.ReLU, 0.04)])
def test_samples_of_unequal_energy_count_for_fewer_in_a_batch_norm(act: Callable[[], nn.Module], bound: float) -> None:
    """Of 32 samples a few hold most of the variance after 24 layers: 1/σ² varies more than for 32 alike."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(24):
        layer = nn.Linear(96, 96)
        nn.init.kaiming_normal_(layer.weight)
        layers += [layer, nn.BatchNorm1d(96), act()]
    found, _ = errors(nn.Sequential(*layers, nn.Linear(96, 10)), (32, 96), 6)
    assert abs(found["0.weight"]) < bound


def test_a_norm_over_samples_and_tokens_keeps_them_apart() -> None:
    found, _ = errors(Tokens(), (16, 12, 16))
    for name in ("first.weight", "second.weight", "head.weight"):
        assert abs(found[name]) < 0.1, name


def test_a_smooth_activation_sees_a_mixture_of_scales() -> None:
    found, _ = errors(separable(nn.Hardswish, 3, width=48), (8, 3, 8, 8))
    assert abs(float(np.mean([error for name, error in found.items() if name.endswith(".weight")]))) < 0.12


def test_the_spectrum_of_moments_by_shared_axes() -> None:
    values = np.array([[[0.1, 0.3], [0.2, 1.0]]])
    sizes = (4, 3)
    rows = [(a, b) for a in range(4) for b in range(3)]
    matrix = np.array([[values[0, int(a == c), int(b == d)] for c, d in rows] for a, b in rows])
    found = spectrum(values, sizes)
    assert np.allclose(found.moments(), values)
    repeated = np.repeat(found.values.reshape(-1), found.multiplicity.reshape(-1).astype(int))
    assert np.allclose(np.sort(repeated), np.linalg.eigvalsh(matrix))


def test_dividing_by_a_deviation_against_draws() -> None:
    values, sizes = np.array([[[0.3, 0.5], [0.3, 1.0]]]), (4, 3)
    rows = [(a, b) for a in range(4) for b in range(3)]
    matrix = np.array([[values[0, int(a == c), int(b == d)] for c, d in rows] for a, b in rows])
    draws = np.random.default_rng(0).multivariate_normal(np.zeros(12), matrix, size=40000)
    square = (draws**2).mean(1)
    moments, inflation = divided(values, sizes)
    assert float((1.0 / square).mean() * square.mean()) == pytest.approx(float(inflation[0]), rel=0.03)
    real = (draws / np.sqrt(square)[:, None]).T @ (draws / np.sqrt(square)[:, None]) / len(draws)
    for index, (a, b) in enumerate(rows):
        assert real[0, index] == pytest.approx(moments[0, int(a == 0), int(b == 0)], abs=0.02)


class Reading(nn.Module):
    """One attention layer after a norm, with weights of their own for queries, keys and values."""

    def __init__(self, *, causal: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.causal, self.norm, self.out = causal, nn.LayerNorm(32), nn.Linear(32, 32)
        self.q, self.k, self.v = (nn.Linear(32, 32) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        q, k, v = (layer(x).view(*x.shape[:2], 2, 16).transpose(1, 2) for layer in (self.q, self.k, self.v))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(y.transpose(1, 2).flatten(2))


@pytest.mark.parametrize("causal", [False, True])
def test_keys_and_values_of_one_token_vary_together(causal: bool) -> None:
    """The gradient of a query is the covariance of 64 tokens of 32 features times δ, no sum of 64 independent terms."""
    found, _ = errors(Reading(causal=causal), (16, 64, 32), 12)
    assert abs(found["q.weight"]) < 0.05
    assert abs(found["k.weight"]) < 0.05


def test_two_positions_of_a_padded_map_share_the_taps_that_both_have_in_bounds() -> None:
    (window,) = windows([4], [4], [3], [1], [1.0], [1])
    shared = np.array([[2, 2, 2, 1], [2, 3, 3, 2], [2, 3, 3, 2], [1, 2, 2, 2]]) / 3.0
    assert np.allclose(window.together(np.ones((4, 4))), shared)
    assert window.within(np.eye(4)) == 0.0


def test_entries_of_a_window_have_more_in_common_than_any_two_of_a_plain_network() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before in (3, 192, 192):
        for start in (before, 192, 192):
            layer = nn.Conv2d(start, 192, 3, padding=1)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
            nn.init.zeros_(layer.bias)
            layers += [layer, nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    found, _ = errors(nn.Sequential(*layers, nn.Flatten(), nn.Linear(768, 10)), (8, 3, 16, 16), 6)
    assert max(abs(error) for name, error in found.items() if name.endswith("weight")) < 0.05


class Joined(nn.Module):
    """One product with the parts of its bias side by side, of which one is read ten times as loud (BEiT's q and v)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(128, 32) / 6.0)
        self.quiet, self.loud = (nn.Parameter(torch.randn(64)) for _ in range(2))
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        both = nn.functional.linear(x, self.weight, torch.cat([self.quiet, self.loud]))
        quiet, loud = both.view(*x.shape[:-1], 2, 64).unbind(-2)
        return self.out(quiet + 10.0 * loud)


def test_parts_of_a_bias_get_the_gradient_of_their_own_outputs() -> None:
    found, _ = errors(Joined(), (16, 8, 32), 12)
    assert max(map(abs, found.values())) < 0.1


class Pooling(nn.Module):
    """PoolFormer's token mixer: the average over a window less the entry in its middle."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 64, 3, padding=1), nn.GroupNorm(1, 64)
        self.pool = nn.AvgPool2d(3, 1, padding=1, count_include_pad=False)
        self.head = nn.Sequential(nn.Conv2d(64, 64, 1), nn.ReLU(), *head(64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        return self.head(self.pool(x) - x)


def test_an_average_less_its_middle_is_one_map() -> None:
    found, _ = errors(Pooling(), (16, 3, 2, 2), 12)
    assert max(abs(error) for name, error in found.items() if name.endswith("weight")) < 0.06


@pytest.mark.parametrize("size", [2, 6])
def test_constants_vanish_in_an_average_less_its_middle(size: int) -> None:
    found, signal = errors(Pooling(), (16, 3, size, size), 4)
    assert signal.zeros.keys() == {"norm.bias"}
    assert "norm.bias" not in found and "stem.bias" in found


class Ghost(nn.Module):
    """Channels beside a depthwise convolution of themselves, and a norm by channel after all of them (GhostNet)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.cheap = nn.Sequential(*conv(3, 24, 3)), nn.Sequential(*conv(24, 24, 3, groups=24))
        self.deep, self.head = nn.Sequential(*conv(48, 48, 3, groups=48, stride=2)), nn.Sequential(*head(48))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.head(self.deep(torch.cat([x, self.cheap(x).relu()], 1)[:, :48]).relu())


def test_a_gain_that_norms_undo_on_every_way_has_next_to_no_gradient() -> None:
    found, signal = errors(Ghost(), (8, 3, 16, 16), 8)
    for gain in ("first.1.weight", "cheap.1.weight"):
        assert signal.profile.params[gain] < signal.profile.params["first.0.weight"] - 3.0
        assert abs(found[gain]) < 0.4


class Halfway(nn.Module):
    """A channel that a norm reads on one way and a product with others on the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.cheap = nn.Sequential(*conv(3, 48, 3)), nn.Sequential(*conv(48, 48, 3, groups=48))
        self.mix, self.head = nn.Sequential(*conv(96, 48, 1)), nn.Sequential(*head(48))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.head(self.mix(torch.cat([x, self.cheap(x).relu()], 1)).relu())


def test_a_gain_that_a_norm_undoes_on_one_way_keeps_the_share_of_the_other() -> None:
    found, _ = errors(Halfway(), (8, 3, 16, 16), 12)
    assert abs(found["first.1.weight"]) < 0.08
