"""Making an accepted plan a sensible one: batched, of the usual image size, ids over the whole table, masks open."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch

from gradlint.load.feed_plan import Axis, Guess, Plan
from gradlint.load.feed_trial import Trial, all_tensors
from gradlint.load.infer import Search, affordable
from gradlint.load.infer_context import SIZES, Context
from gradlint.load.infer_repair import of_rank
from gradlint.load.spec import INTEGERS, Values

BATCH = 8
"""The batch of a finished plan: at least 2 for BatchNorm, enough for a share of dead units, cheap to run."""

CHEAP_BATCH = 32
"""The batch when a sample is small and its run is quick, so that statistics over a unit's samples mean something."""

CHEAP_SECONDS = 0.2
SLOW_SECONDS = 1.5
"""The larger batch is taken when its run, by proportion, takes no longer than this; else the search's batch stays."""

SMALL_SAMPLE = 4096


def finished(search: Search, accepted: Trial) -> Trial:
    """The best plan reached from an accepted one by improvements that the model accepts as well."""
    for step in STEPS:
        for plan in step(accepted, search.known):
            better = search.accepted(plan)
            if better is not None and not _worse(better, accepted):
                accepted = better
                break
    return accepted


def _worse(new: Trial, old: Trial) -> bool:
    """Whether numbers became infinite or undefined that were not."""
    return finite(old) and not finite(new)


def finite(trial: Trial) -> bool:
    """Whether every number of the output is finite (on meta nothing is known, so yes)."""
    tensors = [t for t in all_tensors(trial.output) if t.is_floating_point() and not t.is_meta]
    return all(bool(torch.isfinite(t.detach()).all()) for t in tensors)


def batched(trial: Trial, known: Context) -> Iterator[Plan]:
    """A layer took an input for a single sample: give it a batch axis."""
    for path in sorted(trial.seen.unbatched & set(trial.plan.leaves())):
        guess = trial.plan.leaves()[path]
        for other in of_rank(known, guess, len(guess.axes) + 1):
            yield trial.plan.put(path, other)


def unflattened(trial: Trial, known: Context) -> Iterator[Plan]:
    """The first thing done to a vector is to flatten it, which changes nothing: an image was meant."""
    for path, call in trial.seen.first.items():
        guess = trial.plan.leaves().get(path)
        if guess is None or len(guess.axes) != 2 or call.name not in ("flatten", "view", "reshape"):
            continue
        width = trial.plan.size(guess.axes[1])
        if trial.seen.first_shape[path] == trial.plan.shape(guess):
            for axes in _pictures(width):
                yield trial.plan.put(path, Guess("image", ("B", *axes), guess.dtype))


def _pictures(width: int) -> Iterator[tuple[Axis, ...]]:
    """Image shapes with this many numbers, and else a table."""
    for channels in (1, 3):
        side = math.isqrt(width // channels)
        if side >= 8 and channels * side * side == width:
            yield (channels, side, side)


def opened(trial: Trial, known: Context) -> Iterator[Plan]:
    """A mask of ones hid everything (or made the output undefined): ones mean what to leave out."""
    for path, guess in trial.plan.leaves().items():
        if guess.role == "mask" and (path in trial.seen.closed or not finite(trial)):
            yield trial.plan.put(path, replace(guess, role="open mask"))


def usual_side(trial: Trial, known: Context) -> Iterator[Plan]:
    """For a net of any image size: 224 when it divides the side by 32 or more (ImageNet's nets), 64 for 16, else 32."""
    sides = [guess for guess in trial.plan.leaves().values() if "S" in guess.axes]
    if not sides or trial.plan.size("S") != SIZES["S"] or known.sizes["S"] != SIZES["S"] or not trial.seen.narrowest:
        return
    reduction = SIZES["S"] / trial.seen.narrowest
    side = 224 if reduction >= 32 else 32 if reduction < 16 else SIZES["S"]
    if side != SIZES["S"]:
        yield trial.plan.resized(S=side)


def bounded_ids(trial: Trial, known: Context) -> Iterator[Plan]:
    """Ids over the whole of the table that they index: one that takes them as they are, else the largest that works."""
    choices = {path: _bounds(trial, path) for path, guess in trial.plan.leaves().items() if _unbounded(guess)}
    for rank in range(max(map(len, choices.values()), default=0)):
        plan = trial.plan
        for path, bounds in choices.items():
            if bounds:
                bound = bounds[min(rank, len(bounds) - 1)]
                plan = plan.put(path, replace(plan.leaves()[path], values=Values("integers", 0, bound)))
        yield plan


def _unbounded(guess: Guess) -> bool:
    return guess.dtype in INTEGERS and guess.values is None and guess.role in ("ids", "labels", "given")


def _bounds(trial: Trial, path: str) -> list[int]:
    """Table sizes for the ids at `path`, best first."""
    own = [(rows, direct) for rows, sources, direct in trial.seen.bounds if path in sources]
    direct = sorted({rows for rows, is_direct in own if is_direct})
    return list(dict.fromkeys([*direct[:1], *sorted({rows for rows, _ in own}, reverse=True)]))


def final_batch(trial: Trial, known: Context) -> Iterator[Plan]:
    """A batch of 8, of 32 where a sample is small and the run quick; the search's own where it is slow."""
    plan = trial.plan
    if not any("B" in guess.axes for guess in plan.leaves().values()):
        return
    each = max(trial.seconds, trial.seen.cost.seconds) / plan.size("B")
    sample = max(math.prod(plan.shape(guess)) / plan.size("B") for guess in plan.leaves().values())
    if sample <= SMALL_SAMPLE and each * CHEAP_BATCH < CHEAP_SECONDS:
        yield plan.resized(B=CHEAP_BATCH)
    if not affordable(trial):
        yield plan.resized(B=2)
    if each * BATCH < SLOW_SECONDS and plan.size("B") != BATCH:
        yield plan.resized(B=BATCH)


STEPS = (batched, unflattened, opened, usual_side, bounded_ids, final_batch)
