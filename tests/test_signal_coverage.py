"""Ops of real architectures, each between two linear layers, against real float64 backward passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.graph import Graph
from gradlint.serialise import from_data, to_data
from gradlint.signal import predict
from tests.test_signal_mechanisms import errors

PASSES = 12
Between = Callable[[nn.ParameterDict, Tensor], Tensor]


class Around(nn.Module):
    """A linear layer, an op with parameters of its own, and a linear layer over what it gives."""

    def __init__(self, op: Between, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.op = nn.Linear(16, 16), op
        self.own = nn.ParameterDict(
            {name: torch.randn(*shape) / math.sqrt(shape[-1]) for name, shape in shapes.items()}
        )
        self.last = nn.LazyLinear(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.op(self.own, self.first(x)))


class Images(nn.Module):
    """The same around an op on images, with convolutions of one tap."""

    def __init__(self, op: Callable[[Tensor], Tensor], channels: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.op, self.last = nn.Conv2d(3, channels, 1), op, nn.LazyConv2d(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.op(self.first(x)))


def worst(model: nn.Module, *shape: int) -> float:
    with torch.no_grad():
        model(torch.randn(*shape))
    found, signal = errors(model, shape, PASSES)
    assert not signal.unknown
    return max(abs(error) for name, error in found.items() if name.endswith("weight") or name.startswith("own"))


def block(x: Tensor, value: Tensor) -> Tensor:
    y = x.clone()
    y[:, 1:20, 2:9] = value[:, 1:20, 2:9]
    return y


def rows(x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:, 1:5] = x[:, 2:6]
    return y


def step_by_step(x: Tensor) -> Tensor:
    y = torch.zeros(8, 4, 16).to(x)
    for step in range(4):
        y[:, step] = x[:, step] * 2
    return y


def through_view(x: Tensor, value: Tensor) -> Tensor:
    y = x * 1.0
    y[:, 1:, 3:] += value
    return y


def scattered(x: Tensor, weight: Tensor) -> Tensor:
    chosen = (x[:16].detach() @ weight.detach()).topk(4, 1)[1]
    return x @ torch.zeros(16, 16).to(x).scatter(1, chosen, 1.0)


def summed_by_index(x: Tensor) -> Tensor:
    index = torch.randint(0, 32, (64,), generator=torch.Generator().manual_seed(1))
    return torch.zeros(8, 32, 16).to(x).index_add(1, index, x.repeat(1, 2, 1))


def opened_at_the_first(x: Tensor) -> Tensor:
    """De et al. 2024 (Griffin): the gate of the first step is 1, written as a sum of truth values."""
    first = (torch.arange(10) == 0)[:, None]
    return x + 2.0 * (first + ~first * torch.sigmoid(x))


def bags(mode: str, table: Tensor, x: Tensor) -> Tensor:
    tokens = (x.detach() * 1e4).long() % len(table)
    return x + F.embedding_bag(tokens, table, mode=mode)


SQUARE = {"w": (16, 16)}
OPS: dict[str, tuple[Between, dict[str, tuple[int, ...]], tuple[int, ...], float]] = {
    "weight on the left": (lambda p, x: torch.einsum("ij,bjk->bik", p["w"], x), {"w": (9, 10)}, (8, 10, 16), 0.08),
    "einsum of activations": (
        lambda p, x: torch.einsum("btc,bsc->bts", x, torch.tanh(x @ p["w"])), SQUARE, (8, 10, 16), 0.1,
    ),
    "a matrix for each head": (
        lambda p, x: torch.einsum("bhc,hcd->bhd", x.view(-1, 4, 40), p["w"]), {"w": (4, 40, 20)}, (8, 10, 16), 0.08,
    ),
    "baddbmm": (
        lambda p, x: torch.baddbmm(p["b"], x.view(4, -1, 16), p["w"]),
        {"w": (4, 16, 16), "b": (4, 1, 16)},
        (32, 16),
        0.08,
    ),
    "quotient": (lambda p, x: x / (1 + (x @ p["w"]).square()), SQUARE, (64, 16), 0.12),
    "length one": (lambda p, x: x / x.norm(dim=-1, keepdim=True), {}, (64, 16), 0.1),
    "norm": (lambda p, x: x.norm(dim=-1), {}, (8, 32, 16), 0.1),
    "variance": (lambda p, x: x.var(-1), {}, (8, 32, 16), 0.1),
    "deviation": (lambda p, x: x.std(-1), {}, (8, 32, 16), 0.08),
    "less its mean": (lambda p, x: x - x.mean(1, keepdim=True), {}, (8, 32, 16), 0.06),
    "logsumexp": (lambda p, x: x.logsumexp(-1), {}, (8, 32, 16), 0.1),
    "largest of a row": (lambda p, x: x.relu().amax(-1), {}, (8, 32, 16), 0.1),
    "least of a column": (lambda p, x: x.min(1)[0], {}, (8, 32, 16), 0.1),
    "cosine": (lambda p, x: F.cosine_similarity(x, x @ p["w"], dim=-1), SQUARE, (8, 32, 16), 0.12),
    "where data says": (lambda p, x: torch.where(x > 0.3, x, torch.tanh(x @ p["w"])), SQUARE, (8, 32, 16), 0.1),
    "the larger": (lambda p, x: torch.maximum(x, x @ p["w"]), SQUARE, (64, 16), 0.08),
    "gated half": (lambda p, x: F.glu(x, -1), {}, (64, 16), 0.08),
    "running sum": (lambda p, x: x.cumsum(1), {}, (8, 12, 16), 0.06),
    "triangle": (lambda p, x: x.tril(-1), {}, (8, 16, 16), 0.06),
    "rows replaced": (lambda p, x: rows(x), {}, (8, 32, 16), 0.06),
    "block replaced": (lambda p, x: block(x, torch.tanh(x @ p["w"])), SQUARE, (8, 32, 16), 0.06),
    "filled step by step": (lambda p, x: step_by_step(x), {}, (8, 32, 16), 0.06),
    "changed through a view": (lambda p, x: through_view(x, p["w"]), {"w": (31, 13)}, (8, 32, 16), 0.1),
    "largest few": (lambda p, x: x.topk(4, -1)[0], {}, (8, 32, 16), 0.06),
    "gather": (lambda p, x: x.gather(1, (x @ p["w"]).argsort(1)[:, :5]), SQUARE, (8, 32, 16), 0.1),
    "one token each": (
        lambda p, x: x[torch.arange(8), (x @ p["w"]).sum(-1).argmax(1)], SQUARE, (8, 32, 16), 0.12,
    ),
    "scattered gate": (lambda p, x: scattered(x, p["w"]), SQUARE, (64, 16), 0.06),
    "summed by index": (lambda p, x: summed_by_index(x), {}, (8, 32, 16), 0.06),
    "softmax of a parameter": (
        lambda p, x: torch.einsum("ij,bjc->bic", p["w"].softmax(-1), x), {"w": (9, 10)}, (8, 10, 16), 0.08,
    ),
    "truth values added": (lambda p, x: opened_at_the_first(x), {}, (8, 10, 16), 0.15),
    "bags of rows summed": (lambda p, x: bags("sum", p["w"], x), {"w": (20, 16)}, (64, 16), 0.1),
    "bags of rows averaged": (lambda p, x: bags("mean", 9.0 * p["w"], x), {"w": (20, 16)}, (64, 16), 0.1),
    "known positions": (
        lambda p, x: x * torch.linspace(0.5, 2.0, 16).to(x) + torch.arange(10).to(x)[:, None] / 10,
        {},
        (8, 10, 16),
        0.06,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_an_op_between_two_layers(name: str) -> None:
    op, shapes, size, limit = OPS[name]
    assert worst(Around(op, **shapes), *size) < limit


PICTURES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "columns": (lambda x: F.unfold(x, 3, padding=1, stride=2).unsqueeze(-1), 8),
    "patches": (lambda x: F.unfold(x, 2, stride=2).unsqueeze(-1), 8),
    "columns added up": (lambda x: F.fold(x.flatten(2), (12, 12), 3, padding=1), 72),
    "windows": (lambda x: x.unfold(2, 4, 2).flatten(3), 8),
    "padded with ones": (lambda x: F.pad(x, (1, 1, 2, 2), value=1.0), 8),
    "padded for a maximum": (lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 2), 8),
    "cubic": (lambda x: F.interpolate(x, size=(18, 18), mode="bicubic"), 8),
}


@pytest.mark.parametrize("name", PICTURES)
def test_an_op_on_images(name: str) -> None:
    op, channels = PICTURES[name]
    assert worst(Images(op, channels), 8, 3, 12, 12) < 0.1


def test_a_weight_that_is_computed_from_parameters_alone() -> None:
    torch.manual_seed(0)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 32))
    found, signal = errors(nn.Sequential(normed, nn.ReLU(), nn.Linear(32, 8)), (64, 16), PASSES)
    assert max(map(abs, found.values())) < 0.08
    assert not signal.unknown


class Swish(torch.autograd.Function):
    """x·σ(x) with a backward of its own."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        gate = torch.sigmoid(x)
        return grad * gate * (1 + x * (1 - gate))


