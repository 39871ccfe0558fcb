"""One line of the op vocabulary: the names that mean the same, and how their arguments are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gradlint.capture import attributes as at


@dataclass(frozen=True)
class Row:
    """Names of one kind: "a=b" gives the name `a` the canonical function `b`, `function` gives all of them one.

    `parameters` name the positional arguments; a last one "*dims" takes all that are left. `reflected` marks operators
    whose operands have changed places: `1 - x`, `1 / x`.
    """

    kind: str
    names: str
    parameters: str = "input"
    extract: at.Extract = at.nothing
    function: str = ""
    reflected: bool = False

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Each name of the row with its entry."""
        parameters = tuple(self.parameters.split())
        for item in self.names.split():
            name, _, canonical = item.partition("=")
            function = self.function or canonical or name.rpartition(".")[2]
            yield name, Entry(self.kind, function, parameters, self.extract, self.reflected)


@dataclass(frozen=True)
class Entry:
    """How calls of one name are understood: kind, canonical function, names of the positional arguments, attributes."""

    kind: str
    function: str
    parameters: tuple[str, ...]
    extract: at.Extract
    reflected: bool
