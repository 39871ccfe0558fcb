"""One recorded run of a model, as gradlint's own graph and as a torch.fx graph; replays of it, with interventions."""

from gradlint.capture.construction import construction_spans
from gradlint.capture.convert import to_graph
from gradlint.capture.doors import capture, from_fx
from gradlint.capture.naming import Names
from gradlint.capture.recorder import Intervention, Observer, Recording, Scratch, run

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
