"""Measured gradients and activations: one forward and backward on a copy of the model, and the verdict on its health.

`health`, `route` and `attribution` are plain data and can be imported without torch; the rest is loaded on demand.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlint.probe.isolation import ParamEdit
    from gradlint.probe.measurement import measure
    from gradlint.probe.trace import Training, train

__all__ = ["ParamEdit", "Training", "measure", "train"]

_HOMES = {
    "ParamEdit": "gradlint.probe.isolation",
    "Training": "gradlint.probe.trace",
    "measure": "gradlint.probe.measurement",
    "train": "gradlint.probe.trace",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
