"""How far the static signal is from real backward passes: log10 gradient RMS per parameter, predicted minus measured.

    python benchmarks/signal.py [--family NAME …] [--net NAME …] [--passes N] [--references FOLDER] [--write]

"Measured" is the RMS over N float64 backward passes, each with fresh N(0, 1) inputs and a fresh cotangent or labels,
on networks at their own initialisation. Weights that start at exactly zero (residual gains, heads) are set to one or to
N(0, 0.02²), because behind them every gradient is structurally zero. `--write` writes the table to signal.md.
`--references` keeps what was measured in a folder and reads it from there: the passes take most of the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.signal import predict

TABLE = Path(__file__).with_name("signal.md")
ZERO = 9.0  # decades below the gradients around it that count as exactly zero in float64
SMALLEST = 32  # entries of a vector that is scored: the measured RMS of a smaller one is noise

Draw = Callable[[torch.Generator], Tensor]


@dataclass(frozen=True)
class Case:
    """One network with its inputs and loss."""

    family: str
    name: str
    build: Callable[[], nn.Module]
    draw: Draw
    loss: str = "unit"


@dataclass
class Score:
    """Errors (decades) of one or several networks."""

    matrices: list[float] = field(default_factory=list)
    vectors: list[float] = field(default_factory=list)
    covered: list[bool] = field(default_factory=list)
    zeros: list[int] = field(default_factory=lambda: [0, 0, 0])  # found, missed, false
    networks: int = 0
    complete: int = 0
    warm: list[float] = field(default_factory=list)

    def add(self, other: Score) -> None:
        """Count another score in."""
        self.matrices += other.matrices
        self.vectors += other.vectors
        self.covered += other.covered
        self.zeros = [a + b for a, b in zip(self.zeros, other.zeros, strict=True)]
        self.networks += other.networks
        self.complete += other.complete
        self.warm += other.warm


class Mlp(nn.Module):
    def __init__(self, depth: int, width: int, act: str, init: str, norm: str = "", *, skip: bool = False) -> None:
        super().__init__()
        torch.manual_seed(depth * 1000 + width)
        sizes = [32, *[width] * (depth - 1), 10]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(NORMS[norm](width) for _ in range(depth - 1))
        self.act, self.skip = ACTS[act](), skip
        for layer in self.layers:
            INITS[init](layer.weight)
            if init != "default":
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=False)):
            h = self.act(norm(layer(x)))
            x = x + h if self.skip and i else h
        return self.layers[-1](x)


ACTS = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU, "selu": nn.SELU}
NORMS = {"": lambda n: nn.Identity(), "bn": nn.BatchNorm1d, "ln": nn.LayerNorm}
INITS: dict[str, Callable[[Tensor], object]] = {
    "default": lambda w: None,
    "xavier": nn.init.xavier_normal_,
    "he": nn.init.kaiming_normal_,
    "he/2": lambda w: nn.init.normal_(w, 0.0, 0.5 * math.sqrt(2.0 / w.shape[1])),
    "2he": lambda w: nn.init.normal_(w, 0.0, 2.0 * math.sqrt(2.0 / w.shape[1])),
    "N(0,1)": lambda w: nn.init.normal_(w),
}


class Conv(nn.Module):
    def __init__(self, depth: int, act: str, norm: str) -> None:
        super().__init__()
        torch.manual_seed(depth)
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 64, 64, 3, padding=1) for i in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm2d(64) if norm else nn.Identity() for _ in range(depth))
        self.act, self.head = ACTS[act](), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = self.act(norm(conv(x)))
        return self.head(x.mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self, depth: int, *, pre: bool, causal: bool, std: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(depth)
        self.width, self.heads, self.pre, self.causal = 128, 4, pre, causal
        self.token, self.place = nn.Embedding(200, self.width), nn.Embedding(32, self.width)
        block = lambda: nn.ModuleDict(  # noqa: E731
            {
                "qkv": nn.Linear(self.width, 3 * self.width),
                "out": nn.Linear(self.width, self.width),
                "up": nn.Linear(self.width, 4 * self.width),
                "down": nn.Linear(4 * self.width, self.width),
                "n1": nn.LayerNorm(self.width),
                "n2": nn.LayerNorm(self.width),
            }
        )
        self.blocks = nn.ModuleList(block() for _ in range(depth))
        self.last, self.head = nn.LayerNorm(self.width), nn.Linear(self.width, 200)
        for module in self.modules():
            if std and isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, 0.0, std)

    def attend(self, block: nn.ModuleDict, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in block["qkv"](x).split(c, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return block["out"](y.transpose(1, 2).reshape(b, t, c))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            feed = lambda h, block=block: block["down"](F.gelu(block["up"](h)))  # noqa: E731
            if self.pre:
                x = x + self.attend(block, block["n1"](x))
                x = x + feed(block["n2"](x))
            else:
                x = block["n1"](x + self.attend(block, x))
                x = block["n2"](x + feed(x))
        return self.head(self.last(x))


class Recurrent(nn.Module):
    def __init__(self, kind: str, layers: int, *, last: bool) -> None:
        super().__init__()
        torch.manual_seed(layers)
        self.net, self.head, self.last = getattr(nn, kind)(32, 128, layers, batch_first=True), nn.Linear(128, 10), last

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.net(x)
        return self.head(y[:, -1] if self.last else y)


def normal(*shape: int) -> Draw:
    return lambda generator: torch.randn(*shape, generator=generator)


def tokens(*shape: int) -> Draw:
    return lambda generator: torch.randint(0, 200, shape, generator=generator)


def mlps() -> Iterator[Case]:
    for width, depth, act, init in (
        (w, d, a, i) for w in (64, 256) for d in (2, 10, 50, 100) for a in ACTS for i in INITS
    ):
        yield Case(f"MLP w{width} d{depth}", f"{act} {init}", partial(Mlp, depth, width, act, init), normal(64, 32))
    for norm, skip, depth in ((n, s, d) for n in ("", "bn", "ln") for s in (False, True) for d in (10, 50)):
        for act in ("relu", "tanh", "gelu") if norm or skip else ():
            build = partial(Mlp, depth, 128, act, "he", norm, skip=skip)
            name = f"MLP {norm or 'without norm'}{' + skip' if skip else ''}"
            yield Case(name, f"{act} d{depth}", build, normal(64, 32))


def convs() -> Iterator[Case]:
    for norm, depth, act in ((n, d, a) for n in ("", "bn") for d in (5, 16) for a in ("relu", "tanh", "gelu")):
        name = f"plain CNN{' + BN' if norm else ''}"
        yield Case(name, f"{act} d{depth}", partial(Conv, depth, act, norm), normal(8, 3, 16, 16))


def transformers() -> Iterator[Case]:
    for depth, loss in ((d, x) for d in (2, 6, 12, 24) for x in ("unit", "ce")):
        for pre in (True, False):
            build = partial(Transformer, depth, pre=pre, causal=False)
            yield Case(f"{'pre' if pre else 'post'}-norm transformer", f"d{depth} {loss}", build, tokens(8, 32), loss)
    for depth, std, loss in ((d, s, x) for d in (4, 12) for s in (0.02, 0.1) for x in ("unit", "ce")):
        build = partial(Transformer, depth, pre=True, causal=True, std=std)
        yield Case("GPT", f"d{depth} std {std} {loss}", build, tokens(8, 32), loss)


def recurrents() -> Iterator[Case]:
    for kind, steps, last in ((k, t, x) for k in ("RNN", "LSTM", "GRU") for t in (10, 50, 200) for x in (True, False)):
        build = partial(Recurrent, kind, 2, last=last)
        yield Case(kind, f"T{steps} {'last' if last else 'all'}", build, normal(32, steps, 32))


NETS: dict[str, str] = {
    "ResNet 18/34/50, ResNeXt, RegNet, SE": "resnet18 resnet34 resnet50 resnext50_32x4d regnety_002 regnetx_002"
    " seresnet50 skresnet18 resnet18d resnetv2_50 gernet_s",
    "DenseNet, DPN, HRNet, DLA, Res2Net, CSP": "densenet121 dpn48b hrnet_w18_small dla34 res2net50_26w_4s cspresnet50"
    " selecsls42b darknet53",
    "VGG, VGG + BN": "vgg11 vgg13 vgg16 vgg11_bn vgg16_bn",
    "MobileNet v2/v3, MNASNet, GhostNet, LCNet": "mobilenetv2_100 mobilenetv3_small_100 mnasnet_100 ghostnet_100"
    " lcnet_050 hardcorenas_b",
    "EfficientNet, ReXNet, Inception, Xception": "efficientnet_b0 tf_efficientnet_lite0 rexnet_100 inception_v3@128"
    " xception41@128",
    "ConvNeXt, CAFormer, PoolFormer, InceptionNeXt": "convnext_atto convnext_tiny caformer_s18@128 poolformer_s12@128"
    " inception_next_atto@128",
    "RepVGG, VoVNet, FastViT, MobileViT": "repvgg_a0 ese_vovnet19b_slim_dw fastvit_t8@128 mobilevit_s@128",
    "ViT, DeiT, PVT, CaiT, Visformer, XCiT": "vit_tiny_patch16_224@224 deit_tiny_patch16_224@224 pvt_v2_b0@128"
    " cait_xxs24_224@224 visformer_tiny@224 xcit_nano_12_p16_224@224",
    "Swin, TinyViT, LeViT, BEiT, Twins, GCViT": "swin_tiny_patch4_window7_224@224 levit_128s@224"
    " beit_base_patch16_224@224 twins_svt_small@224",
    "Mixer, gMLP, ResMLP": "mixer_s32_224@224 mixer_s16_224@224 gmlp_ti16_224@224 resmlp_12_224@224",
}


def created(name: str) -> nn.Module:
    import timm

    torch.manual_seed(0)
    return awake(timm.create_model(name, pretrained=False))


def public() -> Iterator[Case]:
    for family, names in NETS.items():
        for name, size in ((n.partition("@")[0], int(n.partition("@")[2] or 64)) for n in names.split()):
            yield Case(family, name, partial(created, name), normal(8 if size < 200 else 4, 3, size, size))


FAMILIES = {"mlp": mlps, "conv": convs, "transformer": transformers, "recurrent": recurrents, "public": public}


def awake(model: nn.Module) -> nn.Module:
    """The model with all-zero weights (not biases) made small but not zero."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if not name.endswith("bias") and param.numel() and not bool(param.any()):
                param.copy_(
                    torch.randn(param.shape, generator=generator) * 0.02 if param.ndim > 1 else torch.ones_like(param)
                )
    return model


