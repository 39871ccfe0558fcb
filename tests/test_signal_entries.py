"""What single entries and channels keep of each other: few taps, gains by channel, windows that overlap, reuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlint.capture import capture
from gradlint.signal import predict
from gradlint.signal.channels import gained, shifted
from gradlint.signal.edges import through
from gradlint.signal.few_taps import _reading, _shares, in_reach
from gradlint.signal.kernels import SCORES
from gradlint.signal.rows import spread_further
from gradlint.signal.table import Table, dims_of
from gradlint.signal.transfer_maximum import overlap_covariance
from tests.test_signal_mechanisms import conv, errors, head


def weights_off(model: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    """Errors (decades) of the parameters of more than one axis."""
    found, _ = errors(model, shape)
    sizes = {name: param.ndim for name, param in model.named_parameters()}
    return {name: error for name, error in found.items() if sizes[name] > 1}


@pytest.mark.parametrize("taps", [2, 9, 25])
def test_shares_of_a_row_are_those_of_gaussian_weights(taps: int) -> None:
    share, weight = _shares(taps)
    assert np.isclose(share @ weight, 3.0 / (taps + 2.0), rtol=0.01)


def test_what_a_tap_keeps_of_its_output_against_draws() -> None:
    random, taps, slope = np.random.default_rng(0), 9, 0.4
    tilt = 1.0 + slope * (SCORES**2 - 1.0)
    draws = random.normal(size=(400_000, taps))
    rho = draws / np.linalg.norm(draws, axis=1, keepdims=True)
    x = random.normal(size=rho.shape)
    z = (rho * x).sum(1)
    own = rho[:, 0] ** 2 * taps
    for low, high in ((0.0, 0.5), (1.5, 2.0)):
        inside = (np.abs(x[:, 0]) >= low) & (np.abs(x[:, 0]) < high)
        measured = float((own * np.interp(z, SCORES, tilt))[inside].mean() / own[inside].mean())
        at = np.abs(x[inside, 0]).mean()
        predicted = float(np.interp(at, np.linspace(-8.0, 8.0, 65), _reading(float(taps)) @ tilt))
        assert abs(predicted - measured) < 0.04


def test_taps_out_of_reach_make_channels_differ_more() -> None:
    assert in_reach([1.0, 1.0, 1.0]) == pytest.approx(3.0)
    assert in_reach([0.0, 0.5, 1.0, 0.5, 0.0]) == pytest.approx(8.0 / 3.0)
    random = np.random.default_rng(0)
    weights = random.normal(size=(20_000, 25))
    energy, part = (weights**2).sum(1), (weights[:, :9] ** 2).sum(1)
    spread = spread_further(energy, 9 / 25)
    assert np.isclose((spread.mean() * (1.0 / spread)).mean(), (part.mean() * (1.0 / part)).mean(), rtol=0.08)
    model = nn.Sequential(*conv(3, 32, 3, stride=4), nn.ReLU(), *conv(32, 32, 5, groups=32), nn.ReLU(), *head(32))
    assert abs(weights_off(model, (16, 3, 8, 8))["0.weight"]) < 0.1


@pytest.mark.parametrize(("count", "shared"), [(9.0, 3.0), (4.0, 1.0), (9.0, 9.0)])
def test_maxima_of_windows_that_overlap_against_draws(count: float, shared: float) -> None:
    random, alone = np.random.default_rng(0), int(count - shared)
    common = random.normal(size=(200_000, int(shared))).max(1)
    first, second = (
        np.maximum(common, random.normal(size=(200_000, alone)).max(1)) if alone else common for _ in range(2)
    )
    measured = float(np.cov(first, second)[0, 1])
    assert overlap_covariance(count, shared) == pytest.approx(measured, abs=0.01)


class Joined(nn.Module):
    """Two rectified branches side by side under a maximum pool."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(*conv(3, 64, 3), nn.ReLU())
        self.left = nn.Sequential(*conv(64, 48, 1), nn.ReLU())
        self.right = nn.Sequential(*conv(64, 80, 3), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2)
        self.rest = nn.Sequential(*conv(128, 64, 3), nn.ReLU(), *head(64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.rest(self.pool(torch.cat([self.left(x), self.right(x)], 1)))


def test_branches_side_by_side_keep_their_law_under_a_maximum() -> None:
    model = Joined().train()
    graph, _ = capture(model, (torch.randn(8, 3, 16, 16),))
    largest = next(op for op in graph.ops if op.kind == "pool" and op.function == "max")
    predicted = predict(graph).profile.activation[largest.outputs[0]]
    measured: list[float] = []
    model.pool.register_forward_hook(lambda module, given, y: measured.append(float((y.detach().double() ** 2).mean())))
    model(torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    assert predicted == pytest.approx(0.5 * math.log10(measured[0]), abs=0.02)


class Branches(nn.Module):
    """A 3×3 and a 1×1 branch and the identity, each with a batch norm whose gains and biases vary by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Sequential(*conv(64, 64, 3)), nn.Sequential(*conv(64, 64, 1))
        self.same = nn.BatchNorm2d(64)
        for norm in (self.large[1], self.small[1], self.same):
            nn.init.normal_(norm.weight, 0.1, 0.1)
            nn.init.normal_(norm.bias, 0.0, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.large(x) + self.small(x) + self.same(x))


def test_gains_by_channel_make_channels_differ() -> None:
    torch.manual_seed(0)
    blocks = [Branches() for _ in range(4)]
    model = nn.Sequential(*conv(3, 64, 3), nn.ReLU(), *blocks, *conv(64, 64, 3), nn.ReLU(), *head(64))
    found = weights_off(model, (8, 3, 8, 8))
    assert max(map(abs, found.values())) < 0.12, found


def test_a_class_for_every_channel_against_draws() -> None:
    random = np.random.default_rng(0)
    gain, shift = np.array([0.1, 1.0, 2.0]), np.array([0.5, 0.0, -1.0])
    common = random.normal(size=(200_000, 1))
    x = math.sqrt(0.3) * common + math.sqrt(0.7) * random.normal(size=(200_000, 3))
    table = Table(dims_of((3,)), np.array([[0.3, 1.0]]))
    found = shifted(gained(table, 0, gain), 0, shift)
    moments = (x * gain + shift).T @ (x * gain + shift) / len(x)
    assert found.squares == pytest.approx(moments.diagonal(), abs=0.02)
    apart = (moments.sum(0) - moments.diagonal()) / 2.0
    assert found.values[:, 0] == pytest.approx(apart, abs=0.02)


def separable(depth: int, width: int) -> list[nn.Module]:
    """Hardswish between depthwise and pointwise convolutions."""
    torch.manual_seed(0)
    layers = [*conv(3, width, 3), nn.Hardswish()]
    for _ in range(depth):
        layers += [*conv(width, width, 3, groups=width), nn.Hardswish(), *conv(width, width, 1), nn.Hardswish()]
    return layers


def test_gradients_through_few_taps_depend_on_the_entry() -> None:
    found = weights_off(nn.Sequential(*separable(3, 48), *head(48)), (8, 3, 16, 16))
    assert max(map(abs, found.values())) < 0.15, found


class Again(nn.Module):
    """h + f(h) − h for a normalised h: what is in a sum twice is not two independent parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Sequential(*conv(3, 32, 3)), nn.BatchNorm2d(32)
        self.inner = nn.Sequential(*conv(32, 32, 3))
        self.head = nn.Sequential(*head(32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return self.head(self.norm(x) + self.inner(x) - self.norm(x))


def test_what_cancels_in_a_sum_is_gone() -> None:
    graph, _ = capture(Again().train(), (torch.randn(8, 3, 8, 8),))
    signal = predict(graph)
    difference = next(op for op in graph.ops if op.function == "sub")
    assert signal.profile.activation[difference.outputs[0]] == pytest.approx(0.0, abs=0.01)


class Squeezed(nn.Module):
    """A gate that is computed from the mean over the positions of what it gates, where samples differ in size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(*separable(5, 24), *conv(24, 64, 3, stride=2), nn.Hardswish())
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(64, 64, 1), nn.ReLU(), nn.Conv2d(64, 64, 1))
        self.rest = nn.Sequential(*conv(64, 64, 1), nn.Hardswish(), *head(64))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.rest(x * torch.sigmoid(self.gate(x)))


def test_samples_of_different_size_under_a_gate() -> None:
    found = weights_off(Squeezed(), (8, 3, 8, 8))
    assert abs(found["stem.0.weight"]) < 0.15, found
    assert max(abs(found[name]) for name in ("gate.1.weight", "gate.3.weight")) < 0.15, found


def test_a_function_along_the_edges_of_a_map() -> None:
    level, edges = through((np.array([0.5, 1.5]), np.array([1.0, 1.0])), lambda e: e**2)
    assert level == pytest.approx((0.25 + 2.25) / 2.0, rel=0.02)
    assert edges[0] == pytest.approx(np.array([0.2, 1.8]), rel=0.02)
    assert through((np.ones(4), np.ones(4)), lambda e: math.nan) == (1.0, ())