class Total(torch.autograd.Function):
    """A function that is not of single entries."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x - x.cumsum(-1)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        return grad


def test_a_users_own_pointwise_function_is_sampled() -> None:
    assert worst(Around(lambda p, x: Swish.apply(x)), 64, 16) < 0.06


def test_a_users_own_function_of_several_entries_is_unknown() -> None:
    model = Around(lambda p, x: Total.apply(x))
    model(torch.randn(64, 16))
    graph, _ = capture(model, (torch.randn(64, 16),))
    signal = predict(graph)
    assert list(signal.unknown) and "first.weight" not in signal.profile.params


def test_what_is_divided_by_tensors_that_were_there() -> None:
    found = Around(lambda p, x: x / torch.tensor([1.0, 10.0, 100.0, -1000.0]).to(x).repeat(4))
    assert worst(found, 64, 16) < 0.06


def test_a_number_that_may_be_zero_is_not_divided_by() -> None:
    model = Around(lambda p, x: x / (x @ p["w"]), w=(16, 16))
    model(torch.randn(64, 16))
    graph, _ = capture(model, (torch.randn(64, 16),))
    assert "first.weight" not in predict(graph).profile.params


def test_a_mask_that_hides_keys_is_no_number() -> None:
    def attend(p: nn.ParameterDict, x: Tensor) -> Tensor:
        scores = (x @ p["w"]) @ (x @ p["v"]).transpose(1, 2)
        return (scores + torch.full((32, 32), -1e9).triu(1).to(x)).softmax(-1) @ x

    assert worst(Around(attend, w=(16, 16), v=(16, 16)), 8, 32, 16) < 0.25


def test_a_finite_number_added_to_hide_other_windows_is_a_mask() -> None:
    """Shifted windows: −100 between the regions that a window holds, e^−100 being nothing (Swin Transformer)."""
    region = torch.arange(32) // 16
    hidden = torch.where(region[:, None] != region[None], -100.0, 0.0)

    def attend(p: nn.ParameterDict, x: Tensor) -> Tensor:
        scores = (x @ p["w"]) @ (x @ p["v"]).transpose(1, 2) + p["bias"]
        return (scores + hidden.to(x)[None]).softmax(-1) @ x

    assert worst(Around(attend, w=(16, 16), v=(16, 16), bias=(32, 32)), 8, 32, 16) < 0.25


def test_what_nothing_fed_in_changes_survives_serialisation() -> None:
    model = Around(*OPS["softmax of a parameter"][:1], **OPS["softmax of a parameter"][1])
    model(torch.randn(8, 10, 16))
    graph, _ = capture(model, (torch.randn(8, 10, 16),))
    again = from_data(Graph, to_data(graph))
    assert any(fixed.responses for fixed in graph.fixed.values())
    before, after = predict(graph).profile.params, predict(again).profile.params
    assert before.keys() == after.keys()
    assert np.allclose(list(before.values()), list(after.values()))
