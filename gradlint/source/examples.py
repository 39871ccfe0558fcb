"""Input shapes that a file mentions: where it calls the model, in docstrings and comments, and by its data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Origin = Literal["call", "summary", "dataset", "docstring", "comment"]


@dataclass(frozen=True)
class ShapeHint:
    """One tensor that the file says the model takes."""

    shape: tuple[int | str, ...]  # an int, or the symbol as written: "N", "batch", "T"
    dtype: str = ""  # "float32", "int64", … or "" when the file does not say
    high: int | None = None  # exclusive bound of integer entries (torch.randint)
    values: str = ""  # distribution of the entries when it was said: "~N(0,1)", "~U(0,1)"
    name: str = ""  # the keyword it was passed by, "" for a positional argument
    origin: Origin = "call"
    line: int = 0


@dataclass(frozen=True)
class SourceHints:
    """What a file says about the inputs of one model."""

    calls: tuple[
        tuple[ShapeHint, ...], ...
    ] = ()  # calls of the model with tensors, the tensors in argument order; best first
    shapes: tuple[ShapeHint, ...] = ()  # shapes named by summaries, data sets, docstrings and comments; best first
    docstring: str = ""  # of the class and of its forward
    dataset: str = ""  # the torchvision data set that the file reads: "MNIST"
