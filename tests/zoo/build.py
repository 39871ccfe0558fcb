"""Builds each architecture of names.json from its own registry, configuration or class, with random weights."""

from __future__ import annotations

import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch import nn

HERE = Path(__file__).parent
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("stand-in"))  # needs compiled operators


def names() -> list[str]:
    """Every architecture, as "family/name"."""
    listed = json.loads((HERE / "names.json").read_text())
    return [f"{family}/{name}" for family, members in listed.items() for name in members]


def build(name: str) -> nn.Module:
    """The model of this name, in train mode."""
    family, _, rest = name.partition("/")
    torch.manual_seed(0)
    return BUILDERS[family](rest)


def _timm(name: str) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False)


def _torchvision(name: str) -> nn.Module:
    load("operators").install()
    import torchvision

    options: dict[str, Any] = {"weights": None}
    if detects(name):
        options |= {"weights_backbone": None}
        options |= (
            {} if name.startswith("ssd") else {"min_size": 128, "max_size": 160}
        )  # the default of 800 is for GPUs
    if name.startswith(("deeplabv3", "fcn_", "lraspp")):
        options |= {"weights_backbone": None}
    if name in ("googlenet", "inception_v3"):
        options |= {"init_weights": False}
    return torchvision.models.get_model(name, **options)


def _transformers(name: str) -> nn.Module:
    kind, _, head = name.partition(":")
    return load("shrink").build(kind, head)


def _hand(name: str) -> nn.Module:
    return load("hand").NETS[name].build()


def load(module: str) -> types.ModuleType:
    """A module of this folder (tests have no packages)."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(module)


BUILDERS = {"timm": _timm, "tv": _torchvision, "hf": _transformers, "hand": _hand}


def detects(name: str) -> bool:
    """Whether a torchvision name is a detector's."""
    return "rcnn" in name or name.startswith(("retinanet", "fcos", "ssd"))
