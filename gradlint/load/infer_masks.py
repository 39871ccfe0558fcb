"""Repairs of a plan that are about masks: their kind of number and their shape, as attention wants them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from gradlint.load.feed_plan import Axis, Guess, Plan
from gradlint.load.infer_repair import Broken, Change, touches


def truth_values(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A mask was not bool."""
    for path, guess in broken.plan.leaves().items():
        if guess.role in ("mask", "open mask", "ids") and guess.dtype != "bool":
            yield 0.2, broken.plan.put(path, Guess("mask", guess.axes, "bool"))


def numeric_mask(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """Arithmetic on a bool mask."""
    for path, guess in broken.plan.leaves().items():
        if guess.dtype == "bool":
            yield 0.2, broken.plan.put(path, replace(guess, dtype="float32"))


def mask_form(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A mask that does not broadcast to the scores: the forms that attention code uses."""
    for path, guess in broken.plan.leaves().items():
        if guess.role in ("mask", "open mask") and touches(broken, path):
            for rank, axes in enumerate(MASKS):
                yield 0.3 + 0.1 * rank, broken.plan.put(path, replace(guess, axes=axes))


def mask_shape(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """torch's attention says what shape it wants of an `attn_mask`: "torch.Size([6, 24]), but should be (6, 6)"."""
    came, wanted = (tuple(int(n) for n in re.findall(r"\d+", shape)) for shape in match.groups())
    for cost, path in _masks(broken, came, padding=False):
        yield cost, _with_axes(broken, path, wanted)


def padding_size(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """It says the size that it wants of one axis of a `key_padding_mask`: most often, the axes are the other way."""
    axis, wanted, came = map(int, match.groups())
    for cost, path in _masks(broken, None, padding=True):
        shape = broken.plan.shape(broken.plan.leaves()[path])
        if len(shape) == 2 and shape[axis] == came:
            turned = shape[::-1] if shape[1 - axis] == wanted else (*shape[:axis], wanted, *shape[axis + 1 :])
            yield cost, _with_axes(broken, path, turned)


def _masks(broken: Broken, shape: tuple[int, ...] | None, *, padding: bool) -> Iterator[tuple[float, str]]:
    """What it costs to believe that a mask (of this shape) is meant: those called so first, in their order."""
    for rank, (path, guess) in enumerate(broken.plan.leaves().items()):
        if guess.role in ("mask", "open mask") and shape in (None, broken.plan.shape(guess)):
            yield 0.1 + 0.02 * rank + 0.3 * (padding != ("pad" in path)), path


def _with_axes(broken: Broken, path: str, shape: tuple[int, ...]) -> Plan:
    guess = broken.plan.leaves()[path]
    return broken.plan.put(path, replace(guess, axes=tuple(_named(broken, size) for size in shape)))


def _named(broken: Broken, size: int) -> Axis:
    """The axis of this size that the plan has a name for, else the number."""
    return next((axis for axis in ("B", "T") if broken.plan.size(axis) == size), size)


MASKS: tuple[tuple[Axis, ...], ...] = (("B", 1, "T"), ("T", "T"), ("B", 1, 1, "T"), ("B", "T", "T"), ("B", "T"))
