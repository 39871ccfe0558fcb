"""Paths, cuts, skips, gates and outputs, on graphs small enough to draw."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.capture import capture
from gradlint.graph import Graph, Op, Value
from gradlint.graph.traversal import (
    between,
    bypassed,
    chains,
    depth,
    flow,
    is_gate,
    is_output,
    is_weighted,
    longest_path,
    main_outputs,
    merges,
    predecessors,
    reaches_output,
    residuals,
    series_ops,
    successors,
)
from gradlint.graph.verify import verify


class Layers(nn.Module):
    """Four linear maps and a function of them and the input."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        self.e = nn.Embedding(9, 4)
        self._run = forward

    def forward(self, *args):
        return self._run(self, *args)


def graph_of(forward, *args):
    graph, _ = capture(Layers(forward), args or (torch.randn(2, 4),))
    assert verify(graph) == []
    return graph


def paths(graph, ops):
    return [graph.ops[op].module_path or graph.ops[op].function for op in ops]


def chain(length, extra=()):
    """A graph of `length` linear ops in a row; `extra` are (op, earlier op) pairs, a further input of the op."""
    ops, values = [], [Value(0, (2,), "float32", "input", "x")]
    for index in range(length):
        inputs = (index, *(source + 1 for op, source in extra if op == index))
        roles = ("input", *("other" for _ in inputs[1:]))
        ops.append(Op(index, "linear" if len(inputs) == 1 else "add", "f", inputs, roles, (index + 1,)))
        values.append(Value(index + 1, (2,), "float32", "op", producer=index))
    return Graph(tuple(ops), tuple(values), {}, (0,), (length,))


def test_edges_are_what_a_gradient_flows_along():
    graph = graph_of(lambda m, x: m.b(m.a(x)) * (x > 0) + m.c(x).detach())
    a, b, compare, mul, c, detach, add = range(7)
    assert predecessors(graph, add) == (mul,)
    assert successors(graph, a) == (b,)
    assert predecessors(graph, mul) == (b,)
    assert reaches_output(graph) == {a, b, mul, add}
    assert {compare, c, detach}.isdisjoint(reaches_output(graph))


def test_every_op_of_a_chain_is_in_series():
    graph = graph_of(lambda m, x: m.b(torch.tanh(m.a(x))))
    assert series_ops(graph) == (0, 1, 2)


def test_a_branch_is_not_in_series_and_its_ends_are():
    graph = graph_of(lambda m, x: m.d(m.b(h := m.a(x)) + m.c(h)))
    assert paths(graph, series_ops(graph)) == ["a", "add", "d"]


def test_a_skip_from_the_input_leaves_only_what_follows_it_in_series():
    graph = graph_of(lambda m, x: m.b(x + m.a(x)))
    assert paths(graph, series_ops(graph)) == ["add", "b"]


def test_parts_without_an_input_are_no_paths():
    graph = graph_of(lambda m, ids: m.b(m.e(ids) + m.a(m.e(torch.arange(3)))), torch.zeros(2, 3, dtype=torch.long))
    assert paths(graph, series_ops(graph)) == ["e", "add", "b"]
    assert paths(graph, flow(graph).entries) == ["e"]


def test_a_mask_made_from_an_integer_input_starts_no_path():
    def forward(m, ids, mask):
        x = m.a(m.e(ids))
        scores = x @ x.transpose(1, 2) + (1 - mask[:, None].float()) * -1e4
        return m.b(scores.softmax(-1) @ x)

    graph = graph_of(forward, torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long))
    assert paths(graph, series_ops(graph))[:2] == ["e", "a"]
    assert paths(graph, series_ops(graph))[-1] == "b"


def test_the_main_output_is_the_loss_or_the_first_floating_one():
    graph = graph_of(lambda m, x: {"mask": x > 0, "logits": m.a(x), "loss": m.b(x).sum()})
    assert [graph.op_of(value).function for value in main_outputs(graph)] == ["sum"]
    graph = graph_of(lambda m, x: (x > 0, m.a(x), m.b(x)))
    assert paths(graph, [graph.op_of(main_outputs(graph)[0]).index]) == ["a"]


def test_outputs_can_be_chosen():
    graph = graph_of(lambda m, x: (m.b(h := m.a(x)), m.c(h)))
    assert paths(graph, series_ops(graph)) == ["a", "b"]
    assert paths(graph, series_ops(graph, graph.outputs)) == ["a"]
    assert paths(graph, sorted(reaches_output(graph, graph.outputs[1:]))) == ["a", "c"]


def test_ops_are_bypassed_when_a_path_avoids_them_all():
    graph = graph_of(lambda m, x: m.d(m.b(h := m.a(x)) + m.c(h)))
    b, c = (next(op.index for op in graph.ops if op.module_path == name) for name in "bc")
    assert bypassed(graph, [b])
    assert bypassed(graph, [c])
    assert not bypassed(graph, [b, c])
    assert not bypassed(graph, [0])


def test_the_longest_path_is_counted_in_weights():
    graph = graph_of(lambda m, x: m.c(torch.tanh(m.b(torch.tanh(m.a(x))))) + m.d(x))
    assert depth(graph) == 3
    assert [name for name in paths(graph, longest_path(graph)) if name in "abcd"] == ["a", "b", "c"]
    assert depth(graph, lambda op: op.kind == "activation") == 2


