"""The signal unit by unit: deep and narrow networks without norms, held against real float64 backward passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from gradlint.signal.gate import Gate
from gradlint.signal.scalar import scalar_function
from gradlint.signal.spread import Spread, fresh
from gradlint.signal.taps import covering, sliding
from gradlint.signal.unit_norms import fitted
from gradlint.signal.unit_run import followed
from gradlint.signal.unit_scales import unitwise
from gradlint.signal.units import Units
from tests.test_signal import deep, measured, normal, predicted


class Skips(nn.Module):
    """A residual stack without norms: a gradient along x grows like x itself."""

    def __init__(self, act: type[nn.Module], depth: int, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head, self.act = nn.Linear(24, width), nn.Linear(width, 10), act()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = x + self.act(layer(x))
        return self.head(x)


def wide_of_he(act: type[nn.Module], depth: int, width: int) -> nn.Module:
    model = deep(act, depth, width)
    for module in model:
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    return model


def plain_cnn(act: type[nn.Module], depth: int, *, stride: int = 1, flat: bool = False) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 48, 3, padding=1), act()]
    for n in range(depth - 1):
        layers += [nn.Conv2d(48, 48, 3, stride if n == 0 else 1, padding=1), act()]
    side = -(-12 // stride)
    head = [nn.Flatten(), nn.Linear(48 * side * side, 10)] if flat else [Mean(), nn.Linear(48, 10)]
    return nn.Sequential(*layers, *head)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def check(
    model: nn.Module,
    draw: Callable[[torch.Generator], Tensor],
    loss: str = "unit",
    within: float = 0.12,
    *,
    vectors: bool = False,
) -> None:
    """Every matrix (and vector, if asked) within `within` decades; half of them within half of that."""
    graph, signal = predicted(model, draw, loss)
    assert followed(graph, loss, {}) is not None
    names = [name for name, param in model.named_parameters() if param.ndim > 1 or vectors]
    real = measured(model, draw, loss, 16)
    errors = np.array([signal.profile.params[name] - real[name] for name in names])
    assert np.abs(errors).max() < within, dict(zip(names, errors.round(3), strict=True))
    assert np.median(np.abs(errors)) < within / 2


@pytest.mark.parametrize(
    ("act", "loss"), [(nn.ReLU, "ce"), (nn.Sigmoid, "ce"), (nn.Tanh, "unit"), (nn.GELU, "mse"), (nn.SELU, "unit")]
)
def test_deep_and_narrow_networks(act: type[nn.Module], loss: str) -> None:
    check(deep(act, 24, 64), normal(64, 24), loss, within=0.2)


def test_the_weights_that_were_drawn_say_more_than_their_distribution() -> None:
    model = wide_of_he(nn.ReLU, 40, 48)
    check(model, normal(64, 24), within=0.25)


@pytest.mark.parametrize("act", [nn.ReLU, nn.Tanh])
def test_residual_stacks_without_norms(act: type[nn.Module]) -> None:
    check(Skips(act, 24, 64), normal(64, 24), within=0.2)


@pytest.mark.parametrize(
    ("stride", "flat", "loss"), [(1, False, "unit"), (2, False, "ce"), (1, True, "unit"), (2, True, "ce")]
)
def test_convolutions_whose_padding_eats_the_border(stride: int, flat: bool, loss: str) -> None:
    check(plain_cnn(nn.ReLU, 8, stride=stride, flat=flat), normal(8, 3, 12, 12), loss, within=0.2)


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([nn.ReLU, nn.Tanh, nn.SELU, nn.LeakyReLU]),
    st.integers(3, 24),
    st.sampled_from([48, 64, 160]),
    st.sampled_from(["unit", "ce"]),
)
def test_any_network_without_norms(act: type[nn.Module], depth: int, width: int, loss: str) -> None:
    check(deep(act, depth, width), normal(64, 24), loss, within=0.25)


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize(("act", "loss"), [(nn.ReLU, "ce"), (nn.Tanh, "unit"), (nn.GELU, "mse"), (nn.Sigmoid, "ce")])
def test_norms_over_the_features(norm: type[nn.Module], act: type[nn.Module], loss: str) -> None:
    check(spread_gains(deep(act, 24, 64, norm)), normal(64, 24), loss, within=0.2, vectors=True)


def spread_gains(model: nn.Module) -> nn.Module:
    """The model with gains and shifts of the norms that differ from unit to unit."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            if isinstance(module, nn.LayerNorm):
                nn.init.uniform_(module.bias, -0.3, 0.3)
    return model


def test_what_a_norm_sends_back_neither_shifts_nor_scales_its_input() -> None:
    random = np.random.default_rng(0)
    norm = fitted(Units(random.standard_normal(16), np.zeros(16), np.zeros(16), 1), np.ones(16), 0.0, centred=True)
    given = Spread(random.standard_normal(16), random.standard_normal((16, 4)), fresh(4), random.random(16))
    back = norm.backward(given)
    columns = np.column_stack([back.mean, back.factor])
    assert columns.sum(0) == pytest.approx(0.0, abs=1e-9)
    assert norm.mean @ columns == pytest.approx(0.0, abs=1e-9)
    assert back.rest == pytest.approx(0.0, abs=1e-12)


