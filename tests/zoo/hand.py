"""Small nets written the way people write them, each with the inputs that its author had in mind."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from torch import nn

Tensors = dict[str, str]
"""Argument path: dtype and rank, as "float32:4"."""


@dataclass(frozen=True)
class Net:
    build: type[nn.Module]
    inputs: Tensors


NETS: dict[str, Net] = {}


def net(**inputs: str):
    """Put the class into NETS under its own name."""

    def register(cls: type[nn.Module]) -> type[nn.Module]:
        NETS[cls.__name__] = Net(cls, inputs)
        return cls

    return register


for part in ("hand_flat", "hand_sequence", "hand_spatial", "hand_unusual"):
    importlib.import_module(part)
