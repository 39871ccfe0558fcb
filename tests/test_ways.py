"""The ways of a gradient: accumulated losses by one pass, held against every route enumerated and a real backward."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

import gradlint
from gradlint.capture import capture
from gradlint.graph import Graph
from gradlint.profile import Profile
from gradlint.report.json import document
from gradlint.signal import predict
from gradlint.ways import steps, ways, ways_to_parameter


class Skips(nn.Module):
    def __init__(self, blocks: int, scale: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.head = nn.Linear(16, 64), nn.Linear(64, 4)
        self.blocks = nn.ModuleList(nn.Linear(64, 64) for _ in range(blocks))
        for block in self.blocks:
            nn.init.normal_(block.weight, 0.0, scale / 8.0)

    def forward(self, x: Tensor, keep: str = "both") -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            y = torch.tanh(block(x.detach() if keep == "skip" else x))
            x = (x.detach() if keep == "block" else x) + y
        return self.head(x)


def predicted(model: nn.Module) -> tuple[Graph, Profile]:
    graph, _ = capture(model, (torch.randn(32, 16),))
    return graph, predict(graph).profile


def routes(graph: Graph, profile: Profile, value: int) -> list[float]:
    """What accumulates along every single way."""
    known = steps(graph, profile)[value]
    if not known:
        return [0.0]
    return [step.decades + rest for step in known for rest in routes(graph, profile, graph.ops[step.op].outputs[0])]


def output_of(graph: Graph, module: str) -> int:
    return next(op.outputs[0] for op in graph.ops if op.module_path == module)


@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_the_bounds_are_those_of_all_ways(scale: float) -> None:
    graph, profile = predicted(Skips(6, scale))
    value = output_of(graph, "first")
    found, every = ways(graph, profile, value), routes(graph, profile, value)
    assert len(every) == 2**6
    assert found.least == pytest.approx(min(every)) and found.greatest == pytest.approx(max(every))
    assert found.least < found.greatest and found.least <= found.strongest <= found.greatest


def test_along_a_chain_what_accumulates_is_the_change_of_the_gradient() -> None:
    graph, profile = predicted(nn.Sequential(nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 32), nn.Linear(32, 4)))
    found = ways(graph, profile, output_of(graph, "0"))
    change = profile.gradient[output_of(graph, "0")] - profile.gradient[output_of(graph, "3")]
    assert found.strongest == found.least == found.greatest == pytest.approx(change)
    assert ways_to_parameter(graph, profile, "0.weight") == (found,)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_the_shares_at_a_merge_are_those_of_a_backward_pass(scale: float) -> None:
    model = Skips(1, scale)
    graph, profile = predicted(model)
    value = output_of(graph, "first")
    real = {}
    for keep in ("skip", "block"):
        model.zero_grad()
        total = 0.0
        for seed in range(20):
            torch.manual_seed(seed)
            out = model(torch.randn(32, 16), keep)
            (grad,) = torch.autograd.grad((out * torch.randn(32, 4)).sum(), model.first.bias)
            total += float((grad**2).sum())
        real[keep] = total
    shares = ways(graph, profile, value).shares
    by_kind = {graph.ops[op].kind: share for op, share in shares.items()}
    assert math.isclose(sum(shares.values()), 1.0)
    assert by_kind["add"] == pytest.approx(real["skip"] / sum(real.values()), abs=0.1)


def test_a_shared_parameter_has_the_ways_of_each_use() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(16, 16)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.sigmoid(self.layer(x)))

    graph, profile = predicted(Twice())
    first, last = ways_to_parameter(graph, profile, "layer.weight")
    assert first.strongest < last.strongest == 0.0


def test_the_report_shows_them_beside_every_layer() -> None:
    (target,) = document(gradlint.check(Skips(3), torch.randn(8, 16), loss="mse"))["targets"]
    assert json.dumps(target)
    (row,) = (layer for layer in target["layers"] if layer["module"] == "first")
    assert row["ways"]["least"] < row["ways"]["strongest"] <= row["ways"]["greatest"]
    assert sum(way["share"] for way in row["ways"]["shares"]) == pytest.approx(1.0)
    (last,) = (layer for layer in target["layers"] if layer["module"] == "head")
    assert last["ways"] is None
