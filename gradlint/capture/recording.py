"""One finished run: what it gave, what was called in it, and the record of its calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import fx

    from gradlint.capture.naming import Names
    from gradlint.capture.structure import Named
    from gradlint.capture.tape import Tape


@dataclass
class Recording:
    """One finished run. `tape` is None when nothing was to be recorded; `calls` counts the numbered calls.

    `called` counts the calls of each module by path; `outputs` holds the output tensors with their names.
    """

    output: object
    outputs: list[Named]
    calls: int
    tape: Tape | None = None
    called: Mapping[str, int] = field(default_factory=dict)
    module_types: Mapping[str, str] = field(default_factory=dict)  # qualified class names that a graph's metadata gives
    training: bool = True
    method: str = "recorded"
    notes: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()  # kinds of ops that an exporter took out

    @cached_property
    def graph(self) -> fx.Graph | None:
        """The recorded calls as a torch.fx graph, built when first asked for (see `gradlint.capture.interchange`)."""
        from gradlint.capture.interchange import to_fx

        return None if self.tape is None else to_fx(self.tape)

    @property
    def names(self) -> Names | None:
        """The paths of the model's modules and tensors, unregistered ones included."""
        return None if self.tape is None else self.tape.names
