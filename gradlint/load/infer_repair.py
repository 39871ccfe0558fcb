"""Repairs of a plan from the torch call that refused it: what the call demands, carried back to the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gradlint.load.feed_plan import Axis, Guess, Plan
from gradlint.load.feed_trial import Call, Operand, Refusal, Trial
from gradlint.load.infer_context import Context

Change = tuple[float, Plan]
"""A repaired plan and what it costs to believe in it (0 follows from the message, 3 is a guess)."""

SIDES = (28, 32, 64, 224, 96, 48, 128, 84, 256, 112, 16, 160, 192, 299, 384, 512)
"""Image sides that people use, likeliest first."""

LENGTHS = (1024, 100, 128, 256, 512, 784, 1000, 2048, 4096, 16000, 16, 32, 64)

VOLUMES = ((16, 112), (16, 224), (32, 32), (8, 32), (64, 64), (32, 224), (4, 112))
"""Depth (or frames) and side of videos and volumes."""

SPATIAL = {"image": "S", "video": "S", "volume": "S", "signal": "L"}


@dataclass(frozen=True)
class Demand:
    """What a call wants of one operand: its last dimension, its channels (axis 1), its rank or its dtype."""

    operand: Operand
    last: int | None = None
    channels: int | None = None
    ranks: tuple[int, ...] = ()
    dtype: str = ""


@dataclass(frozen=True)
class Measured:
    """A flattened size, and the map of features that was flattened (channels, height, width) where it is known."""

    size: int
    map: tuple[int, ...] = ()


History = dict[int, dict[int, Measured]]


@dataclass
class Broken:
    """A refused trial, and what earlier trials measured: {wanted size: {spatial size: what came}}."""

    trial: Trial
    refusal: Refusal
    known: Context
    history: History = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The plan that was refused."""
        return self.trial.plan


def structural(broken: Broken) -> Iterator[Change]:
    """Repairs that the refused call's operands give."""
    call = broken.refusal.call
    for demand in DEMANDS[call.name](call) if call is not None and call.name in DEMANDS else ():
        yield from _shared_out(broken.plan, demand)
        for path in sources(broken.plan, demand.operand):
            yield from meet(broken, path, demand)


def _shared_out(plan: Plan, demand: Demand) -> Iterator[Change]:
    """Several inputs were concatenated into the operand, by their features or by their channels."""
    rank = len(demand.operand.shape)
    for place, wanted in ((rank - 1, demand.last), (1, demand.channels)):
        if wanted is not None and 0 <= place < rank:
            yield from _shares(plan, demand.operand, place, wanted)


def _shares(plan: Plan, operand: Operand, place: int, wanted: int) -> Iterator[Change]:
    """Widths that make up what is wanted: states keep theirs, images beside other inputs have the usual channels."""
    guesses = {path: plan.leaves()[path] for path in sources(plan, operand)}
    axes = {path: 1 if place == 1 < len(guess.axes) - 1 else len(guess.axes) - 1 for path, guess in guesses.items()}
    widths = {path: guess.axes[axes[path]] for path, guess in guesses.items() if guess.axes}
    if len(guesses) < 2 or len(widths) < len(guesses) or "B" in widths.values():
        return
    if sum(plan.size(width) for width in widths.values()) != operand.shape[place]:
        return
    free = [path for path, guess in guesses.items() if guess.role != "first"]
    images = [path for path in free if guesses[path].role in SPATIAL] if place == 1 else []
    left = wanted - sum(plan.size(widths[path]) for path in widths if path not in free)
    if images and len(images) < len(free):
        for rank, channels in enumerate(CHANNELS):
            others = [path for path in free if path not in images]
            rest = left - channels * len(images)
            if rest >= len(others):
                usual = _widened(plan, axes, images, channels * len(images))
                yield 0.1 + 0.1 * rank, _widened(usual, axes, others, rest)
    if left >= len(free) > 0:
        yield 0.1 if left % len(free) == 0 else 0.4, _widened(plan, axes, free, left)


