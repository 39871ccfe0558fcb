"""What a narrower number format loses is measured against full precision, and what a loss scale saves, too."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gradlint.error import UsageError
from gradlint.formats import format_run
from gradlint.probe import measure
from gradlint.probe.measurement import Fallback
from gradlint.probe.operands import rounded
from gradlint.probe.precision import fitting


def compared(model, x, dtype, **options):
    settings = Fallback(device="cpu", loss="unit", dtype=dtype)
    loaded = SimpleNamespace(
        model=model, args=(x,), kwargs={}, loss=None, loss_hint=None, rebuild=None, draw=lambda _: ((x,), {})
    )
    return measure(loaded, settings=settings, **options)


class Scaled(nn.Module):
    """Scales the activation by one factor and the gradient by another."""

    def __init__(self, forward=1.0, backward=1.0):
        super().__init__()
        self.factors = forward, backward

    def forward(self, x):
        return _Scale.apply(x, *self.factors)


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.backward_factor = backward
        return x * forward

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.backward_factor, None, None


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


X = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))


def net(forward=1.0, backward=1.0, image=False):
    if image:
        return nn.Sequential(nn.Conv2d(1, 8, 3), Scaled(forward, backward), nn.Conv2d(8, 4, 1), nn.Flatten())
    return nn.Sequential(nn.Linear(16, 16), Scaled(forward, backward), nn.Linear(16, 4))


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp8"])
@pytest.mark.parametrize("image", [False, True])
def test_a_net_of_unit_scale_loses_nothing(dtype, image):
    x = torch.randn(4, 1, 8, 8) if image else X
    graph, measured = compared(net(image=image), x, dtype)
    found = measured.precision
    assert found.dtype == {"bf16": "bfloat16", "fp16": "float16", "fp8": "float8"}[dtype]
    assert found.lost < 1e-3
    assert (found.overflow_op, found.overflow_gradient_op, found.loss_scale) == (None, None, None)
    assert max(map(abs, found.changes.values())) < 0.05
    assert format_run(graph, found).hit == 0


@pytest.mark.parametrize("image", [False, True])
def test_an_underflow_in_float16_is_saved_by_the_loss_scale_that_is_named(image):
    x = torch.randn(4, 1, 8, 8) if image else X
    graph, measured = compared(net(backward=1e-9, image=image), x, "fp16")
    found = measured.precision
    assert found.params["0.weight"] > 0.9
    assert found.params["2.weight"] == 0.0
    run = format_run(graph, found)
    assert (run.hit, run.worst[:2], run.scaled_hit) == (2, "0.", 0)
    assert found.lost_scaled < 0.05 < found.lost
    assert found.scaled_overflow_op is None
    assert found.loss_scale > 1000
    assert measured.params["0.weight"].status == "ok"  # full precision itself


def test_bfloat16_has_the_range_of_single_precision():
    found = compared(net(backward=1e-9), X, "bf16")[1].precision
    assert found.lost == 0.0
    assert found.loss_scale is None


def test_an_activation_beyond_float16_is_named_and_no_scale_is_offered():
    graph, measured = compared(net(forward=1e6), X, "fp16")
    found = measured.precision
    assert graph.ops[found.overflow_op].module_path == "1"
    assert found.loss_scale is None
    assert min(found.headroom.values()) < 0
    assert measured.nonfinite_op is None


def test_a_gradient_beyond_float16_asks_for_a_scale_below_one():
    found = compared(net(backward=1e5), X, "fp16")[1].precision
    assert found.overflow_gradient_op is not None
    assert found.loss_scale < 1
    assert found.scaled_overflow_op is None
    assert min(found.gradient_headroom.values()) < 0


def test_eight_bits_lose_what_lies_far_below_the_largest_entry():
    x = torch.tensor([[1.0, 1e-4, 1e-12, 0.0]])
    assert rounded(x, torch.float8_e5m2).tolist() == [[1.0, pytest.approx(1e-4, rel=0.13), 0.0, 0.0]]
    assert rounded(torch.zeros(2, 2), torch.float8_e5m2).tolist() == [[0.0, 0.0], [0.0, 0.0]]
    model = nn.Sequential(nn.Linear(16, 4), nn.Flatten())
    spread = torch.logspace(0, -30, 8).unsqueeze(1)

    class Spread(nn.Module):
        def forward(self, y):
            return y * spread

    found = compared(nn.Sequential(*model, Spread()), X, "fp8")[1].precision
    assert max(found.underflow.values()) > 0.5


def test_the_scale_is_the_largest_power_of_two_that_fits():
    assert fitting([0.0], torch.float16) == 2.0**14  # 16384 · 1 < 65504 / 2 < 32768 · 1
    assert fitting([-20.0], torch.float16) == 2.0**24
    assert fitting([], torch.float16) == 2.0**14


def test_the_model_and_the_random_state_are_left_alone():
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    compared(model, X, "fp16")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not torch.is_autocast_enabled("cpu")


def test_another_format_is_refused():
    with pytest.raises(UsageError, match="unknown number format"):
        compared(net(), X, "int4")
