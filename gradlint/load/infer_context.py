"""What is known about a model before its first run: its signature, its first layers, the sizes that it states."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from gradlint.load.feed_plan import Guess, Node, Plan
from gradlint.load.infer_layers import entry_guesses, floating_of, has_shape, stated_sides, stem_sides
from gradlint.load.infer_source import Use, type_comments, uses

SIZES = {"B": 6, "T": 24, "S": 64, "L": 256, "D": 8, "N": 30, "E": 90}
"""Batch, steps, image side, signal length, depth, nodes, edges: numbers that are rarely the width of a layer."""

LENGTHS = ("seq_len", "seq_length", "sequence_length", "input_len", "input_length", "lookback", "window_size")
"""Attributes by which a model of series states how many steps it takes."""

MOST_STEPS = 512
"""Above this a stated length is most often an upper bound."""

LARGE = 3_000_000
"""Parameters from which a model is searched for, and if a run is slow left, with a smaller batch."""

LARGE_BATCH = 4


@dataclass(frozen=True)
class Argument:
    """One parameter of forward."""

    name: str
    annotation: str
    required: bool
    keyword: bool
    several: bool = False  # *args


@dataclass(frozen=True)
class Context:
    """What is known before the first run."""

    model: nn.Module
    arguments: tuple[Argument, ...]
    entries: tuple[Guess, ...]  # what the first layers take, most likely first
    sizes: dict[str, int]
    channels: int
    extra: bool  # forward takes **kwargs
    parameters: int
    uses: Mapping[str, Use]

    def plan(self, arguments: Mapping[str, Node], keywords: frozenset[str] = frozenset()) -> Plan:
        """A plan of these arguments over the usual sizes."""
        return Plan(tuple(arguments.items()), tuple(sorted(self.sizes.items())), keywords, floating_of(self.model))


def context(model: nn.Module) -> Context:
    """Read the signature, the first layers and the sizes that the model states."""
    arguments, extra = signature(model)
    side = next(itertools.chain(stated_sides(model), stem_sides(model)), SIZES["S"])
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    channels = conv.in_channels if conv is not None and conv.in_channels else 3
    entries = tuple(dict.fromkeys(entry_guesses(model))) or (Guess("vector", ("B", 8)),)
    parameters = sum(p.numel() for p in model.parameters() if has_shape(p))
    batch = SIZES["B"] if parameters < LARGE else LARGE_BATCH
    return Context(
        model,
        arguments,
        entries,
        {**SIZES, "B": batch, "S": side, "T": stated_steps(model)},
        channels,
        extra,
        parameters,
        uses(model),
    )


def stated_steps(model: nn.Module) -> int:
    """How many steps the model itself says that it takes, else the usual number."""
    stated = (getattr(model, name, None) for name in LENGTHS)
    return next((n for n in stated if type(n) is int and 1 < n <= MOST_STEPS), SIZES["T"])


def signature(model: nn.Module) -> tuple[tuple[Argument, ...], bool]:
    """The parameters of forward in order, and whether it takes **kwargs."""
    parameters = inspect.signature(model.forward).parameters.values()
    commented = type_comments(model)
    arguments = tuple(
        Argument(
            parameter.name,
            _annotation(parameter) or commented.get(parameter.name, ""),
            required=parameter.default is parameter.empty,
            keyword=parameter.kind is parameter.KEYWORD_ONLY,
            several=parameter.kind is parameter.VAR_POSITIONAL,
        )
        for parameter in parameters
        if parameter.kind is not parameter.VAR_KEYWORD
    )
    return arguments, any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _annotation(parameter: inspect.Parameter) -> str:
    given = parameter.annotation
    if given is parameter.empty:
        return ""
    return str(given.__name__) if inspect.isclass(given) else str(given)