CHANNELS = (3, 1)
"""Channels that images have, likeliest first."""


def _widened(plan: Plan, axes: dict[str, int], paths: list[str], whole: int) -> Plan:
    """The inputs with widths as equal as can be that make up the whole."""
    share, rest = divmod(whole, len(paths))
    for rank, path in enumerate(paths):
        guess, place = plan.leaves()[path], axes[path]
        sizes = (*guess.axes[:place], share + (rank < rest), *guess.axes[place + 1 :])
        plan = plan.put(path, replace(guess, axes=sizes))
    return plan


def touches(broken: Broken, path: str) -> bool:
    """Whether the refused call has an operand computed from this input (or none is known)."""
    call = broken.refusal.call
    behind = frozenset[str]().union(*(o.sources for o in call.operands)) if call is not None else frozenset()
    return not behind or path in behind


def sources(plan: Plan, operand: Operand) -> list[str]:
    """The inputs that an operand comes from; all of them when its history was lost."""
    leaves = plan.leaves()
    return [path for path in leaves if path in operand.sources] or ([] if operand.parameter else list(leaves))


def meet(broken: Broken, path: str, demand: Demand) -> Iterator[Change]:
    """Plans in which the input at `path` gives the operand what is demanded, by whichever aspect does not fit yet."""
    guess, got = broken.plan.leaves()[path], demand.operand
    if demand.dtype and not same_family(got.dtype, demand.dtype):
        yield from retype(broken, path, demand.dtype)
    elif demand.ranks and len(got.shape) not in demand.ranks:
        yield from rerank(broken, path, max(demand.ranks) - len(got.shape))
    elif demand.channels is not None and len(got.shape) > 1 and got.shape[1] != demand.channels:
        yield from resize(broken, path, got.shape[1], demand.channels, got)
    elif demand.last is not None and got.shape and got.shape[-1] != demand.last:
        yield from resize(broken, path, got.shape[-1], demand.last, got)
    elif guess.role in SPATIAL:
        yield from other_sides(broken, path)


def same_family(one: str, other: str) -> bool:
    """Whether two dtypes are both floating, both whole numbers or both bool."""
    return _family(one) == _family(other)


def _family(dtype: str) -> str:
    return "float" if "float" in dtype or "complex" in dtype else "bool" if dtype == "bool" else "int"


def retype(broken: Broken, path: str, dtype: str) -> Iterator[Change]:
    """The same input as another kind of number; its shape follows (features become ids)."""
    guess = broken.plan.leaves()[path]
    if _family(dtype) == "int":
        flat = guess.axes if isinstance(guess.axes[-1] if guess.axes else "", str) else guess.axes[:-1]
        shapes = dict.fromkeys((("B", "T"), flat, ("B",), guess.axes))
        for rank, axes in enumerate(shapes):
            yield 0.2 + 0.3 * rank, broken.plan.put(path, Guess("ids", axes, "int64"))
    elif dtype == "bool":
        yield 0.1, broken.plan.put(path, replace(guess, dtype="bool", values=None))
    else:
        for rank, entry in enumerate(e for e in broken.known.entries if e.dtype == dtype):
            yield 0.3 + 0.3 * rank, broken.plan.put(path, entry)
        yield 0.6, broken.plan.put(path, replace(guess, role="vector", dtype="float32"))


def rerank(broken: Broken, path: str, difference: int) -> Iterator[Change]:
    """The same input with more or fewer dimensions."""
    guess = broken.plan.leaves()[path]
    rank = len(guess.axes) + difference
    for order, other in enumerate(of_rank(broken.known, guess, rank)):
        yield 0.2 + 0.3 * order, broken.plan.put(path, other)


