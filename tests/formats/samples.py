"""Hand-built reports that every format is shown with: an ill net, a healthy one, a failure, notes."""

import math
from dataclasses import replace

from gradlint.finding import Claim, Factor, Finding, Fix, Related, Size, Trained
from gradlint.graph.ir import Span
from gradlint.result import (
    Curve,
    Failure,
    FormatRun,
    InputUsed,
    Layer,
    ProbeRun,
    Report,
    TargetReport,
    TraceRun,
)

DEEP_SIGMOID = '''\
"""Twenty sigmoid layers."""

from torch import nn


class DeepSigmoid(nn.Module):
    def __init__(self, n_in=64, width=64, depth=20, n_classes=10):
        super().__init__()
        layers = []
        for i in range(depth):
            layers.append(nn.Linear(n_in if i == 0 else width, width))
            layers.append(nn.Sigmoid())
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x):
        return self.head(self.hidden(x))
'''
BROKEN = """\
import torch
from torchvision.ops import roi_allign


class Detector(torch.nn.Module): ...
"""
SOURCES = {"models/deep_sigmoid.py": DEEP_SIGMOID, "models/broken.py": BROKEN}
DEPTH = 20
SLOPE, WEIGHT = math.log10(0.236), math.log10(0.58)


def sigmoid_factors():
    for i in reversed(range(DEPTH)):
        yield Factor(2 * i + 1, f"hidden.{2 * i + 1}", "σ′", SLOPE + 0.01 * math.sin(i))
        yield Factor(2 * i, f"hidden.{2 * i}", "W", WEIGHT + 0.02 * math.cos(i))


CHAIN = Finding(
    code="GL101",
    rule="saturating-chain",
    family="vanishing",
    severity="error",
    verdict="confirmed",
    message="gradient shrinks by 17.2 decades through 20 sigmoids in a row",
    module="hidden.1 … hidden.39",
    span=Span("models/deep_sigmoid.py", 12, 26),
    related=(
        Related(Span("models/deep_sigmoid.py", 12, 26), "hidden.1", "slope ≤ 0.25, repeated 20 times"),
        *(
            Related(Span("models/deep_sigmoid.py", 11, 26), f"hidden.{2 * i}", "gain 0.58 with default init")
            for i in range(DEPTH)
        ),
    ),
    predicted={"gradient-change": -17.3},
    measured={"gradient-change": -17.2, "seeds": 5},
    claim=Claim("gradient-change", (3, 60), -2.0, "below"),
    factors=tuple(sigmoid_factors()),
    fixes=(
        Fix(
            "replace Sigmoid by ReLU, kaiming init",
            {"gradient-change": -17.2},
            {"gradient-change": -0.31},
            layers=tuple(Size(i, 0.9, 0.03 * 1.01**i) for i in range(2 * DEPTH + 1)),
            trained=(
                Trained("sgd", 0.01, "made up", (2.31, 2.31, 2.3), (2.62, 1.4, 0.71), 1.04),
                Trained(
                    "adam", 0.001, "given", (2.31, 2.3, 2.3), (2.62, 0.9, math.nan), 1.06, ("", "not finite"), 0.01
                ),
            ),
        ),
        Fix(
            "insert LayerNorm before each Sigmoid",
            {"gradient-change": -17.2},
            {"gradient-change": -4.1},
            price="2 560 parameters; still loses 4 decades",
        ),
    ),
    rejected=(Fix("initialise 20 weights with orthogonal_", {"gradient-change": -17.2}, {"gradient-change": -16.1}),),
    op=39,
    ops=tuple(range(2 * DEPTH)),
    cause="saturating-chain",
    folded=(
        "vanishing-init: the default init of 20 layers (hidden.0 … hidden.38) has gain 0.58, 4.7 decades short in all",
    ),
)
REFUTED = Finding(
    code="GL501",
    rule="missing-skip",
    family="architecture",
    severity="info",
    verdict="refuted",
    message="20 layers without a residual path",
    module="hidden",
    span=Span("models/deep_sigmoid.py", 13, 8),
    predicted={"gradient-change": -2.4},
    measured={"gradient-change": -0.2},
    reason="the gradient loses 0.2 decades, not 2.4",
)
WARNING = Finding(
    code="GL601",
    rule="dead-units",
    family="units",
    severity="warning",
    verdict="measured",
    message="61 % of the units of relu3 are zero for every sample",
    module="relu3",
    span=None,
    measured={"dead-share": 0.61},
)


def sigmoid_layers():
    for i in range(DEPTH):
        rms = 10 ** ((DEPTH - i) * (SLOPE + WEIGHT) - 1.2)
        yield Layer(
            f"hidden.{2 * i}", "linear", "linear", "models/deep_sigmoid.py", 11, 0.4, rms, rms * 1.3, 0.4, 2 * i
        )
        yield Layer(
            f"hidden.{2 * i + 1}", "sigmoid", "activation", "models/deep_sigmoid.py", 12, 0.5, rms, rms, 0.5, 2 * i + 1
        )
    yield Layer("head", "linear", "linear", "models/deep_sigmoid.py", 14, 0.3, 0.063, 0.062, 0.3, 2 * DEPTH)


