"""Attention between norms over the batch: samples and tokens of unequal energy, against draws and real backward passes.

A sample whose tokens differ more has larger queries, keys and values, so that attention cubes its energy, and no norm
over the batch takes that back: a few layers on, one sample of the batch has all that differs between tokens.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlint.capture import capture
from gradlint.signal.patterns import products
from gradlint.signal.predict import _Run
from gradlint.signal.samples import by_sample, energies, told_apart, varying, with_others
from gradlint.signal.spectrum import divided, divided_by_sample
from gradlint.signal.sway import Tokens, concentrated, diluted
from gradlint.signal.table import Axis, constant
from gradlint.signal.uneven_tokens import Attention, uneven
from tests.test_signal_mechanisms import errors

HEADS, WIDTH, FEATURES = 4, 16, 128


class Drawn:
    """Rows of attention over tokens whose energies e have the log variance w, for logits of this variance."""

    def __init__(self, keys: int, variance: float, w: float) -> None:
        random = torch.Generator().manual_seed(0)
        found = []
        for _ in range(6):
            normal = torch.randn(16, keys, FEATURES + 1, generator=random, dtype=torch.float64)
            e = (math.sqrt(w) * normal[..., :1] - 0.5 * w).exp()
            x = normal[..., 1:] * e.sqrt()
            q, k, v = (self._drawn(x, random) for _ in range(3))
            a = (q @ k.transpose(-1, -2) * math.sqrt(variance / WIDTH)).softmax(-1)
            square, away = (a**2).sum(-1), (a - 1.0 / keys) ** 2
            sizes = (v**2).mean(-1)[:, :, None, :]
            noise = (away * sizes).sum(-1).mean((1, 2))
            found.append(
                [
                    square.mean() - 1.0 / keys,
                    (square - 2.0 * (a**3).sum(-1) + square**2).mean(),
                    (away * sizes).mean() / (away.mean() * sizes.mean()),
                    noise.log().var(),
                ]
            )
        self.square, self.jacobian, self.aligned, self.samples = (float(n) for n in torch.tensor(found).mean(0))

    @staticmethod
    def _drawn(x: Tensor, random: torch.Generator) -> Tensor:
        weight = torch.randn(FEATURES, HEADS * WIDTH, generator=random, dtype=torch.float64) / math.sqrt(FEATURES)
        return (x @ weight).unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)


@pytest.mark.parametrize(("keys", "variance", "w"), [(64, 1.0, 0.1), (64, 1.0, 0.3), (64, 0.3, 0.2), (16, 2.0, 0.3)])
def test_rows_over_tokens_of_unequal_energy_against_draws(keys: int, variance: float, w: float) -> None:
    tokens = Tokens(w + 2.0 / FEATURES, 2.0 / WIDTH)
    found, even = (uneven(variance, each, Attention(keys, keys, HEADS, WIDTH)) for each in (tokens, Tokens(0.0, 1e-9)))
    drawn, level = Drawn(keys, variance, w), Drawn(keys, variance, 0.0)
    assert found.square / even.square == pytest.approx(drawn.square / level.square * _apart(variance, keys), rel=0.15)
    assert found.aligned == pytest.approx(drawn.aligned, rel=0.12)
    assert found.samples == pytest.approx(drawn.samples, rel=0.55)
    assert found.aligned > 1.2


def _apart(variance: float, keys: int) -> float:
    """What the finite width of a head adds for tokens of equal energy."""
    return uneven(variance, Tokens(2.0 / FEATURES, 2.0 / WIDTH), Attention(keys, keys, HEADS, WIDTH)).square


def test_equal_tokens_are_left_alone() -> None:
    found = uneven(1.0, Tokens(0.0, 0.0), Attention(64, 64))
    assert found.square == found.jacobian == found.aligned == found.taken == found.twice == 1.0
    assert found.samples == found.rows == 0.0


def test_a_norm_over_samples_of_unequal_energy_against_draws() -> None:
    """Of the sample with the most, what all its positions have in common loses the most to the common divisor."""
    own, common, count = np.array([0.1, 0.3, 0.6, 2.2]), 0.4, 9
    random = np.random.default_rng(0)
    shared = random.normal(size=(200_000, 4, 1)) * math.sqrt(common)
    x = shared - shared.mean(1, keepdims=True) + random.normal(size=(200_000, 4, count)) * np.sqrt(own)[:, None]
    unit = x / np.sqrt((x**2).mean((1, 2), keepdims=True))
    values = np.empty((4, 2, 2))
    values[:, 0], values[:, 1, 0] = -common / 4.0, 0.75 * common
    values[:, 1, 1] = 0.75 * common + own
    scale = float(values[:, 1, 1].mean())
    found, inflation = divided_by_sample(values / scale, [4, count], np.full(4, 0.25))
    for k in range(4):
        assert found[k, 1, 1] == pytest.approx((unit[:, k] ** 2).mean(), rel=0.03)
        assert found[k, 1, 0] == pytest.approx((unit[:, k, 0] * unit[:, k, 1]).mean(), rel=0.08)
    assert inflation == pytest.approx((1.0 / (x**2).mean((1, 2))).mean() * scale, rel=0.05)


def test_equal_samples_are_divided_as_one_class() -> None:
    values = np.array([[[-0.1, -0.1], [0.3, 1.0]]])
    one, inflation = divided(values, (4, 16))
    many, same = divided_by_sample(np.repeat(values, 4, 0), [4, 16], np.full(4, 0.25))
    assert np.allclose(many, one) and same == pytest.approx(float(inflation[0]))


def test_products_of_patterns_are_those_of_matrices() -> None:
    """Of two matrices that only ask which of two axes their indices share, the product is one again."""
    random, sizes = np.random.default_rng(0), (3, 5)
    x, y = random.normal(size=(2, 2, 2))

    def matrix(values: np.ndarray) -> np.ndarray:
        same = [np.eye(size, dtype=int) for size in sizes]
        return np.array(
            [
                [values[same[0][i, k], same[1][j, m]] for k in range(3) for m in range(5)]
                for i in range(3)
                for j in range(5)
            ]
        )

    found = np.einsum("pab,a,b->p", products(sizes), x.ravel(), y.ravel()).reshape(2, 2)
    assert np.allclose(matrix(found), matrix(x) @ matrix(y))


@pytest.mark.parametrize("samples", [2, 4, 30])
def test_samples_are_told_apart_by_what_differs_between_their_tokens(samples: int) -> None:
    table = constant(((Axis(samples, batch=True),), (Axis(9),), (Axis(5),)), 1.0, 0.25)
    found = told_apart(table, [1], 0.3)
    assert by_sample(found) and found.square == pytest.approx(1.0)
    shares = varying(found, [1])
    logs = np.log(shares / found.weights)
    assert found.weights @ (logs - found.weights @ logs) ** 2 == pytest.approx(0.3)
    assert np.allclose(found.values[:, 1, 0, 1], 0.25)  # of what all positions have in common, all have as much
    assert with_others(found, [1]).all == pytest.approx(0.75)
    more = told_apart(found, [1], 0.3)
    logs = np.log(varying(more, [1]) / more.weights)
    assert more.weights @ (logs - more.weights @ logs) ** 2 == pytest.approx(0.6)
    assert told_apart(table, [1], 1e-4) is table


def test_energies_of_samples_have_their_mean_and_spread() -> None:
    found, counts = energies(0.5, 30)
    weights = np.array(counts) / 30.0
    assert sum(counts) == 30 and weights @ found == pytest.approx(1.0)
    assert weights @ (np.log(found) - weights @ np.log(found)) ** 2 == pytest.approx(0.5)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_what_does_not_sway_dilutes_what_does(share: float) -> None:
    diluted_by = diluted(0.4, share)
    random = np.exp(math.sqrt(0.4) * np.random.default_rng(0).normal(size=400_000))
    drawn = np.log(1.0 - share + share * random / random.mean()).var()
    assert diluted_by == pytest.approx(drawn, rel=0.15)
    assert concentrated(diluted_by, share) == pytest.approx(0.4, rel=1e-3)


class Norm(nn.Module):
    """A linear layer and a norm over all samples and tokens."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(before, after, bias=False), nn.BatchNorm1d(after)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.norm(x.flatten(0, 1)).reshape_as(x)


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, Norm(width, 3 * width), Norm(width, width)
        self.up, self.down, self.act = Norm(width, 2 * width), Norm(2 * width, width), nn.Hardswish()

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(-1, (self.heads, -1)).split(x.shape[-1] // self.heads, -1)
        q, k, v = (part.transpose(1, 2) for part in parts)
        a = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
        x = x + self.out(self.act((a @ v).transpose(1, 2).flatten(2)))
        return x + self.down(self.act(self.up(x)))


class BatchNormTransformer(nn.Module):
    """Graham et al. 2021 (LeViT) without its downsampling."""

    def __init__(self, blocks: int, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = Norm(32, width), nn.Linear(width, 10)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean(1))


class Attention1(nn.Module):
    """Queries, keys and values of their own, and all that a row averages as the output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = Norm(32, 64)
        self.q, self.k, self.v = (Norm(64, 64) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (layer(x).unflatten(-1, (4, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


class Pooled(nn.Module):
    """A norm of which the mean over the tokens is read; the tokens of a sample have most in common."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = Norm(32, 64)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x + 4.0 * x.mean(1, keepdim=True)).mean(1)


def test_a_row_answers_to_its_query_with_the_tokens_covariance() -> None:
    """Of many tokens few features are left: what the rows average is more than noise, and so is a query's gradient."""
    found, _ = errors(Attention1(), (4, 196, 32), 8)
    assert max(abs(found[f"{name}.linear.weight"]) for name in ("stem", "q", "k", "v")) < 0.1


def test_a_norm_leaves_of_a_gradient_common_to_all_tokens_what_they_have_in_common() -> None:
    model, shape = Pooled(), (4, 16, 32)
    graph, _ = capture(model, (torch.randn(*shape),))
    run = _Run(graph, {}, None)
    run.forward()
    run.backward("unit")
    place = next(op.outputs[0] for op in graph.ops if op.kind == "linear")
    cotangent = run.cotangents[place]
    assert cotangent is not None
    values = cotangent.table.collapse().values[0]
    drawn = []
    for _ in range(60):
        x = torch.randn(*shape)
        y = model.first.linear(x + 4.0 * x.mean(1, keepdim=True)).detach().requires_grad_()
        z = model.first.norm(y.flatten(0, 1)).reshape_as(y).mean(1)
        (grad,) = torch.autograd.grad((z * torch.randn(z.shape)).sum(), y)
        own = (grad**2).mean()
        drawn.append([float(own), float(((grad.sum(1) ** 2).mean() / 16.0 - own) / 15.0)])
    square, common = np.mean(drawn, 0)
    assert values[1, 0, 1] / values[1, 1, 1] == pytest.approx(common / square, abs=0.03)
    assert values[1, 1, 1] == pytest.approx(square, rel=0.15)


SHAPE = (4, 49, 32)


def matrices(model: nn.Module, found: dict[str, float]) -> np.ndarray:
    sizes = {name: param.ndim for name, param in model.named_parameters()}
    return np.array([error for name, error in found.items() if sizes[name] > 1])


@pytest.mark.parametrize("blocks", [1, 3, 6])
def test_attention_between_norms_over_the_batch(blocks: int) -> None:
    model = BatchNormTransformer(blocks)
    found, _ = errors(model, SHAPE, 16)
    off = matrices(model, found)
    assert np.median(np.abs(off)) < 0.12 and np.max(np.abs(off)) < 0.3


def test_one_sample_comes_to_have_most_of_what_differs_between_tokens() -> None:
    shape = (4, 100, 32)
    model = BatchNormTransformer(12)
    graph, _ = capture(model, (torch.randn(*shape),))
    run = _Run(graph, {}, None)
    run.forward()
    last = [run.fields[op.outputs[0]].table for op in graph.ops if op.kind == "add" and op.outputs[0] in run.fields][-1]
    with torch.no_grad():
        streams = [model.blocks(model.stem(torch.randn(*shape))) for _ in range(6)]
    drawn = [((x - x.mean(1, keepdim=True)) ** 2).mean((1, 2)) for x in streams]
    largest = float(np.mean([float(own.max() / own.sum()) for own in drawn]))
    assert largest > 0.4  # of four samples
    assert varying(last, [1]).max() == pytest.approx(largest, abs=0.15)
