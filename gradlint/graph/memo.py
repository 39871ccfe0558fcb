"""Remember what was computed of a graph for as long as the graph lives, so that rules can ask for it freely."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Hashable
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


def remembered(function: Callable[P, R]) -> Callable[P, R]:
    """The function with its result kept for the same arguments, told apart by identity; they must be positional.

    A result is dropped when one of the arguments is.
    """
    known: dict[tuple[int, ...], tuple[tuple[weakref.ref[object], ...], R]] = {}

    @functools.wraps(function)
    def look_up(*args: P.args, **kwargs: P.kwargs) -> R:
        key = tuple(map(id, args))
        found = known.get(key)
        if found is not None and all(ref() is arg for ref, arg in zip(found[0], args, strict=True)):
            return found[1]
        result = function(*args, **kwargs)
        known[key] = (tuple(weakref.ref(arg, lambda _: known.pop(key, None)) for arg in args), result)
        return result

    return look_up


def attached(function: Callable[Concatenate[T, Q], R]) -> Callable[Concatenate[T, Q], R]:
    """The function with its results kept as long as its first argument, which is told apart by identity.

    The other arguments are told apart by value.
    """
    known: dict[int, tuple[weakref.ref[object], dict[Hashable, R]]] = {}

    @functools.wraps(function)
    def look_up(owner: T, /, *values: Q.args, **kwargs: Q.kwargs) -> R:
        key = id(owner)
        found = known.get(key)
        if found is None or found[0]() is not owner:
            found = known[key] = (weakref.ref(owner, lambda _: known.pop(key, None)), {})
        results, given = found[1], (values, tuple(kwargs.items()))
        if given not in results:
            results[given] = function(owner, *values, **kwargs)
        return results[given]

    return look_up
