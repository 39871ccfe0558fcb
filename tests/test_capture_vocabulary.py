"""One operation is one thing, however it is written; and its attributes are complete."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import get_overridable_functions

from gradlint.capture import calls, capture
from gradlint.capture.vocabulary import TABLE, lookup
from gradlint.graph.ir import KINDS
from gradlint.graph.verify import verify

X = torch.rand(2, 3, 8, 8) + 0.1
M = torch.rand(4, 6) + 0.1


def last(call, *args):
    graph, _ = capture(call, args)
    assert verify(graph) == []
    assert graph.coverage.unknown == ()
    return graph.ops[-1]


def test_every_name_has_a_kind_of_the_ir():
    assert {entry.kind for entry in TABLE.values()} <= set(KINDS)
    assert set(KINDS) - {entry.kind for entry in TABLE.values()} == {"custom"}


ACTIVATIONS = [
    ("sigmoid", {}, torch.sigmoid, F.sigmoid, nn.Sigmoid(), torch.Tensor.sigmoid, torch.special.expit, torch.sigmoid_),
    ("relu", {}, torch.relu, F.relu, nn.ReLU(), lambda x: F.relu(x, inplace=True), torch.relu_, F.relu_),
    ("tanh", {}, torch.tanh, F.tanh, nn.Tanh(), lambda x: x.tanh_(), torch.Tensor.tanh),
    ("leaky_relu", {"slope": 0.2}, nn.LeakyReLU(0.2), lambda x: F.leaky_relu(x, 0.2), lambda x: F.leaky_relu_(x, 0.2)),
    ("leaky_relu", {"slope": 0.01}, nn.LeakyReLU(), F.leaky_relu),
    ("elu", {"alpha": 0.5}, nn.ELU(0.5), lambda x: F.elu(x, alpha=0.5), lambda x: F.elu_(x, 0.5)),
    ("selu", {}, nn.SELU(), F.selu, torch.selu, nn.SELU(inplace=True)),
    ("celu", {"alpha": 1.0}, nn.CELU(), torch.celu),
    ("gelu", {"approximate": "none"}, F.gelu, nn.GELU()),
    ("gelu", {"approximate": "tanh"}, nn.GELU("tanh"), lambda x: F.gelu(x, approximate="tanh")),
    ("silu", {}, nn.SiLU(), F.silu, nn.SiLU(inplace=True)),
    ("mish", {}, nn.Mish(), F.mish),
    ("softplus", {"beta": 2.0, "threshold": 10.0}, nn.Softplus(2.0, 10.0), lambda x: F.softplus(x, 2.0, 10.0)),
    ("softsign", {}, nn.Softsign(), F.softsign),
    ("hardtanh", {"lower": -2.0, "upper": 2.0}, nn.Hardtanh(-2.0, 2.0), lambda x: F.hardtanh(x, -2.0, 2.0)),
    ("hardswish", {}, nn.Hardswish(), F.hardswish),
    ("hardsigmoid", {}, nn.Hardsigmoid(), F.hardsigmoid),
    ("logsigmoid", {}, nn.LogSigmoid(), F.logsigmoid),
    ("tanhshrink", {}, nn.Tanhshrink(), F.tanhshrink),
    ("softshrink", {"lambd": 0.3}, nn.Softshrink(0.3), lambda x: F.softshrink(x, 0.3)),
    ("threshold", {"threshold": 0.1, "value": 20.0}, nn.Threshold(0.1, 20.0), lambda x: F.threshold(x, 0.1, 20.0)),
    ("rrelu", {"lower": 0.1, "upper": 0.3, "training": True}, nn.RReLU(0.1, 0.3), lambda x: F.rrelu(x, 0.1, 0.3, True)),
    ("glu", {"dim": 1}, nn.GLU(1), lambda x: F.glu(x, dim=-3)),
    ("prelu", {}, nn.PReLU(), lambda x: F.prelu(x, torch.ones(1))),
]


@pytest.mark.parametrize("row", ACTIVATIONS, ids=lambda row: row[0])
def test_an_activation_is_the_same_in_every_form(row):
    function, attrs, *forms = row
    x = torch.rand(2, 4, 8, 8)
    for form in forms:
        op = last(lambda z, form=form: form(z + 0), x)
        assert (op.kind, op.function) == ("activation", function)
        assert op.attrs == {"function": function} | attrs
        assert op.roles[0] == "input"


def test_relu6_has_bounds():
    for form in (nn.ReLU6(), F.relu6):
        op = last(lambda z, form=form: form(z + 0), X)
        assert op.function in ("relu6", "hardtanh")
        assert (op.attrs["lower"], op.attrs["upper"]) == (0.0, 6.0)


OPS = [
    # call, kind, attributes that must be there
    (lambda: X.softmax(-1), "softmax", {"function": "softmax", "dim": 3}),
    (lambda: F.log_softmax(X, 1), "softmax", {"function": "log_softmax", "dim": 1}),
    (lambda: nn.Softmax(dim=1)(X), "softmax", {"function": "softmax", "dim": 1}),
    (
        lambda: F.conv2d(X, torch.rand(6, 1, 3, 3), None, 2, 1, 1, 3),
        "conv",
        {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 3, "transposed": False},
    ),
    (lambda: F.conv2d(X, torch.rand(6, 3, 3, 3), padding="same", dilation=2), "conv", {"padding": (2.0, 2.0)}),
    (
        lambda: F.conv_transpose2d(X, torch.rand(3, 6, 4, 4), stride=2, padding=1),
        "conv",
        {"kernel": (4, 4), "stride": (2, 2), "transposed": True, "output_padding": (0, 0)},
    ),
    (lambda: F.layer_norm(X, (8,), eps=1e-3), "norm", {"function": "layer_norm", "eps": 1e-3, "axes": (3,)}),
    (lambda: F.batch_norm(X, None, None, training=True), "norm", {"axes": (0, 2, 3), "batch_stats": True}),
    (
        lambda: nn.BatchNorm2d(3, momentum=0.3).eval()(X),
        "norm",
        {"function": "batch_norm", "batch_stats": False, "momentum": 0.3},
    ),
    (lambda: F.group_norm(X, 3), "norm", {"function": "group_norm", "groups": 3, "axes": (1, 2, 3)}),
    (lambda: F.instance_norm(X), "norm", {"function": "instance_norm", "axes": (2, 3)}),
    (lambda: F.rms_norm(X, (8, 8)), "norm", {"function": "rms_norm", "axes": (2, 3)}),
    (lambda: F.normalize(X, dim=1), "norm", {"function": "normalize", "p": 2.0, "axes": (1,)}),
    (lambda: X + 2, "add", {"function": "add", "scalar": 2}),
    (lambda: 1 - X, "add", {"function": "sub", "scalar": 1, "reversed": True}),
    (lambda: torch.add(X, X, alpha=3), "add", {"function": "add", "alpha": 3}),
    (lambda: X.sub(X), "add", {"function": "sub"}),
    (lambda: X.clone().sub_(0.5), "add", {"function": "sub", "scalar": 0.5}),
    (lambda: 2 * X, "mul", {"function": "mul", "scalar": 2}),
    (lambda: X / 4, "mul", {"function": "div", "scalar": 4}),
    (lambda: 1 / X, "mul", {"function": "div", "scalar": 1, "reversed": True}),
    (lambda: -X, "mul", {"function": "neg", "scalar": -1.0}),
    (lambda: torch.cat([X, X], -3), "concat", {"function": "cat", "dim": 1}),
    (lambda: torch.stack([X, X], -1), "concat", {"function": "stack", "dim": 4}),
    (lambda: X.chunk(2, dim=-1)[0], "split", {"function": "chunk", "dim": 3, "sizes": (4, 4)}),
    (lambda: X.split([1, 2], 1)[1], "split", {"function": "split", "dim": 1, "sizes": (1, 2)}),
    (lambda: X.unbind(1)[2], "split", {"function": "unbind", "dim": 1, "sizes": (1, 1, 1)}),
    (lambda: X[:, 0, ..., None], "slice", {"index": (("slice", None, None, None), 0, "...", None)}),
    (lambda: X[0], "slice", {"index": (0,)}),
    (lambda: X[X > 0.5], "slice", {"index": ("mask",)}),
    (lambda: X.narrow(2, 1, 3), "slice", {"function": "narrow", "dim": 2, "start": 1, "length": 3}),
    (lambda: X.flatten(1), "reshape", {"function": "flatten", "start": 1, "end": 3}),
    (lambda: X.unsqueeze(-1), "reshape", {"function": "unsqueeze", "dim": 4}),
    (lambda: X.permute(0, 2, 3, 1), "permute", {"dims": (0, 2, 3, 1)}),
    (lambda: torch.permute(X, (0, -1, 1, 2)), "permute", {"dims": (0, 3, 1, 2)}),
    (lambda: X.transpose(1, -1), "permute", {"dims": (0, 3, 2, 1)}),
    (lambda: torch.movedim(X, 1, -1), "permute", {"dims": (0, 2, 3, 1)}),
    (lambda: X.mT, "permute", {"dims": (0, 1, 3, 2)}),
    (lambda: M.t(), "permute", {"dims": (1, 0)}),
    (lambda: X[:, :1].expand(-1, 5, -1, -1), "expand", {"function": "expand", "repeats": (1, 5, 1, 1)}),
    (lambda: M.repeat(2, 1, 3), "expand", {"function": "repeat", "repeats": (2, 1, 3)}),
    (lambda: F.max_pool2d(X, 2), "pool", {"function": "max", "kernel": (2, 2), "stride": (2, 2), "padding": (0, 0)}),
    (
        lambda: nn.AvgPool2d(3, 1, 1)(X),
        "pool",
        {"function": "avg", "kernel": (3, 3), "stride": (1, 1), "padding": (1, 1)},
    ),
    (lambda: F.adaptive_avg_pool2d(X, (1, None)), "pool", {"function": "adaptive_avg", "output_size": (1, 8)}),
    (lambda: X.mean((2, 3)), "reduce", {"function": "mean", "dims": (2, 3), "keepdim": False}),
    (lambda: X.mean(), "reduce", {"function": "mean", "dims": (0, 1, 2, 3)}),
    (lambda: X.var(-1, unbiased=False, keepdim=True), "reduce", {"function": "var", "dims": (3,), "unbiased": False}),
    (lambda: X.max(1).values, "reduce", {"function": "max", "dims": (1,)}),
    (lambda: X.norm(dim=1), "reduce", {"function": "norm", "dims": (1,), "p": "fro"}),
    (lambda: F.interpolate(X, scale_factor=2), "resize", {"function": "interpolate", "factors": (2.0, 2.0)}),
    (lambda: F.pad(X, (1, 1)), "pad", {"pad": (1, 1), "mode": "constant"}),
    (lambda: F.dropout(X, 0.3), "dropout", {"p": 0.3, "training": True}),
    (lambda: nn.Dropout2d(0.2).eval()(X), "dropout", {"function": "dropout2d", "p": 0.2, "training": False}),
    (lambda: X**3, "elementwise", {"function": "pow", "exponent": 3}),
    (lambda: X.clamp(min=0, max=1), "elementwise", {"function": "clamp", "min": 0, "max": 1}),
    (lambda: torch.sin(X), "elementwise", {"function": "sin"}),
    (lambda: torch.where(X > 0, X, 0.0), "elementwise", {"function": "where", "other": 0.0}),
    (lambda: X.masked_fill(X > 0, -1e9), "elementwise", {"function": "masked_fill", "value": -1e9}),
    (lambda: X > 0, "compare", {"function": "gt", "scalar": 0}),
    (lambda: X.argmax(1), "compare", {"function": "argmax", "dim": 1}),
    (lambda: torch.full((2,), 3.0), "create", {"function": "full", "fill_value": 3.0}),
    (lambda: torch.zeros(1).new_full((2, 1), 3.0), "create", {"function": "full", "fill_value": 3.0}),
    (lambda: X.contiguous().detach(), "copy", {"function": "detach"}),
    (lambda: X.double(), "copy", {"function": "to"}),
    (lambda: F.cross_entropy(M, torch.zeros(4, dtype=torch.long)), "loss", {"function": "cross_entropy"}),
    (lambda: F.embedding(torch.zeros(2, dtype=torch.long), M), "embedding", {"count": 4, "width": 6}),
    (lambda: nn.GRUCell(6, 5)(M), "recurrent", {"function": "gru", "hidden": 5, "inputs": 6, "cell": True}),
    (
        lambda: F.scaled_dot_product_attention(X, X, X, is_causal=True, scale=0.5),
        "attention",
        {"causal": True, "masked": False, "scale": 0.5, "dropout": 0.0},
    ),
]


@pytest.mark.parametrize(("call", "kind", "attrs"), OPS)
def test_an_op_has_its_kind_and_attributes(call, kind, attrs):
    op = last(call)
    assert op.kind == kind
    assert {name: op.attrs.get(name) for name in attrs} == attrs


WEIGHTED = [
    # call with a (6, 5) parameter and a (4, 6) input, layout
    (lambda x, w: F.linear(x, w.t()), "io"),
    (lambda x, w: x @ w, "io"),
    (lambda x, w: torch.mm(x, w), "io"),
    (lambda x, w: x.matmul(w.clone()), "io"),
    (lambda x, w: torch.addmm(torch.zeros(5), x, w), "io"),
    (lambda x, w: torch.einsum("bi,io->bo", x, w), "io"),
    (lambda x, w: x @ torch.tanh(w), "io"),
    (lambda x, w: (w.t() @ x.t()).t(), "io"),
]


class Weighted(nn.Module):
    def __init__(self, call):
        super().__init__()
        self.call, self.w = call, nn.Parameter(torch.randn(6, 5))

    def forward(self, x):
        return self.call(x, self.w)


@pytest.mark.parametrize(("call", "layout"), WEIGHTED)
def test_a_product_with_a_weight_is_linear(call, layout):
    graph, _ = capture(Weighted(call), (torch.randn(4, 6),))
    (linear,) = [op for op in graph.ops if op.kind == "linear"]
    weight = graph.operand(linear, "weight")
    assert linear.attrs["layout"] == layout
    assert weight.shape == (6, 5)
    assert graph.operand(linear, "input").shape in ((4, 6), (6, 4))
    if weight.origin == "param":
        assert graph.param(linear).fan_in == 6
        assert linear.params[-1] == "w"


def test_a_product_of_activations_is_a_matmul():
    graph, _ = capture(Weighted(lambda x, w: (x @ w) @ (x @ w).t()), (torch.randn(4, 6),))
    assert [op.kind for op in graph.ops if op.kind in ("linear", "matmul")] == ["linear", "linear", "matmul"]


def test_a_grouped_convolution_knows_its_fans():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.ConvTranspose2d(8, 2, 4, stride=2))
    graph, _ = capture(model, (torch.randn(1, 4, 8, 8),))
    assert (graph.params["0.weight"].fan_in, graph.params["0.weight"].fan_out) == (9, 18)
    assert (graph.params["1.weight"].fan_in, graph.params["1.weight"].fan_out) == (32, 32)


def test_what_is_not_known_is_counted():
    graph, _ = capture(lambda x: torch.special.bessel_j0(x), (torch.rand(3),))
    assert graph.ops[0].kind == "other"
    assert graph.coverage.unknown == (("torch.special.bessel_j0", 1),)


def test_aten_calls_are_understood():
    def forward(x):
        y = torch.ops.aten.relu.default(x)
        return torch.ops.aten.native_layer_norm.default(y, [6], None, None, 1e-5)[0]

    graph, _ = capture(forward, (M,))
    assert [(op.kind, op.function) for op in graph.ops] == [("activation", "relu"), ("norm", "layer_norm")]


OVERLOADED = [
    (lambda: torch.max(X, X + 1), "elementwise", "maximum"),
    (lambda: X.min(X), "elementwise", "minimum"),
    (lambda: torch.pow(2, X), "elementwise", "rpow"),
    (lambda: 2**X, "elementwise", "rpow"),
    (lambda: torch.where(X > 0), "compare", "nonzero"),
    (lambda: torch.div(X, 2, rounding_mode="floor"), "compare", "floor_divide"),
]


@pytest.mark.parametrize(("call", "kind", "function"), OVERLOADED)
def test_a_call_is_understood_by_its_arguments(call, kind, function):
    op = last(call)
    assert (op.kind, op.function) == (kind, function)
    assert op.roles[0] in ("input", "mask")


def test_almost_every_function_of_torch_is_known():
    signatures = {calls.signature(function) for group in get_overridable_functions().values() for function in group}
    asked = [known for known in signatures if not known.query]
    unknown = [known.name for known in asked if lookup(known.name, known.short) is None]
    assert len(asked) > 1000
    assert len(unknown) < 0.2 * len(asked)
