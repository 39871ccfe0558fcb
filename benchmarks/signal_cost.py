"""What a static prediction costs: against a forward and backward pass, and against the number of ops.

    python benchmarks/signal_cost.py [--net NAME …] [--ops 10 100 1000 10000]

"Cold" is the first prediction with the statistics of the weights taken, "warm" a further one; both are CPU seconds on
one thread, divided by those of a real forward and backward pass at batch 8, 224 px, in the same process.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))

import torch
from torch import nn

from gradlint.capture import capture
from gradlint.capture.statistics import statistics
from gradlint.signal import predict

NETS = (
    "resnet18",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "vgg11",
    "vit_tiny_patch16_224",
    "convnext_tiny",
    "mixer_s16_224",
)


def seconds(call: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def against_a_pass(names: list[str]) -> Iterator[str]:
    import timm

    yield "|net|ops|pass|statistics|first|warm|cold ÷ pass|warm ÷ pass|\n|---|---|---|---|---|---|---|---|"
    for name in names:
        model = timm.create_model(name).train()
        x = torch.randn(8, 3, 224, 224)
        graph, _ = capture(model, (x[:2],))

        def real(model: nn.Module = model, x: torch.Tensor = x) -> None:
            model(x).sum().backward()

        def weighed(model: nn.Module = model) -> None:
            for path, param in model.named_parameters():
                statistics(path, param)

        real()
        step, taken, first, warm = (
            seconds(real),
            seconds(weighed),
            *(seconds(partial(predict, graph)) for _ in range(2)),
        )
        numbers = f"{step:.2f} s | {taken:.2f} s | {first:.2f} s | {warm:.3f} s"
        yield f"| {name} | {len(graph.ops)} | {numbers} | {(taken + first) / step:.2f} | {warm / step:.2f} |"


def by_ops(counts: list[int]) -> Iterator[str]:
    yield "\n|ops|plain: ms an op|batch norm: ms an op|\n|---|---|---|"
    for count in counts:
        cells = []
        for norm in (False, True):
            layers: list[nn.Module] = [nn.Linear(16, 16), nn.ReLU()]
            layers += [nn.BatchNorm1d(16)] if norm else []
            model = nn.Sequential(*(layer for _ in range(max(count // len(layers), 1)) for layer in fresh(layers)))
            graph, _ = capture(model.train(), (torch.randn(8, 16),))
            predict(graph)
            cells.append(f"{1e3 * seconds(partial(predict, graph)) / len(graph.ops):.2f}")
        yield f"| {count} | {' | '.join(cells)} |"


def fresh(layers: list[nn.Module]) -> list[nn.Module]:
    """New layers like these."""
    made = {nn.Linear: lambda: nn.Linear(16, 16), nn.ReLU: nn.ReLU, nn.BatchNorm1d: lambda: nn.BatchNorm1d(16)}
    return [made[type(layer)]() for layer in layers]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="*", default=list(NETS))
    parser.add_argument("--ops", nargs="*", type=int, default=[10, 100, 1000, 10_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    for line in chain(against_a_pass(options.net), by_ops(options.ops)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
