"""A model on meta is predicted from what its parameters would have been drawn from, as the drawn model is."""

from __future__ import annotations

import math
import sys
import types
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.load import meta
from gradlint.load.initial import initial_of
from gradlint.signal import predict


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.PReLU(), nn.Flatten(), nn.Linear(64 * 36, 10))


def encoder() -> nn.Module:
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True), 2)


class Scaled(nn.Module):
    """Initialised by hand: scaled noise, parts of a weight, constants, a scale afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 128), nn.Linear(128, 192), nn.Linear(192, 64)
        self.noise = nn.Parameter(torch.randn(64, 64) * 0.02)
        self.gain = nn.Parameter(1e-5 * torch.ones(64))
        nn.init.orthogonal_(self.a.weight, 1.7)
        nn.init.trunc_normal_(self.c.weight, std=0.02)
        self.c.weight.data.mul_(0.5)
        with torch.no_grad():
            for part in self.b.weight.chunk(3):
                nn.init.xavier_uniform_(part)
            self.b.bias[:64] = 1.0
            self.b.bias[64:].fill_(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.c(F.gelu(self.b(self.a(x))))) @ self.noise * self.gain


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.net, self.head = nn.Embedding(500, 64, 0), nn.LSTM(64, 64, 2), nn.Linear(64, 500)
        for name, param in self.net.named_parameters():
            if "bias" in name:
                nn.init.zeros_(param)
                param.data[64:128].fill_(1.0)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.net(self.embed(tokens))[0])


MODELS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "conv": (conv, torch.zeros(4, 3, 8, 8)),
    "encoder": (encoder, torch.zeros(2, 8, 64)),
    "scaled": (Scaled, torch.zeros(8, 64)),
    "recurrent": (Recurrent, torch.zeros(6, 4, dtype=torch.long)),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_noted_is_what_would_have_been_drawn(name: str) -> None:
    make, _ = MODELS[name]
    torch.manual_seed(0)
    drawn, empty = make(), meta.meta_build(make)
    for path, param in drawn.named_parameters():
        owner, _, short = path.rpartition(".")
        found = initial_of(empty.get_submodule(owner), short)
        assert found is not None, path
        real = param.detach().double()
        sampling = 5.0 / math.sqrt(param.numel())
        assert found.rms == pytest.approx(float((real**2).mean().sqrt()), rel=sampling), path
        assert found.mean == pytest.approx(float(real.mean()), abs=sampling * max(found.rms, 1e-12)), path
        assert found.zero_share == pytest.approx(float((real == 0).double().mean()), abs=0.02), path


@pytest.mark.parametrize("name", MODELS)
def test_the_prediction_on_meta_agrees_with_that_of_the_drawn_model_within_its_uncertainty(name: str) -> None:
    make, x = MODELS[name]
    torch.manual_seed(0)
    drawn, _ = capture(make().train(), (x,))
    empty, _ = capture(meta.meta_build(make).train(), (x.to("meta"),))
    real, found = predict(drawn), predict(empty)
    assert set(found.profile.params) == set(real.profile.params)
    assert real.profile.params
    for path, size in real.profile.params.items():
        if size == -math.inf:
            continue
        apart = abs(found.profile.params[path] - size)
        assert apart <= 1.96 * math.hypot(found.profile.spread[path], real.profile.spread[path]), path


def test_what_is_not_followed_is_unknown_and_not_what_it_was_before() -> None:
    class Shuffled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.empty(8, 8).normal_())
            with torch.no_grad():
                self.weight.cumsum_(0)

    assert initial_of(meta.meta_build(Shuffled), "weight") is None


def test_torch_is_left_as_it_was() -> None:
    before = nn.init.orthogonal_, nn.init._no_grad_trunc_normal_
    meta.meta_build(conv)
    assert (nn.init.orthogonal_, nn.init._no_grad_trunc_normal_) == before
    assert float(nn.init.eye_(torch.empty(4, 4)).sum()) == 4.0


def test_transformers_initialise_on_meta_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision._meta_registrations", types.ModuleType("stub"))
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4, vocab_size=200
    )
    model = meta.meta_build(lambda: transformers.LlamaForCausalLM(config))
    found = initial_of(model.get_submodule("model.layers.0.self_attn.q_proj"), "weight")
    assert found is not None
    assert found.std == pytest.approx(config.initializer_range, rel=0.01)
