"""Which of several rules speaks, where more than one could."""

from __future__ import annotations

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
