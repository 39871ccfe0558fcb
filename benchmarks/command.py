"""What the whole command costs: `gradlint model.py` over a bare script that builds the model and takes one step.

    python benchmarks/command.py [--repeats N] [--only NAME]

The bare script imports torch, builds the model and runs one forward and backward with cross-entropy. Both are processes
of their own, run in turns on one thread; times are CPU seconds of the process and its children, the least of N turns.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TARGET = 1.35
PR_SET_CHILD_SUBREAPER = 36
RESNET50 = """
import torch
from torch import nn


class Bottleneck(nn.Module):
    def __init__(self, inside, width, stride=1):
        super().__init__()
        outside = 4 * width
        self.conv1 = nn.Conv2d(inside, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outside, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outside)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or inside != outside:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        return self.relu(self.bn3(self.conv3(h)) + identity)


class Net(nn.Module):
    def __init__(self, num_classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inside = 64
        for i, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 1):
            layers = []
            for j in range(blocks):
                layers.append(Bottleneck(inside, width, 2 if j == 0 and i > 1 else 1))
                inside = 4 * width
            setattr(self, f"layer{i}", nn.Sequential(*layers))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2048, num_classes)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))
"""
MLP = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(self.body(x))
"""
BARE = """
import torch
from model import Net

model, x = Net(), torch.randn({shape})
y = torch.randint(10, ({batch},))
torch.nn.functional.cross_entropy(model(x), y).backward()
"""


@dataclass(frozen=True)
class Case:
    text: str
    shape: tuple[int, ...]


CASES = {"resnet50": Case(RESNET50, (8, 3, 224, 224)), "mlp": Case(MLP, (32, 64))}


def spent(command: Sequence[str], folder: str) -> tuple[float, float]:
    """CPU seconds and wall seconds of the command and its children."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GRADLINT_CACHE": "0"}
    before, started = os.times(), time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    with contextlib.suppress(ChildProcessError):
        while True:  # what the command left behind, adopted: its worker ends after it
            os.waitpid(-1, 0)
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return cpu, time.monotonic() - started


def row(name: str, case: Case, repeats: int) -> str:
    sizes = ",".join(map(str, case.shape))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.py").write_text(case.text)
        Path(folder, "bare.py").write_text(BARE.format(shape=sizes, batch=case.shape[0]))
        command = [str(Path(sys.executable).parent / "gradlint"), "model.py", "--loss", "ce"]
        commands = {"bare": [sys.executable, "bare.py"], "gradlint": [*command, "--input", f"float32[{sizes}]"]}
        best = dict.fromkeys(commands, (float("inf"), float("inf")))
        for _ in range(repeats):
            for key, each in commands.items():
                cpu, wall = spent(each, folder)
                best[key] = min(best[key][0], cpu), min(best[key][1], wall)
    ratios = [best["gradlint"][i] / best["bare"][i] for i in (0, 1)]
    return f"{name:<10} {best['bare'][0]:>8.2f} s {best['gradlint'][0]:>8.2f} s {ratios[0]:>6.2f} {ratios[1]:>6.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=list(CASES))
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    print(f"{'file':<10} {'bare':>10} {'gradlint':>10} {'ratio':>6} {'wall':>6}   target {TARGET}")
    for name, case in CASES.items():
        if options.only in (None, name):
            print(row(name, case, options.repeats), flush=True)


if __name__ == "__main__":
    main()
