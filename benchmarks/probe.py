"""What the probe costs: an instrumented forward + backward over a bare one, measured in turns in one process.

    python benchmarks/probe.py [--repeats N] [--only NAME]

"replay" is the pass over a known graph, which fixes and further seeds take; "recorded" makes the graph on the way and
converts it. Both take every statistic and bring it over from the device. Ratios are of the fastest of N turns each in
CPU time on one thread; memory is the peak of what torch allocates during the pass, over that of the bare pass.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture import Names
from gradlint.probe.run import Plan, step

TARGETS = {"resnet18": 1.10, "gpt2-small": 1.10, "sigmoid-mlp": 1.60}


class BasicBlock(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        shortcut = [nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)]
        self.downsample = nn.Sequential(*shortcut) if stride > 1 or inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        h += self.downsample(x)
        return self.relu(h)


def resnet18() -> nn.Module:
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [BasicBlock(a, b, 2 if b > a else 1) for a, b in pairwise(widths)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self, layers: int = 12, width: int = 768, heads: int = 12, tokens: int = 50257) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(tokens, width), nn.Parameter(torch.zeros(1024, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, tokens, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embed(ids) + self.position[: ids.shape[1]])))


def sigmoid_mlp() -> nn.Module:
    hidden = [layer for _ in range(20) for layer in (nn.Linear(64, 64), nn.Sigmoid())]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


@dataclass
class Case:
    name: str
    model: nn.Module
    inputs: Tensor
    labels: Tensor

    def bare(self) -> None:
        self.model.zero_grad(set_to_none=True)
        output = self.model(self.inputs)
        F.cross_entropy(output.reshape(-1, output.shape[-1]), self.labels).backward()

    def recorded(self) -> Callable[[], object]:
        plan, names = Plan(device=torch.device("cpu"), loss="ce"), Names(self.model)
        return lambda: self._step(names, plan)

    def replay(self) -> Callable[[], object]:
        graph = self._step(names := Names(self.model), Plan(device=torch.device("cpu"), loss="ce")).graph
        plan = Plan(device=torch.device("cpu"), loss="ce", graph=graph)
        return lambda: self._step(names, plan)

    def _step(self, names: Names, plan: Plan):  # type: ignore[no-untyped-def]
        self.model.zero_grad(set_to_none=True)
        return step(self.model, (self.inputs,), {}, names, plan)


def cases() -> dict[str, Callable[[], Case]]:
    def resnet() -> Case:
        return Case("resnet18", resnet18(), torch.randn(8, 3, 64, 64), torch.randint(1000, (8,)))

    def gpt() -> Case:
        return Case("gpt2-small", GPT(), torch.randint(50257, (4, 128)), torch.randint(50257, (4 * 128,)))

    def mlp() -> Case:
        return Case("sigmoid-mlp", sigmoid_mlp(), torch.randn(32, 64), torch.randint(10, (32,)))

    return {"resnet18": resnet, "gpt2-small": gpt, "sigmoid-mlp": mlp}


def fastest(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The least CPU seconds of each function, run in turns so that a change of the machine's load meets all of them."""
    best = dict.fromkeys(functions, float("inf"))
    for turn in range(repeats + 2):
        for name, function in functions.items():
            started = time.process_time()
            function()
            if turn >= 2:
                best[name] = min(best[name], time.process_time() - started)
    return best


def peak(case: Case, function: Callable[[], object]) -> int:
    """Bytes that torch allocated at most at one time during the call, beyond what it held before."""
    case.model.zero_grad(set_to_none=True)  # else the pass would begin by freeing the gradients of the last one
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=0, help="turns; 0: as many as fit in about 20 seconds")
    parser.add_argument("--only", choices=list(TARGETS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"{'model':<12} {'bare':>10} {'replay':>8} {'recorded':>9} {'memory':>7}  target")
    for name, make in cases().items():
        if options.only in (None, name):
            print(row(make(), options.repeats), flush=True)


def row(case: Case, repeats: int) -> str:
    started = time.process_time()
    case.bare()
    repeats = repeats or max(3, min(200, int(6.0 / (time.process_time() - started))))
    functions = {"bare": case.bare, "replay": case.replay(), "recorded": case.recorded()}
    best = fastest(functions, repeats)
    memory = peak(case, functions["replay"]) / peak(case, case.bare)
    ratios = f"{best['replay'] / best['bare']:>8.2f} {best['recorded'] / best['bare']:>9.2f} {memory:>7.2f}"
    return f"{case.name:<12} {best['bare'] * 1e3:>7.2f} ms {ratios}  {TARGETS[case.name]:.2f}"


if __name__ == "__main__":
    main()