def resnet_layers(depth=60):
    for i in range(depth):
        size = 0.002 * (1 + 0.3 * math.sin(i)) * 1.03 ** (depth - i)
        yield Layer(
            f"layer{i // 15 + 1}.{i % 15 // 2}.conv{i % 2 + 1}",
            "conv2d",
            "conv",
            "models/resnet.py",
            30 + i % 2,
            1.0,
            size,
            size * 1.1,
            1.0,
            i,
        )


PROBE = ProbeRun(True, (0, 1, 2, 3, 4), "cpu", "ce", 2.31, 1.83)
INPUTS = (InputUsed("x", (8, 64), "float32", "guessed", "~N(0,1)"),)
ILL = TargetReport(
    target="models/deep_sigmoid.py",
    path="models/deep_sigmoid.py",
    line=6,
    status="analysed",
    inputs=INPUTS,
    method="recorded",
    ops=62,
    parameters=83850,
    unknown=(("torch.special.xlog1py", 2),),
    unpredicted=(("setitem", 3), ("einsum", 1)),
    probe=PROBE,
    findings=(CHAIN, REFUTED),
    layers=tuple(sigmoid_layers()),
    seconds=3.2,
)
HEALTHY = TargetReport(
    target="models/resnet.py:ResNet",
    path="models/resnet.py",
    line=20,
    status="analysed",
    inputs=(InputUsed("x", (8, 3, 224, 224), "float32", "example"),),
    method="recorded",
    ops=180,
    parameters=11689512,
    probe=ProbeRun(True, (0, 1, 2), "cuda", "ce", 6.98, 12.4),
    layers=tuple(resnet_layers()),
    notes=("num_classes=1000 was taken from the signature",),
    seconds=14.2,
)
BROKEN_TARGET = TargetReport(
    target="models/broken.py",
    path="models/broken.py",
    line=None,
    status="failed",
    error=Failure(
        "load",
        "cannot import name 'roi_allign' from 'torchvision.ops'",
        "run gradlint in the environment that the model is trained in",
        "models/broken.py",
        2,
    ),
)
UNPROBED = TargetReport(
    target="models/big.py:Big",
    path="models/big.py",
    line=1,
    status="analysed",
    method="recorded-meta",
    ops=1000,
    probe=ProbeRun(False, reason="the model needs 130 GB, more than this machine has"),
    findings=(WARNING,),
    layers=tuple(
        Layer(f"blocks.{i}.mlp.fc{j}", "linear", "linear", None, None, None, None, 1e-3 * 0.99**i, 1.0, 2 * i + j)
        for i in range(96)
        for j in (0, 1)
    ),
)
SETTINGS = {"fail_on": "warning", "seed": 0, "seeds": 5}
NARROW = FormatRun("float16", 0.7, 28, 42, "hidden.0.weight", loss_scale=131072.0, scaled_lost=0.004, scaled_hit=0)
TRACE = TraceRun(
    "adam",
    0.001,
    "made up",
    "ce",
    (2.39, 2.31, None),
    (
        Curve("hidden.0.weight", (1.9e-19, 2.2e-19, None), "models/deep_sigmoid.py", 11),
        Curve("head.weight", (0.016, 0.0, 0.012), "models/deep_sigmoid.py", 14),
    ),
    "the loss is not finite at step 2",
    0.31,
    1.2,
)
STEPPED = replace(HEALTHY, trace=replace(TRACE, losses=(2.39, 2.31, 2.2), stopped=""))
SMALL = replace(
    ILL,
    trace=TRACE,
    probe=replace(PROBE, format=NARROW),
    findings=(
        replace(
            CHAIN,
            related=CHAIN.related[:2],
            factors=CHAIN.factors[:2],
            ops=(0, 1),
            fixes=(replace(CHAIN.fixes[0], layers=CHAIN.fixes[0].layers[:2]), *CHAIN.fixes[1:]),
        ),
        REFUTED,
    ),
    layers=ILL.layers[:2],
)
REPORTS = {
    "small": Report((SMALL, BROKEN_TARGET), "0.1.0", 3.3, SETTINGS),
    "ill": Report((ILL,), "0.1.0", 3.3, SETTINGS),
    "healthy": Report((HEALTHY,), "0.1.0", 14.3, SETTINGS),
    "stepped": Report((STEPPED,), "0.1.0", 15.5, SETTINGS),
    "failed": Report((BROKEN_TARGET,), "0.1.0", 0.8, SETTINGS),
    "many": Report((ILL, HEALTHY, BROKEN_TARGET, UNPROBED), "0.1.0", 21.0, SETTINGS),
    "usage": Report((), "0.1.0", 0.0, SETTINGS, (Failure("usage", "no such option: --sead", "did you mean --seed?"),)),
}
