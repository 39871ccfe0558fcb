"""Which of several rules speaks, where more than one could."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradlint.api import check


def said(model, inputs, loss):
    """The rules with a standing finding, in the order of the report."""
    return [f.rule for f in check(model, inputs, loss=loss).findings if f.verdict != "refuted"]


class Halved(nn.Module):
    """Divides by the spread of a constant."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(8, 4)

    def forward(self, x):
        return self.body(x) / torch.zeros_like(x).std(1, keepdim=True)


def test_a_loss_of_nan_is_no_large_loss():
    found = said(Halved(), torch.randn(16, 8), "ce")
    assert "not-finite" in found
    assert "high-initial-loss" not in found


class Residual(nn.Module):
    def __init__(self, std):
        super().__init__()
        self.body = nn.Linear(64, 64)
        nn.init.normal_(self.body.weight, std=std)

    def forward(self, x):
        return x + self.body(x)


@pytest.mark.parametrize(("std", "words"), [(1 / 8, "scaled by 1/√"), (1.0, "start too large")])
def test_scaling_by_depth_is_only_held_out_where_it_would_keep_the_signal(std, words):
    torch.manual_seed(0)
    model = nn.Sequential(*(Residual(std) for _ in range(32)), nn.Linear(64, 10))
    found = check(model, torch.randn(16, 64), loss="ce").findings
    (message,) = [f.message for f in found if f.rule == "unscaled-residual"]
    assert words in message


def test_large_inputs_are_told_as_the_cause_of_what_they_do():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3072, 256), nn.Tanh(), nn.Linear(256, 128), nn.Tanh(), nn.Linear(128, 10))
    for layer in model[::2]:
        nn.init.xavier_uniform_(layer.weight)
    found = {f.rule: f for f in check(model, 255 * torch.rand(32, 3072), loss="ce").findings}
    assert "input-scale" in found
    assert "saturated-units" not in found
    assert found["measured-exploding"].message.startswith("inputs of RMS 147")


class Signs(nn.Module):
    """Each sign hides the ones before it from the gradient."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.b(self.a(x).sign()).sign())


def test_what_one_function_cuts_off_is_one_finding_about_all_of_it():
    (found,) = [f for f in check(Signs(), torch.randn(16, 8), loss="ce").findings if f.rule == "broken-gradient"]
    assert found.message == "sign cuts 4 parameters off from the gradient, a.weight first, at 2 places"
    assert not any("broken-gradient" in words for words in found.folded)


def test_a_bias_that_switches_units_off_is_named():
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    nn.init.constant_(model[0].bias, -8.0)
    (found,) = [f for f in check(model, torch.randn(64, 16), loss="ce").findings if f.rule == "dead-units"]
    assert found.message == "32 of 32 units are off for every sample: 0.bias is -8 on average"


class Taken(nn.Module):
    """A learned factor that is read as a number."""

    def __init__(self):
        super().__init__()
        self.body, self.factor = nn.Linear(8, 4), nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.body(x) * self.factor.item()


def test_a_parameter_that_is_read_as_a_number_is_cut_off_and_not_unused():
    (found,) = check(Taken(), torch.randn(16, 8), loss="ce").findings
    assert found.message.startswith("item() takes 1 parameter out of the graph as a number, factor first")