def measured(case: Case, model: nn.Module, passes: int, references: Path | None = None) -> dict[str, float]:
    """log10 RMS of every parameter's gradient over the passes, in float64."""
    kept = None if references is None else references / f"{case.family} {case.name}.json".replace("/", "-")
    known: list[dict[str, float]] = json.loads(kept.read_text()) if kept is not None and kept.exists() else []
    if len(known) < passes:
        known = [*drawn(case, model, passes)]
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known))
    total = {name: sum(squares[name] for squares in known[:passes]) / passes for name in known[0]}
    return {name: 0.5 * math.log10(square) if square > 0 else -math.inf for name, square in total.items()}


def drawn(case: Case, model: nn.Module, passes: int) -> Iterator[dict[str, float]]:
    """Mean squared gradients of every parameter, one pass after the other."""
    model = model.double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(passes):
        x = case.draw(generator)
        model.zero_grad(set_to_none=True)
        objective(case.loss, model(x.double() if x.is_floating_point() else x), generator).backward()
        given = ((name, param.grad) for name, param in model.named_parameters())
        yield {name: float((grad**2).mean()) for name, grad in given if grad is not None}


def objective(loss: str, y: Tensor, generator: torch.Generator) -> Tensor:
    if loss == "ce":
        rows = y.reshape(-1, y.shape[-1])
        return F.cross_entropy(rows, torch.randint(0, y.shape[-1], (len(rows),), generator=generator))
    return (y * torch.randn(y.shape, generator=generator, dtype=y.dtype)).sum()


