"""The traps that graph captures fall into: each one is a small model that has been seen in the wild."""

from __future__ import annotations

import copy
import threading
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from gradlint.capture import capture, construction_spans, from_fx, run, to_graph
from gradlint.capture.patches import replaced
from gradlint.error import GradlintError
from gradlint.graph.traversal import reaches_output
from gradlint.graph.verify import verify


def graph_of(model, *args):
    graph, _ = capture(model, args)
    assert verify(graph) == []
    return graph


def kinds(graph):
    return [op.kind for op in graph.ops]


def only(graph, kind):
    (op,) = [op for op in graph.ops if op.kind == kind]
    return op


class Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, scale):
        return torch.sign(x) * scale

    @staticmethod
    def backward(ctx, g):
        return g, None


class Module(nn.Module):
    """A model from a function of itself and its input."""

    def __init__(self, forward, **children):
        super().__init__()
        self._run = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args):
        return self._run(self, *args)


class Exponential(nn.Module):
    def forward(self, x):
        return x.exp()


# values ------------------------------------------------------------------------------------------------------------


def test_an_in_place_op_makes_a_new_value_that_later_readers_see():
    graph = graph_of(Module(lambda m, x: (m.a(x).relu_(), x)[0] + 1, a=nn.Linear(4, 4)), torch.randn(2, 4))
    linear, relu, add = graph.ops
    assert relu.inplace and relu.inputs == linear.outputs and relu.outputs != linear.outputs
    assert add.inputs == relu.outputs


def test_an_in_place_op_whose_result_is_dropped_still_counts():
    def forward(m, x):
        y = m.a(x)
        F.relu(y, inplace=True)
        return m.b(y)

    graph = graph_of(Module(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4)), torch.randn(2, 4))
    assert kinds(graph) == ["linear", "activation", "linear"]
    assert graph.ops[2].inputs[0] == graph.ops[1].outputs[0]


def test_changing_a_view_changes_its_base_and_the_other_views():
    def forward(m, x):
        y = m.a(x)
        left, right = y[:, :2], y[:, 2:]
        left.mul_(2)
        return y.sum() + right.sum() + left.sum()

    graph = graph_of(Module(forward, a=nn.Linear(4, 4)), torch.randn(2, 4))
    mul = only(graph, "mul")
    view, base = mul.outputs
    sums = [op for op in graph.ops if op.kind == "reduce"]
    assert [op.inputs[0] for op in sums] == [base, base, view]
    assert graph.values[base].shape == (2, 4)


def test_assigning_to_an_index_joins_both_operands():
    def forward(m, x):
        out = torch.zeros(2, 4)
        out[:, :3] = m.a(x)
        return out

    graph = graph_of(Module(forward, a=nn.Linear(4, 3)), torch.randn(2, 4))
    create, linear, assign = graph.ops
    assert (assign.kind, assign.function, assign.roles) == ("concat", "setitem", ("input", "other"))
    assert assign.inputs == (*create.outputs, *linear.outputs)
    assert graph.outputs == assign.outputs
    assert assign.attrs["index"] == (("slice", None, None, None), ("slice", None, 3, None))


def test_activations_are_not_kept_alive():
    alive = []

    class Watch:
        def on_output(self, index, outputs):
            alive.append(sum(ref() is not None for ref in refs))
            refs.extend(weakref.ref(t) for t in outputs)

    refs = []
    with torch.no_grad():
        model = nn.Sequential(*[nn.Linear(64, 64, bias=False) for _ in range(8)]).requires_grad_(requires_grad=False)
        run(model, (torch.randn(32, 64),), observer=Watch())
    assert max(alive) <= 2


def test_a_no_op_does_not_hide_a_parameter():
    graph = graph_of(
        Module(lambda m, x: F.linear(x, m.a.weight.contiguous().float()), a=nn.Linear(4, 4)), torch.randn(2, 4)
    )
    assert only(graph, "linear").params == ("a.weight",)


# modules -----------------------------------------------------------------------------------------------------------


