"""Complex numbers as pairs, and products with known ones (rotary positions), against real float64 passes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradlint.capture import capture
from gradlint.capture.fixed import parts
from gradlint.graph import Graph
from gradlint.profile import Signal
from gradlint.serialise import from_data, to_data
from gradlint.signal import predict
from gradlint.signal import table as tables
from gradlint.signal.field import white
from gradlint.signal.sway import Sway
from gradlint.signal.transfer_complex import turned
from tests.test_signal_coverage import Around, Between, worst
from tests.test_signal_mechanisms import errors

Factor = Callable[[int, int], Tensor]  # complex numbers by position and pair


def rotary(length: int, pairs: int) -> Tensor:
    """Su et al. 2021 (RoFormer): e^{i t θ_k}, θ_k = 10000^{−k/pairs}."""
    phases = torch.outer(torch.arange(length).double(), 10000.0 ** (-torch.arange(pairs).double() / pairs))
    return torch.polar(torch.ones_like(phases), phases)


def longer(length: int, pairs: int) -> Tensor:
    """The same with moduli that grow with the pair and fall with the position."""
    moduli = torch.outer(torch.linspace(2.0, 0.5, length), torch.linspace(0.2, 3.0, pairs)).double()
    return moduli * rotary(length, pairs)


def uneven(length: int, pairs: int) -> Tensor:
    """The same with a modulus that is not the same at all positions."""
    return torch.tensor([1.4, 0.6]).repeat(length // 2).double()[:, None] * rotary(length, pairs)


def steady(length: int, pairs: int) -> Tensor:
    """No rotation, only a scale."""
    return torch.full((length, pairs), 1.7, dtype=torch.complex128)


def rotated(x: Tensor, c: Tensor) -> Tensor:
    """Every pair of features times the number of its position: x is (batch, length, heads, features)."""
    z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * c[:, None]
    return torch.view_as_real(z).flatten(3)


@pytest.mark.parametrize("factor", [rotary, longer, steady])
@pytest.mark.parametrize("mean", [0.0, 1.5])
def test_moments_of_turned_pairs_against_draws(factor: Factor, mean: float) -> None:
    random, length, pairs = np.random.default_rng(0), 5, 3
    sizes = ((1, 1, 1), (length, 1, 1), (1, pairs, 1), (1, pairs, 2), (length, pairs, 2))
    x = mean + sum(random.normal(size=(40_000, *size)) for size in sizes)
    c = factor(length, pairs)
    z = (x[..., 0] + 1j * x[..., 1]) * c.numpy()
    y = np.stack((z.real, z.imag), -1)
    found = shared(x) * shared(parts(c).numpy()[None])
    assert np.allclose(found, shared(y), rtol=0.05, atol=0.05 * shared(y).max())


def shared(y: np.ndarray) -> np.ndarray:
    """E[y y′] by whether the position, the pair and the part are the same."""
    flat = y.reshape(len(y), -1)
    products = (flat.T @ flat / len(y)).reshape(y.shape[1:] * 2)
    found = np.empty((2, 2, 2))
    for same in np.ndindex(2, 2, 2):
        chosen = np.ones_like(products, dtype=bool)
        for axis, (size, equal) in enumerate(zip(y.shape[1:], same, strict=True)):
            along = [1] * 6
            along[axis] = along[axis + 3] = size
            chosen &= (np.eye(size, dtype=bool) ^ (not equal)).reshape(along)
        found[same] = products[chosen].mean()
    return found


def test_what_a_factor_turns_has_its_energies_still() -> None:
    pairs = tables.dims_of((8, 5, 3, 2), batch=0)
    x = replace(white(pairs, 1.0, 0.3), sway=Sway(0.2))
    c = white(pairs[1:], 0.0, 1.0)
    y = turned(0, 1, x, c).outputs[0]
    assert y is not None and y.sway is x.sway


class Attention(nn.Module):
    """Attention over turned queries and keys, several queries to a key where `groups` is above one."""

    def __init__(self, factor: Factor, length: int, *, causal: bool, heads: int = 4, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.heads, self.groups, self.causal, width = heads, groups, causal, 16
        self.before = nn.Linear(160, 128)
        self.q, self.k, self.v = (
            nn.Linear(128, width * n, bias=False) for n in (heads, heads // groups, heads // groups)
        )
        self.o = nn.Linear(heads * width, 128, bias=False)
        self.c = factor(length, width // 2).to(torch.complex64)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        q, k, v = (layer(x).unflatten(2, (-1, 16)) for layer in (self.q, self.k, self.v))
        q, k = rotated(q, self.c), rotated(k, self.c)
        k, v = (t.repeat_interleave(self.groups, dim=2) for t in (k, v))
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        logits = q @ k.transpose(2, 3) / 4.0
        if self.causal:
            logits = logits + torch.full(logits.shape[-2:], -math.inf).triu(1)
        return self.o((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("factor", [rotary, uneven, steady])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("length", "groups"), [(6, 1), (24, 1), (12, 2), (16, 4)])
def test_attention_over_turned_queries_and_keys(factor: Factor, causal: bool, length: int, groups: int) -> None:
    model = Attention(factor, length, causal=causal, groups=groups)
    found, signal = errors(model, (8, length, 160))
    assert not signal.unknown
    assert max(map(abs, found.values())) < 0.1


def paired(x: Tensor) -> Tensor:
    return torch.view_as_complex(x.unflatten(-1, (-1, 2)))


def flat(z: Tensor) -> Tensor:
    return torch.view_as_real(z).flatten(2)


def in_place(x: Tensor, c: Tensor) -> Tensor:
    y = x.view(8, 6, 8, 2) * 1.0
    torch.view_as_complex(y).mul_(c)
    return y.flatten(2)


@pytest.mark.parametrize("factor", [rotary, longer, steady])
@pytest.mark.parametrize(
    "op",
    [
        lambda x, c: flat(paired(x) * c),
        lambda x, c: flat(c * paired(torch.relu(x))),
        lambda x, c: flat((paired(x).transpose(0, 1) * c[:, None]).contiguous()).transpose(0, 1),
        lambda x, c: flat((paired(x).reshape(8, 6, 4, 2) * c.view(6, 4, 2)).flatten(2)),
        lambda x, c: torch.view_as_real(paired(x) * c)[..., 0],
        lambda x, c: flat(paired(torch.relu(x)) * c).mean(1),
        in_place,
    ],
)
def test_turned_pairs_between_two_layers(factor: Factor, op: Callable[[Tensor, Tensor], Tensor]) -> None:
    c = factor(6, 8).to(torch.complex64)
    assert worst(Around(lambda p, x: op(x, c)), 8, 6, 16) < 0.06


def test_positions_that_are_fed_in_turn_pairs_as_they_were() -> None:
    class Fed(Around):
        def forward(self, x: Tensor) -> Tensor:
            phases = (x[..., :1] * 3.0).detach() * torch.linspace(1.0, 0.1, 8)
            c, y = torch.polar(torch.ones_like(phases), phases), self.first(x)
            return self.last(torch.cat((flat(paired(torch.relu(y)) * c).mean(1), (y * flat(c))[:, 0]), -1))

    assert worst(Fed(lambda p, x: x), 8, 6, 16) < 0.08


def test_the_size_of_a_complex_number_is_its_magnitude() -> None:
    c = longer(6, 8).to(torch.complex64)
    model, graph, signal = predicted(lambda p, x: flat(paired(x) * c))
    z = paired(model.first(torch.randn(64, 6, 16, generator=torch.Generator().manual_seed(2)))) * c
    z.retain_grad()
    y = model.last(flat(z))
    (y * torch.randn(y.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    value = next(op.outputs[0] for op in graph.ops if op.kind == "mul")
    assert z.grad is not None
    for found, real in ((signal.profile.activation, z), (signal.profile.gradient, z.grad)):
        assert abs(found[value] - 0.5 * math.log10(real.abs().square().mean().item())) < 0.05


def predicted(op: Between) -> tuple[Around, Graph, Signal]:
    """A model around an op, its graph as it comes back from JSON, and the prediction."""
    model = Around(op, own=(6, 8, 2))
    x = torch.randn(64, 6, 16, generator=torch.Generator().manual_seed(1))
    model(x)
    graph = from_data(Graph, to_data(capture(model, (x,))[0]))
    return model, graph, predict(graph)


@pytest.mark.parametrize(
    ("op", "reason"),
    [
        (lambda p, x: flat(paired(x) * paired(x.tanh())), "mul of complex numbers"),
        (lambda p, x: flat(paired(x) * torch.view_as_complex(p["own"])), "mul of complex numbers"),
        (lambda p, x: flat(paired(x) * 1j), "mul of complex numbers"),
        (lambda p, x: flat(paired(x) / longer(6, 8).to(torch.complex64)), "div of complex numbers"),
        (lambda p, x: flat(paired(x) * torch.polar(torch.ones(6, 8), p["own"][..., 0])), "polar of complex numbers"),
        (lambda p, x: paired(x).abs(), "abs of complex numbers"),
        (lambda p, x: flat(paired(x).mean(1, keepdim=True)), "mean of complex numbers"),
        (lambda p, x: flat(paired(x)[:, 1:]), "getitem of complex numbers"),
        (lambda p, x: paired(x).real, "the real part of numbers that are no Fourier transform"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_other_uses_of_complex_numbers_are_unknown(op: Between, reason: str) -> None:
    _, _, signal = predicted(op)
    assert any(reason in found for found in signal.unknown.values()), signal.unknown
    assert "first.weight" not in signal.profile.params


@pytest.mark.parametrize(
    "op",
    [
        lambda x, c: flat(paired(x) * c),
        lambda x, c: (x.unflatten(-1, (-1, 2)) * torch.view_as_real(c)).flatten(2),
        lambda x, c: flat(paired(x) + c),
    ],
)
def test_a_complex_parameter_is_not_taken_for_its_magnitudes(op: Callable[[Tensor, Tensor], Tensor]) -> None:
    class Filtered(Around):
        def __init__(self) -> None:
            super().__init__(lambda p, x: x)
            self.filter = nn.Parameter(rotary(6, 8).to(torch.complex64))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(op(self.first(x), self.filter))

    model, x = Filtered(), torch.randn(8, 6, 16)
    model(x)
    signal = predict(capture(model, (x,))[0])
    assert list(signal.unknown.values()) == ["a parameter of complex numbers"]
    assert not {"first.weight", "filter"} & set(signal.profile.params)


def test_parts_of_unequal_size_are_mixed_evenly() -> None:
    phases = torch.outer(torch.arange(6), torch.arange(1, 17)) * (2.0 * math.pi / 6.0)
    c = torch.polar(torch.ones_like(phases), phases)

    def op(p: nn.ParameterDict, x: Tensor) -> Tensor:
        z = torch.view_as_complex(torch.stack((x, 6.0 * p["own"].expand_as(x)), -1))
        return torch.view_as_real(z * c)[..., 0]

    assert worst(Around(op, own=(16,)), 8, 6, 16) < 0.12


def test_complex_numbers_that_no_data_meets_are_nothing_unknown() -> None:
    c = rotary(6, 8)

    def op(p: nn.ParameterDict, x: Tensor) -> Tensor:
        c[:3].abs()
        return x

    _, _, signal = predicted(op)
    assert not signal.unknown