def of_rank(known: Context, guess: Guess, rank: int) -> list[Guess]:
    """What an input of this rank would be here: first a layer's input, then the usual one."""
    listed = [entry for entry in known.entries if len(entry.axes) == rank and same_family(entry.dtype, guess.dtype)]
    width = next((axis for axis in reversed(guess.axes) if isinstance(axis, int)), None)
    features = width or next((e.axes[-1] for e in known.entries if isinstance(e.axes[-1], int)), 8)
    steps = (
        [replace(guess, axes=guess.axes[:-1])]
        if guess.axes[1:] and guess.axes[-1] == 1 == len(guess.axes) - rank
        else []
    )
    usual = {
        0: Guess("vector", ()),
        1: Guess("vector", ("B",)),
        2: Guess("vector", ("B", features))
        if guess.role not in SPATIAL
        else Guess("signal", ("B", SPATIAL[guess.role])),
        3: Guess("sequence", ("B", "T", features)),
        4: Guess("image", ("B", known.channels, "S", "S")),
        5: Guess("video", ("B", "D", known.channels, "S", "S")),
    }
    if guess.dtype != "float32":
        usual = {
            1: replace(guess, axes=("B",)),
            2: replace(guess, axes=("B", "T")),
            3: replace(guess, axes=("B", "T", "T")),
        }
    flat = [Guess("image", ("B", "S", "S"))] if rank == 3 and guess.role == "image" else []
    batch = (
        [replace(guess, axes=("B", *guess.axes))] if guess.axes[:1] == ("N",) and rank == len(guess.axes) + 1 else []
    )
    return list(dict.fromkeys([*batch, *steps, *listed, *flat, *([usual[rank]] if rank in usual else [])]))


def resize(broken: Broken, path: str, got: int, wanted: int, operand: Operand) -> Iterator[Change]:
    """The operand's dimension must become `wanted`: find the input's dimension that does it."""
    plan, guess = broken.plan, broken.plan.leaves()[path]
    shape = plan.shape(guess)
    for place in reversed(range(len(shape))):
        if shape[place] == got and (place > 0 or guess.axes[0] != "B"):
            cost = 0.0 if operand.input else 0.2
            yield cost + 0.05 * (len(shape) - place), set_axis(plan, path, place, wanted)
    if guess.role in SPATIAL:
        yield from solve_side(broken, path, got, wanted, operand)
    elif isinstance(guess.axes[-1] if guess.axes else None, str):
        yield from _scaled(plan, str(guess.axes[-1]), got, wanted)
    else:
        yield from _stretched(broken, path, got, wanted)
    if guess.dtype == "float32":
        alone = guess.axes == ("B",)  # one number a sample, where a layer wants several
        yield 0.2 if alone else 2.0, plan.put(path, Guess("vector", ("B", wanted)))
        yield 2.5, plan.put(path, Guess("sequence", ("B", "T", wanted)))


def set_axis(plan: Plan, path: str, place: int, size: int) -> Plan:
    """One dimension of an input set; a named size changes for all its inputs, except that a batch is cut loose."""
    guess = plan.leaves()[path]
    axis = guess.axes[place]
    if isinstance(axis, str) and axis != "B":
        return plan.resized(**{axis: size})
    axes = (*guess.axes[:place], size, *guess.axes[place + 1 :])
    return plan.put(path, replace(guess, axes=axes))


