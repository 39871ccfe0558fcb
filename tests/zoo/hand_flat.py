"""Nets on rows of features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hand import net
from torch import nn
from torch.utils.checkpoint import checkpoint


@net(x="float32:2")
class MLPSigmoid(nn.Module):
    def __init__(self, width=24, depth=6, classes=3):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        for layer in self.layers:
            x = torch.sigmoid(layer(x))
        return self.head(x)


@net(x="float32:2")
class SetItemNet(nn.Module):
    """Writes into slices of a fresh tensor."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(10, 10)

    def forward(self, x):
        out = torch.zeros(x.shape[0], 20)
        out[:, :10] = self.linear(x)
        out[:, 10:] = x
        out.mul_(0.5)
        return out.tanh()


@net(x="float32:2")
class SharedBlock(nn.Module):
    """One block applied several times, registered under two names."""

    def __init__(self):
        super().__init__()
        self.block = nn.Sequential(nn.LayerNorm(20), nn.Linear(20, 20), nn.GELU())
        self.same = self.block
        self.out = nn.Linear(20, 1)

    def forward(self, x):
        for _ in range(3):
            x = x + self.block(x)
        return self.out(self.same(x))


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        gate = x.sigmoid()
        return grad * (gate + x * gate * (1 - gate))


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.sign()

    @staticmethod
    def backward(ctx, grad):
        return grad.clamp(-1, 1)


@net(x="float32:2")
class CustomFn(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(18, 24)
        self.second = nn.Linear(24, 5)

    def forward(self, x):
        return self.second(StraightThrough.apply(Swish.apply(self.first(x))))


@net(x="float32:2")
class FunctionalActs(nn.Module):
    """Bare weights, every way of calling an activation."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(14, 14) * 0.2) for _ in range(5))
        self.bias = nn.Parameter(torch.zeros(14))

    def forward(self, x):
        a, b, c, d, e = self.weights
        x = torch.relu(torch.matmul(x, a))
        x = F.sigmoid(x @ b)
        x = x.mm(c).tanh()
        x = F.leaky_relu(F.linear(x, d, self.bias), 0.1)
        return F.log_softmax(x @ e, dim=-1)


@net(x="float32:2")
class DetachStop(nn.Module):
    def __init__(self):
        super().__init__()
        self.online = nn.Linear(12, 12)
        self.target = nn.Linear(12, 12)
        self.out = nn.Linear(12, 3)

    def forward(self, x):
        online = self.online(x).relu()
        with torch.no_grad():
            target = self.target(x)
        return self.out(online.detach() - target)


@net(x="float32:2")
class ArgmaxNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Linear(12, 20)
        self.table = nn.Embedding(20, 6)
        self.out = nn.Linear(6, 2)

    def forward(self, x):
        return self.out(self.table(self.score(x).argmax(dim=-1)))


@net(x="float32:2")
class NumpyRound(nn.Module):
    """A detour through numpy."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(12, 12)
        self.out = nn.Linear(12, 2)

    def forward(self, x):
        hidden = self.inner(x)
        rounded = torch.from_numpy(hidden.detach().numpy().round())
        return self.out(hidden + rounded)


@net(x="float32:2")
class VAE(nn.Module):
    def __init__(self, features=30, latent=4):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(features, 24), nn.ELU())
        self.mean = nn.Linear(24, latent)
        self.log_var = nn.Linear(24, latent)
        self.decode = nn.Sequential(nn.Linear(latent, 24), nn.ELU(), nn.Linear(24, features))

    def forward(self, x):
        hidden = self.encode(x)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        z = mean + (log_var / 2).exp() * torch.randn_like(mean)
        return self.decode(z), mean, log_var


@net(x="float32:2")
class DistNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(9, 3)
        self.scale = nn.Linear(9, 3)

    def forward(self, x):
        law = torch.distributions.Normal(self.mean(x), F.softplus(self.scale(x)) + 1e-2)
        return law.log_prob(law.rsample()).sum(dim=-1)