def score(case: Case, passes: int, references: Path | None = None) -> Score:
    """Predict and measure one network."""
    model = case.build().train()
    graph, _ = capture(model, (case.draw(torch.Generator().manual_seed(1)),))
    predict(graph, case.loss)
    start = time.process_time()
    signal = predict(graph, case.loss)
    warm = time.process_time() - start
    real = measured(case, model, passes, references)
    sizes = {name: (param.ndim, param.numel()) for name, param in model.named_parameters()}
    return compared(signal.profile.params, signal.profile.spread, real, sizes, warm)


def compared(
    predicted: object, spread: object, real: dict[str, float], sizes: dict[str, tuple[int, int]], warm: float
) -> Score:
    found = Score(networks=1, warm=[warm])
    found.complete = int(all(name in predicted for name in real))  # type: ignore[operator]
    for name, actual in real.items():
        guess = predicted.get(name)  # type: ignore[attr-defined]
        if guess is None:
            continue
        zero = actual < beside(real, name) - ZERO and not abs(guess - actual) < 1.0
        if zero or guess == -math.inf:
            found.zeros[0 if zero and guess == -math.inf else 1 if zero else 2] += 1
        elif sizes[name][1] >= SMALLEST:
            (found.matrices if sizes[name][0] > 1 else found.vectors).append(guess - actual)
            found.covered.append(abs(guess - actual) <= 1.96 * spread[name])  # type: ignore[index]
    return found


