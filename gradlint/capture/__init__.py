"""One recorded run of a model, as gradlint's own graph and as a torch.fx graph; replays of it, with interventions.

Names are looked up when they are used: a model file is understood without torch (see `gradlint.capture.written`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlint.capture.construction import construction_spans
    from gradlint.capture.convert import to_graph
    from gradlint.capture.doors import capture, from_fx, run
    from gradlint.capture.naming import Names
    from gradlint.capture.recorder import Intervention, Observer, Scratch
    from gradlint.capture.recording import Recording

__all__ = [
    "Intervention",
    "Names",
    "Observer",
    "Recording",
    "Scratch",
    "capture",
    "construction_spans",
    "from_fx",
    "run",
    "to_graph",
]

_HOMES = {
    "construction": ("construction_spans",),
    "convert": ("to_graph",),
    "doors": ("capture", "from_fx", "run"),
    "naming": ("Names",),
    "recorder": ("Intervention", "Observer", "Scratch"),
    "recording": ("Recording",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
