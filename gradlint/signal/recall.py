"""Results of numeric functions of small arrays, remembered by the entries of the arrays.

The layers of a network repeat each other, a graph is predicted again with one op changed, and a rule asks for the same
model under another loss: most of what a prediction computes has been computed before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R", bound=tuple[object, ...] | np.ndarray[Any, Any])

LARGEST = 1024  # entries of an array that a result is remembered for
KEPT = 4096  # results of one function


def recalled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, which gives an array or a tuple, with its results kept for equal arguments.

    Arguments are positional: arrays, of which the entries count, or hashable. Arrays in a result cannot be written to.
    """
    known: dict[tuple[object, ...], R] = {}

    @functools.wraps(function)
    def look_up(*args: P.args, **kwargs: P.kwargs) -> R:
        key: list[object] = []
        for arg in args:
            if not isinstance(arg, np.ndarray):
                key.append(arg)
            elif arg.size <= LARGEST:
                key += (arg.shape, arg.tobytes())
            else:
                return function(*args, **kwargs)
        found = known.get(tuple(key))
        if found is None:
            found = function(*args, **kwargs)
            for part in found if isinstance(found, tuple) else (found,):
                if isinstance(part, np.ndarray):
                    part.setflags(write=False)
            if len(known) >= KEPT:
                known.clear()
            known[tuple(key)] = found
        return found

    return look_up