def test_a_directly_called_forward_has_its_own_path():
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    model = Module(lambda m, x: m.inner.forward(m.block.forward(x)), block=block, inner=Exponential())
    graph = graph_of(model, torch.randn(2, 4))
    assert [op.module_path for op in graph.ops] == ["block.0", "block.1", "inner"]
    assert {module.path: module.called for module in graph.modules}["inner"] == 1


def test_layers_in_a_plain_list_are_found_and_marked():
    model = Module(lambda m, x: m.layers[1](m.layers[0](x)), out=nn.Linear(4, 4))
    model.layers = [nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4))]
    graph = graph_of(model, torch.randn(2, 4))
    assert [op.module_path for op in graph.ops] == ["layers[0]", "layers[1].0"]
    modules = {module.path: module for module in graph.modules}
    assert not modules["layers[1].0"].registered
    assert modules["layers[1].0"].params == ("layers[1].0.weight", "layers[1].0.bias")
    assert modules["out"].registered and modules["out"].called == 0
    assert "layers[0].weight" in graph.params


def test_a_module_that_no_attribute_holds_is_named_by_its_type():
    hidden = nn.Linear(4, 4)
    graph = graph_of(Module(lambda m, x: hidden(x)), torch.randn(2, 4))
    assert graph.ops[0].module_path == "?Linear"
    assert graph.ops[0].params == ("?Linear.weight", "?Linear.bias")


def test_an_alias_keeps_the_first_name():
    block = nn.Linear(4, 4)
    graph = graph_of(Module(lambda m, x: m.alias(m.block(x)), block=block, alias=block), torch.randn(2, 4))
    assert [op.module_path for op in graph.ops] == ["block", "block"]
    assert graph.params["block.weight"].shared_by == ("alias.weight",)
    assert [module.path for module in graph.modules] == ["", "block"]


def test_data_parallel_is_looked_through():
    graph = graph_of(nn.DataParallel(nn.Sequential(nn.Linear(4, 4))), torch.randn(2, 4))
    assert [op.module_path for op in graph.ops] == ["module.0"]


def test_a_compiled_submodule_is_recorded_eagerly_under_its_own_name():
    model = Module(lambda m, x: m.inner(x), inner=torch.compile(nn.Sequential(nn.Linear(4, 4), nn.GELU())))
    graph = graph_of(model, torch.randn(2, 4))
    assert [(op.kind, op.module_path) for op in graph.ops] == [("linear", "inner.0"), ("activation", "inner.1")]
    assert "inner.0.weight" in graph.params


def test_attention_is_seen_inside():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    model = Module(lambda m, x: m.attention(x, x, x, need_weights=False)[0], attention=attention)
    graph = graph_of(model, torch.randn(2, 5, 8))
    assert [op.kind for op in graph.ops if op.kind in ("linear", "attention")] == ["linear", "attention", "linear"]
    assert {op.module_path for op in graph.ops} == {"attention"}
    assert graph.ops[-2].params or graph.ops[-3].params == ("attention.out_proj.weight", "attention.out_proj.bias")
    assert {module.path: module.called for module in graph.modules}["attention.out_proj"] == 1


# autograd ----------------------------------------------------------------------------------------------------------


def test_a_custom_function_is_one_op():
    graph = graph_of(
        Module(lambda m, x: m.b(Sign.apply(m.a(x), 2.0)), a=nn.Linear(4, 4), b=nn.Linear(4, 1)), torch.randn(2, 4)
    )
    assert kinds(graph) == ["linear", "custom", "linear"]
    assert graph.ops[1].function.endswith("Sign")
    assert {path for op in reaches_output(graph) for path in graph.ops[op].params} == set(graph.params)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_layers_are_recorded_once_with_their_gradients(reentrant):
    def forward(m, x):
        return checkpoint(m.a, x, use_reentrant=reentrant).sum()

    model = Module(forward, a=nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    x = torch.randn(2, 4, requires_grad=True)
    model(x).backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    recording = run(model, (x,))
    recording.output.backward()
    graph = to_graph(recording)
    assert kinds(graph) == ["linear", "activation", "reduce"]
    assert all(op.grad_enabled for op in graph.ops)
    assert all(torch.equal(p.grad, e) for p, e in zip(model.parameters(), expected, strict=True))


def test_a_region_without_gradients_is_marked_and_cut():
    def forward(m, x):
        with torch.no_grad():
            y = m.a(x)
        return m.b(y) + m.c(x).detach()

    model = Module(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), c=nn.Linear(4, 4))
    graph = graph_of(model, torch.randn(2, 4))
    assert [op.grad_enabled for op in graph.ops] == [False, True, True, True, True]
    assert {path for op in reaches_output(graph) for path in graph.ops[op].params} == {"b.weight", "b.bias"}


