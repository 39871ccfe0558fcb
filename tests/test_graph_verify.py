"""Each invariant of a graph, broken on purpose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from gradlint.capture import capture
from gradlint.graph.verify import verify


@pytest.fixture(scope="module")
def graph():
    return capture(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), (torch.randn(2, 3),))[0]


def test_a_recorded_graph_is_well_formed(graph):
    assert verify(graph) == []


def with_op(graph, index, **changes):
    ops = list(graph.ops)
    ops[index] = replace(ops[index], **changes)
    return replace(graph, ops=tuple(ops))


def with_value(graph, index, **changes):
    values = list(graph.values)
    values[index] = replace(values[index], **changes)
    return replace(graph, values=tuple(values))


BROKEN = {
    "has the unknown kind": lambda g: with_op(g, 0, kind="magic"),
    "roles": lambda g: with_op(g, 0, roles=("input",)),
    "has no outputs": lambda g: with_op(g, 1, outputs=()),
    "not plain data": lambda g: with_op(g, 1, attrs={"dtype": torch.float32}),
    "stands at position": lambda g: replace(g, ops=g.ops[::-1]),
    "is produced by op": lambda g: with_op(g, 1, outputs=g.ops[0].outputs),
    "which is not there": lambda g: with_op(g, 1, inputs=(99,)),
    "is not there": lambda g: replace(g, outputs=(99,)),
    "before op": lambda g: with_op(g, 0, inputs=(g.ops[1].outputs[0], *g.ops[0].inputs[1:])),
    "as its consumers": lambda g: with_value(g, 0, consumers=()),
    "as its producer": lambda g: with_value(g, g.ops[0].outputs[0], producer=1),
    "unknown parameter": lambda g: with_value(g, 1, name="nothing.weight"),
    "names the parameters": lambda g: with_op(g, 0, params=()),
    "is filed under": lambda g: replace(g, params={"other": g.params["0.weight"], **g.params}),
    "of origin": lambda g: replace(g, inputs=g.ops[0].outputs),
    "have 2 names": lambda g: replace(g, output_names=("a", "b")),
    "coverage counts": lambda g: replace(g, coverage=replace(g.coverage, ops=7)),
    "have one path": lambda g: replace(g, modules=(*g.modules, g.modules[0])),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_broken_invariant_is_named(graph, problem):
    assert any(problem in said for said in verify(BROKEN[problem](graph)))
