"""What a later norm by channel undoes of earlier scales and shifts, against real float64 backward passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.signal import table as tables
from gradlint.signal.undone import Reading
from gradlint.signal.windows import windows
from tests.test_signal_mechanisms import conv, errors, head


class Stream(nn.Module):
    """A branch of norms, small beside the stream that it is added to, which single channels of a filter read."""

    def __init__(self, scale: float = 1e-3, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(*conv(3, width, 3), nn.GELU())
        self.norm, self.filter = nn.BatchNorm2d(width), nn.Sequential(*conv(width, width, 3, groups=width))
        tap = nn.Conv2d(width, width, 1, groups=width, bias=False)
        nn.init.uniform_(tap.weight, -1.0, 1.0)
        self.tap = nn.Sequential(tap, nn.BatchNorm2d(width))
        self.gain = nn.Parameter(torch.full((width, 1, 1), scale))
        self.read = nn.Conv2d(width, 2 * width, 5, 2, 2, groups=width, bias=False)
        self.after = nn.Sequential(nn.BatchNorm2d(2 * width), nn.GELU(), *conv(2 * width, 48, 1), nn.GELU(), *head(48))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.after(self.read(x + self.gain * (self.filter(x) + self.tap(x) + self.norm(x))))


def test_of_a_gain_on_the_stream_itself_only_what_its_mean_does_is_left() -> None:
    found, signal = errors(Stream(), (8, 3, 16, 16))
    predicted = signal.profile.params
    assert predicted["norm.weight"] < predicted["filter.1.weight"] - 0.4
    for name in ("norm.weight", "tap.1.weight", "filter.1.weight"):
        assert abs(found[name]) < 0.1, name


class Ghost(nn.Module):
    """Channels beside what single channels of a filter make of them, read together by single channels of another."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.own = nn.Sequential(*conv(3, width, 3), nn.Hardswish())
        self.cheap = nn.Sequential(*conv(width, width, 3, groups=width), nn.Hardswish())
        self.read = nn.Sequential(*conv(2 * width, 2 * width, 5, groups=2 * width, stride=2), nn.ReLU())
        self.head = nn.Sequential(*head(2 * width))

    def forward(self, x: Tensor) -> Tensor:
        own = self.own(x)
        return self.head(self.read(torch.cat([own, self.cheap(own)], 1)))


def test_what_zeros_leave_of_a_shift_in_channels_side_by_side() -> None:
    found, _ = errors(Ghost(), (8, 3, 4, 4), passes=16)
    for name in ("own.1.bias", "cheap.1.bias"):
        assert abs(found[name]) < 0.1, name


def test_what_zeros_around_a_map_leave_of_a_shift() -> None:
    found, _ = errors(Stream(), (8, 3, 16, 16))
    for name in ("norm.bias", "tap.1.bias", "filter.1.bias", "stem.1.bias"):
        assert abs(found[name]) < 0.1, name


def test_a_branch_as_large_as_the_stream_keeps_its_gain() -> None:
    found, _ = errors(Stream(scale=0.5), (8, 3, 16, 16))
    for name in ("norm.weight", "tap.1.weight", "filter.1.weight"):
        assert abs(found[name]) < 0.15, name


def test_a_few_taps_near_zero_make_up_the_gradient_before_a_norm() -> None:
    _, signal = errors(Stream(), (8, 3, 16, 16), passes=1)
    spread = signal.profile.spread
    assert spread["tap.0.weight"] > 1.5 * spread["tap.1.weight"]


def test_the_sum_that_zeros_around_a_map_leave_by_draws() -> None:
    random = torch.Generator().manual_seed(0)
    edge = torch.tensor([0.2, 0.6, 1.2, 1.4, 1.6, 1.4, 1.2, 0.4], dtype=torch.float64)
    profile = torch.outer(edge, edge).sqrt()
    delta = torch.randn(4096, 1, 8, 8, generator=random, dtype=torch.float64) * profile
    delta -= delta.mean((1, 2, 3), keepdim=True)
    taps = torch.randn(4096, 1, 5, 5, generator=random, dtype=torch.float64)
    back = F.conv_transpose2d(delta.transpose(0, 1), taps, padding=2, groups=4096).transpose(0, 1)
    window = windows([8], [8], [5], [1], [2.0], [1])[0]
    found = Reading([np.array(window.inside)] * 2, [window.kept(edge.numpy() / float(edge.mean()))] * 2)
    given = tables.constant(tables.dims_of((64, 1, 8, 8), batch=0), 1.0)
    measured = float(back.sum((1, 2, 3)).square().mean() / back.square().sum((1, 2, 3)).mean())
    assert found.left(given) / found.kept == pytest.approx(measured, rel=0.08)


def test_a_norm_after_patches_takes_the_whole_shift_before_it() -> None:
    torch.manual_seed(0)
    patches = [*conv(3, 64, 3), nn.GELU(), nn.BatchNorm2d(64), nn.Conv2d(64, 96, 2, 2, bias=False), nn.BatchNorm2d(96)]
    mix = [nn.GELU(), *conv(96, 96, 3), nn.GELU()]
    found, signal = errors(nn.Sequential(*patches, *mix, *head(96)), (8, 3, 16, 16))
    assert "3.bias" not in found
    assert signal.profile.params["3.bias"] == float("-inf")
    assert signal.profile.params["5.bias"] > -10.0