def _scaled(plan: Plan, axis: str, got: int, wanted: int) -> Iterator[Change]:
    """A size that the operand's dimension is proportional to."""
    size = plan.size(axis)
    if axis != "B" and got and (size * wanted) % got == 0 and size * wanted // got:
        yield 0.4, plan.resized(**{axis: size * wanted // got})


def _stretched(broken: Broken, path: str, got: int, wanted: int) -> Iterator[Change]:
    """A flattened or concatenated operand: the steps stretch in proportion, or this input makes up the difference."""
    plan, guess = broken.plan, broken.plan.leaves()[path]
    for axis in guess.axes:
        if isinstance(axis, str):
            yield from _scaled(plan, axis, got, wanted)
    width = guess.axes[-1] if guess.axes else 0
    if isinstance(width, int) and width + wanted - got > 0:
        yield 0.6, set_axis(plan, path, len(guess.axes) - 1, width + wanted - got)
    if isinstance(width, int) and got and (width * wanted) % got == 0:
        yield 0.8, set_axis(plan, path, len(guess.axes) - 1, width * wanted // got)


def solve_side(broken: Broken, path: str, got: int, wanted: int, operand: Operand) -> Iterator[Change]:
    """The image side (or signal length) at which the flattened size is `wanted`.

    The size grows with the side, so earlier trials bracket it; between them the usual sides are tried before the
    proportional estimate. Where no square fits, height and width are found apart.
    """
    guess = broken.plan.leaves()[path]
    axis = SPATIAL[guess.role]
    if axis not in guess.axes:
        return
    side = broken.plan.size(axis)
    measured = broken.history.setdefault(wanted, {})
    measured[side] = Measured(got, operand.flattened[1:])
    low = max((s for s, found in measured.items() if found.size < wanted), default=0)
    high = min(
        (s for s, found in measured.items() if found.size > wanted), default=2 * side * max(1, wanted // got) + 64
    )
    for rank, candidate in enumerate(_between(measured, low, high, wanted, axis)):
        yield 0.1 + 0.1 * rank, broken.plan.resized(**{axis: candidate})
    for rank, axes in enumerate(_rectangles(guess, measured, wanted) if axis == "S" else ()):
        yield 0.5 + 0.1 * rank, broken.plan.put(path, replace(guess, axes=axes))
    if len(operand.flattened) > 1 and wanted % operand.flattened[1]:
        yield 1.0, broken.plan.put(path, Guess("vector", ("B", wanted)))


def _between(measured: dict[int, Measured], low: int, high: int, wanted: int, axis: str) -> list[int]:
    """Candidate sides strictly between two measured ones, nearest to the estimate first."""
    power = 0.5 if axis == "S" else 1.0
    near = min(measured, key=lambda side: abs(math.log(measured[side].size / wanted)))
    estimate = near * (wanted / measured[near].size) ** power
    usual = [side for side in (SIDES if axis == "S" else LENGTHS) if low < side < high]
    usual.sort(key=lambda side: abs(math.log(side / estimate)))
    rest = [round(estimate), (low + high) // 2]
    inside = [side for side in (*usual[:2], *rest, *usual[2:3]) if low < side < high and side not in measured]
    return list(dict.fromkeys(inside))


def _rectangles(guess: Guess, measured: dict[int, Measured], wanted: int) -> list[tuple[Axis, ...]]:
    """Heights and widths at which the map has as many entries as wanted, nearest to a square first.

    A step of the total stride in the input is a step of one in the map; two trials of different sides give the stride.
    """
    known = [(side, found.map) for side, found in sorted(measured.items()) if len(found.map) == 3]
    if len(known) < 2 or wanted % known[0][1][0]:
        return []
    (side, (channels, *now)), (other, (_, *then)) = known[-1], known[0]
    strides = [_stride(side - other, a - b) for a, b in zip(now, then, strict=True)]
    entries = wanted // channels
    pairs = [(a, entries // a) for a in range(1, entries + 1) if entries % a == 0]
    pairs.sort(key=lambda pair: abs(math.log(pair[0] / pair[1])))
    sides = [[side + s * (p - n) for s, p, n in zip(strides, pair, now, strict=True)] for pair in pairs]
    return [(*guess.axes[:-2], *pair) for pair in sides if min(pair) > 0]


def _stride(sides: int, maps: int) -> int:
    """The power of two nearest to the ratio of two differences."""
    return 1 << round(math.log2(max(1.0, sides / max(1, maps))))


def other_sides(broken: Broken, path: str) -> Iterator[Change]:
    """Other usual sizes, for a refusal that only says that the size does not suit."""
    guess = broken.plan.leaves()[path]
    axis = SPATIAL[guess.role]
    if axis not in guess.axes:
        return
    if guess.role in ("volume", "video"):
        for rank, (depth, side) in enumerate(VOLUMES):
            yield 0.8 + 0.2 * rank, broken.plan.resized(D=depth, S=side)
        return
    usual = (224, 32, 64, 128, 256, 96, 299, 384, 512, 28) if axis == "S" else (1024, 4096, 16000, 256, 64, 32, 100)
    for rank, side in enumerate(size for size in usual if size != broken.plan.size(axis)):
        yield 0.8 + 0.2 * rank, broken.plan.resized(**{axis: side})


# ---- what each call demands


def _linear(call: Call) -> Iterator[Demand]:
    data, weight = call.operands[:2]
    yield Demand(data, last=weight.shape[-1], dtype=weight.dtype)


def _product(call: Call) -> Iterator[Demand]:
    left, right = call.operands[-2:]
    if left.sources and right.shape:
        yield Demand(left, last=right.shape[max(len(right.shape) - 2, 0)], dtype=right.dtype if right.parameter else "")
    if right.sources and left.shape and not left.sources:
        yield Demand(right, channels=left.shape[-1] if len(right.shape) == 2 else None, dtype=left.dtype)


def _convolution(call: Call) -> Iterator[Demand]:
    data, weight = call.operands[:2]
    groups = int(dict(call.keywords).get("groups", _last_number(call)))  # type: ignore[call-overload]
    transposed = "transpose" in call.name
    channels = weight.shape[0] if transposed else weight.shape[1] * groups
    yield Demand(data, channels=channels, ranks=(len(weight.shape),), dtype=weight.dtype)


def _last_number(call: Call) -> int:
    last = call.arguments[-1] if call.arguments else 1
    return last if isinstance(last, int) and "transpose" not in call.name else 1


def _lookup(call: Call) -> Iterator[Demand]:
    yield Demand(call.operands[0], dtype="int64")


def _index(call: Call) -> Iterator[Demand]:
    for operand in call.operands[1:]:
        yield Demand(operand, dtype="int64")


def _channel_norm(call: Call) -> Iterator[Demand]:
    data, *rest = call.operands
    if rest:
        yield Demand(data, channels=rest[0].shape[0])


def _layer_norm(call: Call) -> Iterator[Demand]:
    shape = next((a for a in (*call.arguments, *dict(call.keywords).values()) if isinstance(a, (tuple, list))), ())
    if shape:
        yield Demand(call.operands[0], last=int(shape[-1]), dtype="float32")


def _mask(call: Call) -> Iterator[Demand]:
    if len(call.operands) > 1:
        yield Demand(call.operands[1], dtype="bool")


def _size(call: Call) -> Iterator[Demand]:
    yield Demand(call.operands[0])


DEMANDS: dict[str, Callable[[Call], Iterator[Demand]]] = {
    "linear": _linear,
    "matmul": _product,
    "__matmul__": _product,
    "mm": _product,
    "bmm": _product,
    "addmm": _product,
    "einsum": _product,
    **dict.fromkeys((f"conv{kind}{n}d" for kind in ("", "_transpose") for n in "123"), _convolution),
    "embedding": _lookup,
    "embedding_bag": _lookup,
    "one_hot": _lookup,
    "gather": _index,
    "index_select": _index,
    "scatter": _index,
    "scatter_add_": _index,
    "index_add_": _index,
    "batch_norm": _channel_norm,
    "instance_norm": _channel_norm,
    "group_norm": _channel_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "masked_fill": _mask,
    "masked_fill_": _mask,
    "max_pool2d": _size,
    "avg_pool2d": _size,
    "pad": _size,
}
