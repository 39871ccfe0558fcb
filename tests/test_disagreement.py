"""A disagreement of prediction and probe is itself reported, with the op where the two part."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from gradlint.capture import capture
from gradlint.disagreement import disagreement
from gradlint.graph import Graph
from gradlint.profile import Profile
from gradlint.signal import predict


def predicted() -> tuple[Graph, Profile]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    graph, _ = capture(model, (torch.randn(16, 8),))
    return graph, predict(graph).profile


def test_agreement_says_nothing() -> None:
    graph, profile = predicted()
    assert disagreement(graph, profile, profile) == ()
    near = replace(profile, gradient={value: size + 0.3 for value, size in profile.gradient.items()})
    assert disagreement(graph, profile, near) == ()


def test_the_op_nearest_the_loss_is_named() -> None:
    graph, profile = predicted()
    changed = {op.outputs[0]: profile.gradient[op.outputs[0]] - 2.0 for op in graph.ops[:3]}
    (line,) = disagreement(graph, profile, replace(profile, gradient={**profile.gradient, **changed}))
    assert line.startswith("prediction and measurement part at 2, linear")
    assert "2.0 decades apart" in line
    assert line.endswith("so do 2 of 4 other operations")


def test_what_is_not_known_or_exactly_zero_is_not_compared() -> None:
    graph, profile = predicted()
    assert disagreement(graph, profile, Profile()) == ()
    zero = dict.fromkeys(profile.gradient, float("-inf"))
    assert disagreement(graph, profile, replace(profile, gradient=zero)) == ()
