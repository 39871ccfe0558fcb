"""Decomposed forms are recognised back to their role, and compute what they did before."""

import io
import warnings

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gradlint.capture.written import to_graph
from gradlint.load.program_module import ProgramModule
from gradlint.onnx.build import build
from gradlint.onnx.file import File
from gradlint.onnx.inputs import Sized, declared


def exported(model, *args, opset=13):
    """The program of torch's older exporter, which takes most apart, and how far its output is off."""
    data = io.BytesIO()
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, args, data, dynamo=False, opset_version=opset)
    file = File(onnx.load_model_from_string(data.getvalue()), None)
    inputs = declared(file)
    program = build(file, inputs, [Sized(tuple(a.shape), d.dtype) for a, d in zip(args, inputs, strict=True)])
    with torch.no_grad():
        error = (ProgramModule(program).eval()(*args) - model(*args)).abs().max().item()
    return program, error


class First(nn.Module):
    """The first output of a layer that has several."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *given):
        return self.function(*given)


X = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (nn.Linear(8, 5), ["linear"]),
        (nn.Linear(8, 5, bias=False), ["linear"]),
        (nn.GELU(), ["gelu"]),
        (nn.GELU(approximate="tanh"), ["gelu"]),
        (nn.SiLU(), ["silu"]),
        (nn.Mish(), ["mish"]),
        (nn.Hardswish(), ["hardswish"]),
        (nn.LayerNorm(8), ["layer_norm"]),
        (nn.LayerNorm(8, elementwise_affine=False), ["layer_norm"]),
        (Function(lambda x: x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)), ["rms_norm"]),
        (nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)), ["linear", "gelu", "layer_norm"]),
    ],
)
def test_a_layer_comes_back_as_one_call(model, expected):
    torch.manual_seed(0)
    program, error = exported(model, X)
    assert [op.function for op in to_graph(program).ops] == expected
    assert error < 1e-5


@pytest.mark.parametrize("masked", [False, True])
def test_attention_comes_back(masked):
    query, key, value = (torch.randn(2, 3, 7, 16) for _ in range(3))
    mask = torch.zeros(7, 7).masked_fill(torch.ones(7, 7).triu(1).bool(), -1e9) if masked else None
    model = Function(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, mask))
    program, error = exported(model, query, key, value, opset=17)
    assert [op.kind for op in to_graph(program).ops][-1] == "attention"
    assert error < 1e-5


@pytest.mark.parametrize(
    ("function", "never"),
    [
        (lambda x: x * torch.sigmoid(x + 1), "silu"),
        (lambda x: 0.4 * x * (1 + torch.erf(x / 2**0.5)), "gelu"),
        (lambda x: x[..., :4] * torch.sigmoid(x[..., 4:]), "silu"),
        (lambda x: (x - x.mean(-1, keepdim=True)) / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt(), "layer_norm"),
        (lambda x: x / (x.pow(2).mean((1, 2), keepdim=True) + 1e-5).sqrt(), "rms_norm"),
    ],
)
def test_what_only_looks_alike_is_left_alone(function, never):
    program, error = exported(Function(function), X)
    assert never not in [op.function for op in to_graph(program).ops]
    assert error < 1e-5


def test_weights_are_named_by_the_module_that_uses_them():
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Tanh(), nn.Linear(8, 8))
    program, _ = exported(model, X)
    assert {name: s.shape for name, s in program.leaves.items()} == {
        "0.weight": (8, 8),
        "2.weight": (8, 8),
        "2.bias": (8,),
    }
    np.testing.assert_array_equal(program.leaves["2.weight"].array, model[2].weight.detach().numpy())


def test_equal_biases_that_were_stored_once_are_parameters_of_their_own():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(3)))
    for layer in model:
        nn.init.zeros_(layer.bias)
    program, _ = exported(model, X)
    assert [s.kind for s in program.leaves.values()].count("param") == 6


def test_folded_norms_are_said():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    program, error = exported(model, torch.randn(2, 3, 8, 8))
    assert program.absent == ("norm",)
    assert any("folded 1 BatchNorm" in note for note in program.notes)
    assert error < 1e-5


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("two_ways", [False, True])
def test_a_recurrent_layer_keeps_its_weights(kind, two_ways):
    torch.manual_seed(0)
    layer = kind(8, 5, batch_first=True, bidirectional=two_ways)
    program, error = exported(First(layer), X, opset=17)
    (op,) = [op for op in to_graph(program).ops if op.kind == "recurrent"]
    assert op.params[:2] == ("layer.weight_ih_l0", "layer.weight_hh_l0")
    assert error < 1e-5
