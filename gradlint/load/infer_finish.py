"""Making an accepted plan a sensible one: batched, of the usual image size, ids over the whole table, masks open."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from gradlint.load.feed_plan import Axis, Guess, Plan
from gradlint.load.feed_trial import Trial, all_tensors
from gradlint.load.infer import Search, affordable
from gradlint.load.infer_context import SIZES, Context
from gradlint.load.infer_repair import SIDES, of_rank
from gradlint.load.infer_start import guesses, role_of
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
    for propose, better in STEPS:
        for plan in propose(accepted, search.known):
            trial = search.accepted(plan)
            if trial is not None and better(trial, accepted):
                accepted = trial
                break
    return accepted


def no_worse(new: Trial, old: Trial) -> bool:
    """Whether no number became infinite or undefined."""
    return finite(new) or not finite(old)


def with_loss(new: Trial, old: Trial) -> bool:
    """Whether the model returns a loss that it did not return before."""
    return own_loss(new) and not own_loss(old)


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
        if (
            guess is None
            or guess.role != "vector"
            or len(guess.axes) != 2
            or call.name not in ("flatten", "view", "reshape")
        ):
            continue
        width = trial.plan.size(guess.axes[1])
        if trial.seen.first_shape[path] == trial.plan.shape(guess):
            for axes in _pictures(width):
                yield trial.plan.put(path, Guess("image", ("B", *axes), guess.dtype))


def unsqueezed(trial: Trial, known: Context) -> Iterator[Plan]:
    """The first thing done to an input is to drop an axis of one that it does not have: an image of one channel."""
    for path, call in trial.seen.first.items():
        guess = trial.plan.leaves().get(path)
        axis = next((a for a in call.arguments if isinstance(a, int)), -1)
        if guess is None or call.name != "squeeze" or trial.seen.first_shape[path] != trial.plan.shape(guess):
            continue
        if 0 < axis < len(guess.axes):
            yield trial.plan.put(path, replace(guess, axes=(*guess.axes[:axis], 1, *guess.axes[axis:])))


def labelled(trial: Trial, known: Context) -> Iterator[Plan]:
    """An optional argument for labels: with it the model may compute its loss."""
    given = dict(trial.plan.arguments)
    for argument in known.arguments:
        if argument.name not in given and not argument.required and role_of(argument.name) == "labels":
            ids = [g for g in trial.plan.leaves().values() if g.role == "ids"]
            for node in (*(replace(g, role="labels", values=None) for g in ids[:1]), *guesses(argument, known)[:2]):
                plan = trial.plan.put(argument.name, node)
                yield replace(plan, keywords=plan.keywords | {argument.name})


def own_loss(trial: Trial) -> bool:
    """Whether the output holds a loss: a field of that name, only scalars, or a scalar where labels were given."""
    output = trial.output
    named = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    tensors = [t for t in all_tensors(output) if t.is_floating_point()]
    scalars = [t for t in tensors if t.dim() == 0]
    labels = any(guess.role == "labels" for guess in trial.plan.leaves().values())
    return isinstance(named, Tensor) or (bool(scalars) and (labels or len(scalars) == len(tensors)))


FLATTENS = ("flatten", "view", "reshape")


def _pictures(width: int) -> Iterator[tuple[Axis, ...]]:
    """Image shapes with this many numbers, and else a table."""
    for channels in (1, 3):
        side = math.isqrt(width // channels)
        if side in SIDES and channels * side * side == width:
            yield (channels, side, side)


def opened(trial: Trial, known: Context) -> Iterator[Plan]:
    """Masks of ones hid everything (or made the output undefined): ones mean what to leave out. All, else one."""
    masks = {path: replace(g, role="open mask") for path, g in trial.plan.leaves().items() if g.role == "mask"}
    closed = [path for path in masks if path in trial.seen.closed] or ([] if finite(trial) else list(masks))
    together = trial.plan
    for path in closed:
        together = together.put(path, masks[path])
    yield from [together] if closed else []
    yield from (trial.plan.put(path, masks[path]) for path in closed if len(closed) > 1)


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
    tables = sorted({rows for rows, _ in own}, reverse=True)
    parts = [tables[0] // share for share in (2, 4, 8)] if tables else []  # ids that are offset into one table
    return [rows for rows in dict.fromkeys([*direct[:1], *tables, *parts]) if rows > 0]


def final_batch(trial: Trial, known: Context) -> Iterator[Plan]:
    """A batch of 8, of 32 where a sample is small and the run quick; the search's own where it is slow."""
    plan = trial.plan
    if not any("B" in guess.axes for guess in plan.leaves().values()):
        return
    each = trial.seen.cost.seconds / plan.size("B")
    sample = max(math.prod(plan.shape(guess)) / plan.size("B") for guess in plan.leaves().values())
    if sample <= SMALL_SAMPLE and each * CHEAP_BATCH < CHEAP_SECONDS:
        yield plan.resized(B=CHEAP_BATCH)
    if not affordable(trial):
        normed = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in known.model.modules())
        yield plan.resized(B=2 if normed else 1)
    if each * BATCH < SLOW_SECONDS and plan.size("B") != BATCH:
        yield plan.resized(B=BATCH)


Propose = Callable[[Trial, Context], Iterator[Plan]]
Better = Callable[[Trial, Trial], bool]

STEPS: tuple[tuple[Propose, Better], ...] = (
    (batched, no_worse),
    (unflattened, no_worse),
    (unsqueezed, no_worse),
    (opened, no_worse),
    (usual_side, no_worse),
    (labelled, with_loss),
    (bounded_ids, no_worse),
    (final_batch, no_worse),
)