def beside(real: dict[str, float], name: str) -> float:
    """The largest gradient among the parameters around this one, in the order of the model."""
    names = list(real)
    place = names.index(name)
    return max(real[other] for other in names[max(place - 3, 0) : place + 4])


def row(name: str, found: Score) -> str:
    cells = [name, str(found.networks)]
    for errors in (np.abs(found.matrices), np.abs(found.vectors)):
        if len(errors):
            middle, high = np.median(errors), np.percentile(errors, 95)
            cells += [str(len(errors)), f"{middle:.3f}", f"{high:.3f}", f"{100 * np.mean(errors <= 0.3):.1f} %"]
        else:
            cells += ["0", "", "", ""]
    tp, fn, fp = found.zeros
    cells.append(f"{2 * tp / (2 * tp + fn + fp):.2f} ({tp})" if tp + fn + fp else "")
    cells.append(f"{100 * np.mean(found.covered):.0f} %" if found.covered else "")
    return "| " + " | ".join([*cells, f"{np.median(found.warm):.2f} s"]) + " |"


# What has a target of its own beside the public networks: sums of rows, by the families of their cases.
UNNORMALISED = frozenset({"plain CNN", *(f"MLP w{width} d{depth}" for width in (64, 256) for depth in (2, 10, 50))})
SUMS: dict[str, Callable[[str, str], bool]] = {
    "un-normalised MLPs and CNNs, width ≥ 64, depth ≤ 50": lambda _, part: part in UNNORMALISED,
    "transformers and RNNs": lambda family, _: family in ("transformer", "recurrent"),
}
COLUMNS = "family|nets|matrices|median|p95|within 0.3|vectors|median|p95|within 0.3|zeros F1|in 95 % interval|warm"
HEADER = f"|{COLUMNS}|\n{'|---' * 13}|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--net", nargs="*", default=[], help="only cases whose name holds one of these")
    parser.add_argument("--passes", type=int, default=4)
    parser.add_argument("--references", type=Path, help="a folder that keeps what was measured")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = run(options.family, options.net, options.passes, options.references)
    if options.write:
        about = (__doc__ or "").split("\n\n")[2].strip()
        TABLE.write_text(f"# The static signal against real backward passes\n\n{about}\n\n" + "\n".join(lines) + "\n")


def run(families: list[str], nets: list[str], passes: int, references: Path | None = None) -> list[str]:
    lines = [HEADER]
    sums = {name: Score() for name in SUMS}
    print(HEADER)
    for family in families:
        parts: dict[str, Score] = {}
        whole = Score()
        for case in FAMILIES[family]():
            if nets and not any(text in case.name for text in nets):
                continue
            found = score(case, passes, references)
            print(row(f"  {case.family}: {case.name}", found), file=sys.stderr, flush=True)
            parts.setdefault(case.family, Score()).add(found)
            whole.add(found)
            for name, belongs in SUMS.items():
                if belongs(family, case.family):
                    sums[name].add(found)
        rows = [row(name, found) for name, found in parts.items()]
        if whole.networks:
            rows.append(row(f"**{family}, {whole.complete} of {whole.networks} end to end**", whole))
        print("\n".join(rows), flush=True)
        lines += rows
    rows = [row(f"**{name}**", found) for name, found in sums.items() if found.networks]
    print("\n".join(rows), flush=True)
    return lines + rows


if __name__ == "__main__":
    main()