def test_a_norm_over_positions_or_a_batch_is_not_followed_unit_by_unit() -> None:
    model = nn.Sequential(nn.Linear(24, 32), nn.LayerNorm((8, 32)), nn.Linear(32, 4))
    graph, signal = predicted(model, normal(16, 8, 24))
    assert followed(graph, "unit", {}) is None
    assert "0.weight" in signal.profile.params


@pytest.mark.parametrize("depth", [12, 32])
def test_samples_that_part_ways_in_scale(depth: int) -> None:
    """GELU at He's scale makes large samples grow over small ones: one scale for all is decades off."""
    model, draw = wide_of_he(nn.GELU, depth, 64), normal(64, 24)
    graph, signal = predicted(model, draw)
    names = [name for name, param in model.named_parameters() if param.ndim > 1]
    real, stated = measured(model, draw, "unit", 16), signal.profile.spread
    errors = {name: signal.profile.params[name] - real[name] for name in names}
    run = followed(graph, "unit", {})
    assert run is not None
    alone = np.array([run.found().params[name] - real[name] for name in names])
    assert np.abs([*errors.values()]).max() < np.abs(alone).max()
    assert all(abs(error) < 2.0 * stated[name] for name, error in errors.items()), errors


def test_one_scale_stands_for_all_where_nothing_makes_them_part() -> None:
    graph, _ = predicted(deep(nn.Tanh, 12, 48), normal(64, 24))
    run, found = followed(graph, "unit", {}), unitwise(graph, "unit", {})
    assert run is not None and found is not None
    assert found.params == run.found().params and not found.scatter


def test_an_unknown_loss_leaves_the_prediction_over_all_weights() -> None:
    graph, signal = predicted(deep(nn.ReLU, 4, 32), normal(16, 24), "bce")
    assert followed(graph, "bce", {}) is None
    assert "0.weight" in signal.profile.params or signal.unknown


@pytest.mark.parametrize("name", ["relu", "gelu", "tanh", "sigmoid", "elu", "selu"])
def test_moments_per_unit(name: str) -> None:
    function = scalar_function(name, {})
    assert function is not None
    random = np.random.default_rng(0)
    mean, shared, local = np.array([-1.0, 0.0, 0.7]), np.array([0.0, 0.5, 2.0]), np.array([1.0, 0.3, 9.0])
    units = Units(mean, shared, local, 4)
    common = mean + np.sqrt(shared) * random.standard_normal((200_000, 3))
    here, there = (common + np.sqrt(local) * random.standard_normal(common.shape) for _ in range(2))
    first, pair, second = units.through(function).moments
    assert first == pytest.approx(function.value(here).mean(0), abs=0.02)
    assert pair == pytest.approx((function.value(here) * function.value(there)).mean(0), abs=0.03)
    assert second == pytest.approx((function.value(here) ** 2).mean(0), rel=0.02, abs=0.01)
    slope = Gate(units, function).moments
    assert slope.first == pytest.approx(function.slope(here).mean(0), abs=0.01)
    assert slope.second == pytest.approx((function.slope(here) ** 2).mean(0), abs=0.03)


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 1, 1), (3, 2, 1), (2, 2, 0), (5, 1, 0)])
def test_a_kernel_of_gradients_goes_back_as_through_a_random_filter(kernel: int, stride: int, pad: int) -> None:
    size, random = 9, np.random.default_rng(1)
    after = (size + 2 * pad - kernel) // stride + 1
    taps = sliding([size], [after], [kernel], [stride], [pad], [1])
    arrived = random.standard_normal((after, 5))
    filters = torch.tensor(random.standard_normal((1, 4000, kernel)))
    back = torch.nn.functional.conv_transpose1d(
        torch.tensor(arrived.T[:, None]), filters, stride=stride, padding=pad
    ).numpy()
    back = np.pad(back, ((0, 0), (0, 0), (0, size - back.shape[2])))
    real = np.einsum("scp,scq->pq", back, back) / 4000 / kernel
    found = taps.lines[0].carried(arrived @ arrived.T)
    assert found == pytest.approx(real, abs=0.1 * np.abs(real).max())


def test_a_layer_over_flattened_positions_has_one_tap_for_each() -> None:
    taps = covering((3, 4))
    assert (taps.before, taps.after, len(taps.share)) == (12, 1, 12)
    assert taps.hits == pytest.approx(np.full(12, 1 / 12))
    kernels, _ = taps.carried(())
    assert math.prod(float(kernel.diagonal().mean()) for kernel in kernels) == pytest.approx(12)


def test_gradients_that_carry_the_same_random_number_add_coherently() -> None:
    factor, columns = np.ones((2, 1)), fresh(1)
    one = Spread(np.zeros(2), factor, columns, np.zeros(2))
    other = Spread(np.zeros(2), factor, fresh(1), np.zeros(2))
    assert (one + one).own == pytest.approx([4.0, 4.0])
    assert (one + other).own == pytest.approx([2.0, 2.0])