def test_scripted_code_is_bridged():
    @torch.jit.script
    def scripted(x):
        return x * torch.sigmoid(x)

    model = Module(lambda m, x: m.b(scripted(m.a(x))), a=nn.Linear(4, 4), b=nn.Linear(4, 1))
    graph = graph_of(model, torch.randn(2, 4))
    assert graph.ops[1].inputs[0] == graph.ops[0].outputs[0]
    assert any("no torch calls" in note for note in graph.coverage.notes)


@pytest.mark.parametrize("norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm])
def test_a_computed_weight_is_a_weight(norm):
    graph = graph_of(Module(lambda m, x: m.a(x), a=norm(nn.Linear(4, 3))), torch.randn(2, 4))
    linear = only(graph, "linear")
    assert graph.op_of(linear.inputs[1]).function == "weight_norm"


# spans, errors and restoring ---------------------------------------------------------------------------------------


def test_the_lines_of_call_and_construction_survive_a_copy():
    with construction_spans():
        layer = nn.Linear(4, 4)
        model = Module(lambda m, x: m.a(m.b(x)), a=layer, b=nn.Sequential(copy.deepcopy(layer)))
    graph = graph_of(copy.deepcopy(model), torch.randn(2, 4))
    line = test_the_lines_of_call_and_construction_survive_a_copy.__code__.co_firstlineno
    assert [op.span.line - line for op in graph.ops] == [3, 3]
    assert [op.constructed.line - line for op in graph.ops] == [2, 2]
    assert graph.params["a.weight"].constructed.line == line + 2


def test_everything_is_put_back_when_the_model_raises():
    before = nn.Module.__call__, vars(torch.autograd.Function)["apply"], torch.compile, nn.Module.__init__

    def forward(m, x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Module(forward), (torch.randn(2),))
    with pytest.raises(ZeroDivisionError), construction_spans():
        raise ZeroDivisionError
    assert before == (nn.Module.__call__, vars(torch.autograd.Function)["apply"], torch.compile, nn.Module.__init__)
    assert not torch.overrides._get_current_function_mode_stack()


def test_an_attribute_that_was_not_there_is_gone_again():
    target = threading.local()
    with replaced(target, "x", 1):
        assert target.x == 1
    assert not hasattr(target, "x")


def test_factories_depend_on_nothing():
    graph = graph_of(Module(lambda m, x: x + torch.zeros_like(x) + x.new_ones(4)), torch.randn(2, 4))
    created = [op for op in graph.ops if op.kind == "create"]
    assert [op.roles for op in created] == [("like",), ("like",)]
    assert reaches_output(graph) == {1, 3}


# other doors -------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4))

    def forward(self, x):
        return x + torch.tanh(self.body(x))


def summary(graph):
    return [(op.kind, op.module_path, op.module_type) for op in graph.ops]


def test_a_traced_graph_enters_with_its_module_paths():
    model = Residual()
    expected = summary(graph_of(model, torch.randn(2, 4)))
    graph, _ = from_fx(torch.fx.symbolic_trace(model), (torch.randn(2, 4),))
    assert verify(graph) == []
    assert graph.coverage.method == "fx"
    assert summary(graph)[:2] == expected[:2]
    assert [op.kind for op in graph.ops] == ["norm", "linear", "activation", "add"]


def test_an_exported_program_enters_with_paths_classes_and_lines():
    model, x = Residual(), torch.randn(2, 4)
    expected = graph_of(model, x)
    graph, _ = from_fx(torch.export.export(model, (x,)).module(), (x,))
    assert verify(graph) == []
    assert summary(graph) == summary(expected)
    assert [op.span for op in graph.ops] == [op.span for op in expected.ops]
    assert set(graph.params) == set(expected.params)


def test_a_model_on_meta_is_recorded_with_assumed_answers():
    def forward(m, x):
        if x.mean() > 0:
            return m.a(x)
        return m.a(x).sigmoid()

    with torch.device("meta"):
        model = Module(forward, a=nn.Linear(4, 4))
    graph = graph_of(model, torch.randn(2, 4, device="meta"))
    assert kinds(graph)[-1] == "linear"
    assert graph.coverage.method == "recorded-meta"
    assert "answered by assumption" in graph.coverage.notes[0]
    assert graph.params["a.weight"].std is None


# odd wrappers --------------------------------------------------------------------------------------------------------


def test_a_scripted_module_is_one_op_with_its_parameters():
    inner = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    graph = graph_of(nn.Sequential(nn.Linear(4, 4), inner, nn.Linear(4, 1)), torch.randn(2, 4))
    assert kinds(graph) == ["linear", "custom", "linear"]
    assert graph.ops[1].params == ("1.0.weight", "1.0.bias")


def test_lazy_layers_are_initialised_first():
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    with pytest.raises(GradlintError, match="lazy"):
        run(model, (torch.randn(2, 4),))
    graph = graph_of(model, torch.randn(2, 4))
    assert [op.kind for op in graph.ops if op.params] == ["linear", "norm"]
    assert graph.params["0.weight"].shape == (3, 4)


def test_code_under_vmap_is_seen_and_connected():
    def forward(m, x):
        return torch.vmap(lambda row: torch.tanh(m.a(row)))(x).sum(1)

    graph = graph_of(Module(forward, a=nn.Linear(4, 4)), torch.randn(2, 4))
    assert kinds(graph) == ["linear", "activation", "reduce"]
    assert reaches_output(graph) == {0, 1, 2}
    assert graph.ops[0].inputs[0] in graph.inputs


def test_parameters_in_a_plain_list_are_named_constants():
    model = Module(lambda m, x: x @ m.ws[0])
    model.ws = [nn.Parameter(torch.randn(4, 4))]
    graph = graph_of(model, torch.randn(2, 4))
    weight = graph.operand(only(graph, "linear"), "weight")
    assert (weight.origin, weight.name, weight.requires_grad) == ("constant", "ws[0]", True)


def test_a_gradient_taken_inside_the_model_is_an_op():
    def forward(m, x):
        x = x.clone().requires_grad_()
        y = m.b(torch.tanh(m.a(x)))
        (gradient,) = torch.autograd.grad(y.sum(), x, create_graph=True)
        return y + gradient.sum(1, keepdim=True)

    graph = graph_of(Module(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 1)), torch.randn(2, 4))
    assert only(graph, "other").function == "grad"


def test_an_output_of_any_shape_is_flattened_with_names():
    def forward(m, x):
        return torch.distributions.Normal(m.a(x), 1.0), [x + 1, {"k": (x * 2,)}]

    graph = graph_of(Module(forward, a=nn.Linear(4, 4)), torch.randn(2, 4))
    assert graph.output_names == ("0.loc", "0.scale", "1.0", "1.1.k.0")


def test_the_recording_is_also_an_fx_graph():
    def forward(m, x):
        left, right = m.a(x).chunk(2, dim=-1)
        half = x[:, :2]
        half.mul_(2)
        return left.relu() * right + m.a.bias.sum() + x.sum()

    _, recording = capture(Module(forward, a=nn.Linear(4, 4)), (torch.randn(2, 4),))
    recording.graph.lint()
    kinds_of_nodes = [node.op for node in recording.graph.nodes]
    assert kinds_of_nodes.count("placeholder") == 1
    assert kinds_of_nodes.count("get_attr") == 2
    numbers = [node.meta["call"].index for node in recording.graph.nodes if "call" in node.meta]
    assert numbers == list(range(recording.calls))
    chunk = next(node for node in recording.graph.nodes if node.name.endswith("chunk"))
    assert chunk.meta["span"].path == __file__
