"""Which inputs carry a signal, and which only mix or weigh what was made of others."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradlint.api import check
from gradlint.capture import capture
from gradlint.graph.mixing import mixing


class Layers(nn.Module):
    """Two linear maps and a function of them and the inputs."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 36)
        self._run = forward

    def forward(self, *args):
        return self._run(self, *args)


def normalised(adj):
    adj = adj + torch.eye(len(adj))
    return adj / adj.sum(1, keepdim=True)


X, ADJ = torch.randn(6, 6), torch.rand(6, 6)
CASES = {
    "an adjacency after each layer": (lambda m, x, adj: adj @ m.b((adj @ m.a(x)).relu()), {1}),
    "one that the model normalises": (lambda m, x, adj: (n := normalised(adj)) @ m.b((n @ m.a(x)).relu()), {1}),
    "one before each layer": (lambda m, x, adj: m.b(adj @ m.a(adj @ x).relu()), {1}),
    "a mask": (lambda m, x, mask: m.b(m.a(x) * mask), {1}),
    "a gated input": (lambda m, x: m.b(x * m.a(x).sigmoid()), set()),
    "both gated": (lambda m, x, z: m.b(x * m.a(z).sigmoid()), {0}),
    "a residual": (lambda m, x, z: m.b(x + m.a(z)), set()),
    "a bilinear form of inputs": (lambda m, x, z: m.a(x @ z), set()),
    "an input under generated weights": (lambda m, x, z: m.c(z).view(6, 6, 6) @ x.unsqueeze(-1), {0}),
    "two views": (lambda m, x, z: m.a(x) @ m.a(z).mT, set()),
}


@pytest.mark.parametrize("name", CASES)
def test_an_input_mixes_that_only_multiplies_what_weights_made_of_another(name):
    forward, expected = CASES[name]
    count = forward.__code__.co_argcount - 1
    graph, _ = capture(Layers(forward), (X, ADJ)[:count])
    assert {graph.inputs.index(value) for value in mixing(graph)} == expected


class Graphs(nn.Module):
    """Sigmoid graph convolutions, each of which reads the adjacency."""

    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(depth)])
        self.last = nn.Linear(16, 4)

    def forward(self, x, adj):
        for layer in self.layers:
            x = torch.sigmoid(adj @ layer(x))
        return self.last(x)


def test_a_gradient_that_is_lost_over_graph_convolutions_is_lost_although_each_reads_the_graph():
    graph = normalised((torch.rand(40, 40) < 0.1).float())
    found = check(Graphs(12), (torch.randn(40, 16), graph)).findings
    assert "error" in {f.severity for f in found if f.family in ("vanishing", "init")}
    assert not check(Graphs(1), (torch.randn(40, 16), graph)).findings