@net(x="float32:2")
class CkptNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(11, 22), nn.ReLU(), nn.Linear(22, 11))
        self.out = nn.Linear(11, 1)

    def forward(self, x):
        return self.out(checkpoint(self.body, x, use_reentrant=False))


@torch.jit.script
def scripted_swish(x):
    return x * torch.sigmoid(x)


@net(x="float32:2")
class JitFnNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(11, 22)
        self.second = nn.Linear(22, 1)

    def forward(self, x):
        return self.second(scripted_swish(self.first(x)))


@net(x="float32:2")
class SpectralNormNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.utils.parametrizations.spectral_norm(nn.Linear(13, 13))
        self.second = nn.utils.parametrizations.weight_norm(nn.Linear(13, 3))

    def forward(self, x):
        return self.second(F.relu(self.first(x)))


@net(x="float32:2")
class OldWeightNorm(nn.Module):
    """The hook-based normalisations of older code."""

    def __init__(self):
        super().__init__()
        self.first = nn.utils.weight_norm(nn.Linear(13, 5))
        self.second = nn.utils.spectral_norm(nn.Linear(5, 5))

    def forward(self, x):
        return self.second(self.first(x).relu())


@net(**{"0": "float32:2"})
class KwargsForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(15, 15)

    def forward(self, *args, **kwargs):
        return self.linear(args[0]) * kwargs.get("scale", 1.0)


@net(x="float32:2")
class DirectForwardCall(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(15, 10)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(10, 1))

    def forward(self, x):
        return self.rest.forward(self.first.forward(x))


@net(x="float32:2")
class DictLookupStr(nn.Module):
    """An activation looked up by name, and layers that a plain list hides."""

    def __init__(self, activation="tanh"):
        super().__init__()
        self.functions = {"relu": F.relu, "tanh": torch.tanh}
        self.activation = activation
        self.hidden = [nn.Linear(17, 17), nn.Linear(17, 17)]
        self.out = nn.Linear(17, 1)

    def forward(self, x):
        for layer in self.hidden:
            x = self.functions[self.activation](layer(x))
        return self.out(x)


@net(x="float32:2")
class ShapeAssertFmt(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 12)

    def forward(self, x):
        rows, columns = x.shape
        assert columns == 12 and x.dim() == 2, f"expected (rows, 12), got {tuple(x.shape)}"
        lower = torch.ones(columns, columns, dtype=torch.bool).tril()
        y = self.linear(x).masked_fill(~lower[-2], 0.0)
        return y[:, [i for i in range(columns) if i % 3 == 0]].sum() / max(rows, 1)


@net(a="float32:2", b="float32:2")
class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.PReLU(), nn.Linear(32, 8))

    def forward(self, a, b):
        return F.cosine_similarity(self.encoder(a), self.encoder(b))


@net(x="float32:2")
class DataDepBranch(nn.Module):
    def __init__(self):
        super().__init__()
        self.warm = nn.Linear(10, 10)
        self.cold = nn.Linear(10, 10)
        self.out = nn.Linear(10, 1)

    def forward(self, x):
        x = self.warm(x).relu() if x.mean() > 0 else self.cold(x).relu()
        return self.out(x)


@net(x="float32:2")
class DataDepLoop(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Linear(10, 10)

    def forward(self, x):
        for _ in range(6):
            if x.norm().item() < 1.0:
                break
            x = 0.5 * torch.tanh(self.step(x))
        return x.sum(dim=1)


@net(x="float32:2")
class MoERouting(nn.Module):
    def __init__(self, width=10, experts=3):
        super().__init__()
        self.gate = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 20), nn.GELU(), nn.Linear(20, width)) for _ in range(experts)
        )

    def forward(self, x):
        weights, chosen = torch.topk(F.softmax(self.gate(x), dim=-1), 2)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, slots = torch.where(chosen == number)
            if rows.numel() > 0:
                out.index_add_(0, rows, expert(x[rows]) * weights[rows, slots, None])
        return out
