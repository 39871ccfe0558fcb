"""The user's line that constructed each module, remembered while a model is being built."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import nn

from gradlint.capture import frames
from gradlint.graph.ir import Span

ATTRIBUTE = "_gradlint_constructed"  # kept in the module's own dict, so that copies and pickles keep it


@contextmanager
def construction_spans() -> Iterator[None]:
    """Remember, for each module constructed inside the block, the line that did it; `constructed` reads it back."""
    original = nn.Module.__init__

    @functools.wraps(original)
    def initialise(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        place, _ = frames.nearest(_constructor(sys._getframe(1), self), frozenset())
        original(self, *args, **kwargs)
        if place is not None:
            self.__dict__.setdefault(ATTRIBUTE, place[1:])

    nn.Module.__init__ = initialise  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.__init__ = original  # type: ignore[method-assign]


def constructed(module: nn.Module) -> Span | None:
    """The line that constructed the module, or None when it was built outside `construction_spans`."""
    place = module.__dict__.get(ATTRIBUTE)
    return None if place is None else Span(place[0], place[1])


def _constructor(frame: FrameType | None, module: nn.Module) -> FrameType | None:
    """The first frame outside the module's own chain of `__init__` methods."""
    while frame is not None and _is_own_init(frame, module):
        frame = frame.f_back
    return frame


def _is_own_init(frame: FrameType, module: nn.Module) -> bool:
    code = frame.f_code
    return bool(code.co_argcount) and frame.f_locals.get(code.co_varnames[0]) is module
