"""One recorded run of a model, as a torch.fx graph and as gradlint's own graph; replays of it, with interventions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gradlint.capture.construction import construction_spans
from gradlint.capture.convert import to_graph
from gradlint.capture.naming import Names
from gradlint.capture.recorder import Intervention, Observer, Recording, Scratch, run
from gradlint.graph.ir import Graph

__all__ = [
    "Intervention",
    "Names",
    "Observer",
    "Recording",
    "Scratch",
    "capture",
    "construction_spans",
    "run",
    "to_graph",
]


def capture(
    model: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    observer: Observer | None = None,
) -> tuple[Graph, Recording]:
    """Run the model once, as it is, and return its graph and the recording; `Op.index` is the number of the call."""
    recording = run(model, args, kwargs, observer=observer)
    return to_graph(recording), recording