def test_identity_and_projection_skips_are_residuals():
    for skip in (lambda m, h: h, lambda m, h: m.c(h), lambda m, h: F.dropout(h)):
        graph = graph_of(lambda m, x, skip=skip: m.b(m.d(torch.relu(h := m.a(x)))) + skip(m, h))
        (residual,) = residuals(graph)
        assert graph.ops[residual.op].kind == "add"
        assert graph.ops[residual.fork].module_path == "a"
        assert residual.most == 2
        assert residual.fewest <= 1


def test_parallel_branches_of_one_depth_are_no_skip():
    graph = graph_of(lambda m, x: m.b(torch.relu(m.a(x))) + m.d(torch.relu(m.c(x))))
    (merge,) = merges(graph)
    assert (merge.fork, merge.fewest, merge.most) == (None, 2, 2)
    assert not merge.is_skip
    assert len(between(graph, merge)) == 6


def test_a_step_of_a_sequence_is_no_skip_around_the_steps_before():
    def forward(m, x):
        steps, h = m.a(x), torch.zeros(2, 4)
        for t in range(5):
            h = torch.tanh(m.b(h) + steps[:, t])
        return m.c(h)

    graph = graph_of(forward, torch.randn(2, 5, 4))
    assert len(merges(graph)) == 4
    assert residuals(graph) == ()


def test_a_cropped_skip_is_still_a_skip():
    graph = graph_of(lambda m, x: m.b(torch.relu(m.c(h := m.a(x))))[:, 1:] + h[:, 1:])
    assert len(residuals(graph)) == 1


def test_chains_run_through_what_they_may():
    graph = graph_of(lambda m, x: torch.sigmoid(m.c(torch.sigmoid(m.b(torch.sigmoid(m.a(x)).exp())))))
    sigmoids = lambda op: op.function == "sigmoid"  # noqa: E731
    assert [len(found) for found in chains(graph, sigmoids, is_weighted)] == [2, 1]
    assert [len(found) for found in chains(graph, sigmoids, lambda op: True)] == [3]


def test_chains_do_not_share_ops():
    graph = graph_of(lambda m, x: torch.tanh(m.b(h := torch.tanh(m.a(x)))) + torch.tanh(m.c(h)))
    found = chains(graph, lambda op: op.kind == "activation", lambda op: True)
    assert sorted(len(ops) for ops in found) == [1, 2]
    assert len({op for ops in found for op in ops}) == 3


GATES = [
    (lambda m, x: m.b(x) * torch.sigmoid(m.a(x)), True),
    (lambda m, x: (1 - (z := torch.sigmoid(m.a(x)))) * m.b(x) + z * x, True),
    (lambda m, x: x * torch.sigmoid(m.a(x)).unsqueeze(0).expand(3, -1, -1), True),
    (lambda m, x: torch.lerp(x, m.b(x), torch.sigmoid(m.a(x))), True),
    (lambda m, x: torch.sigmoid(m.a(x)) @ m.b(x).t(), True),
    (lambda m, x: m.b(torch.sigmoid(m.a(x))), False),
    (lambda m, x: torch.sigmoid(m.a(x)), False),
    (lambda m, x: m.b(z := torch.sigmoid(m.a(x))) * z, False),
    (lambda m, x: torch.sigmoid(m.a(x)) * m.b.bias, False),
]


@pytest.mark.parametrize(("forward", "expected"), GATES)
def test_a_gate_is_only_a_factor(forward, expected):
    graph = graph_of(forward)
    sigmoid = next(op for op in graph.ops if op.function == "sigmoid")
    assert is_gate(graph, sigmoid.outputs[0]) is expected


OUTPUTS = [
    (lambda m, x: torch.sigmoid(m.a(x)), True),
    (lambda m, x: {"p": torch.sigmoid(m.a(x)).squeeze(-1).clone() * 2 - 1}, True),
    (lambda m, x: F.binary_cross_entropy(torch.sigmoid(m.a(x)), torch.ones(2, 4)), True),
    (lambda m, x: m.b(torch.sigmoid(m.a(x))), False),
    (lambda m, x: (z := torch.sigmoid(m.a(x)), m.b(z)), False),
]


@pytest.mark.parametrize(("forward", "expected"), OUTPUTS)
def test_an_output_is_followed_by_rearranging_alone(forward, expected):
    graph = graph_of(forward)
    sigmoid = next(op for op in graph.ops if op.function == "sigmoid")
    assert is_output(graph, sigmoid.index) is expected


def test_learned_attention_biases_get_a_gradient():
    def forward(m, x):
        q = m.a(x)[:, None]
        return F.scaled_dot_product_attention(q, q, q, attn_mask=m.b.weight[None, None, :3, :3] * 2)

    graph = graph_of(forward, torch.randn(2, 3, 4))
    scaled = next(op for op in graph.ops if op.kind == "mul")
    assert scaled.index in reaches_output(graph)


def test_ten_thousand_ops_are_walked_in_a_moment():
    graph = chain(10_000, extra=[(op, op - 3) for op in range(3, 10_000, 3)])
    started = time.process_time()
    assert len(series_ops(graph)) == 3_334
    assert len(residuals(graph)) == 3_333
    assert depth(graph) == 6_667
    assert len(reaches_output(graph)) == 10_000
    assert len(chains(graph, is_weighted, lambda op: True)[0]) == 6_667
    assert time.process_time() - started < 2.0
