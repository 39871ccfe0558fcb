"""Repairs of a plan from the words of the refusal: sizes, ranks, kinds of number, containers, missing arguments."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from torch import Tensor

from gradlint.load.feed_plan import Group, Guess
from gradlint.load.feed_trial import sources_of, tensors_in
from gradlint.load.infer_asserted import asserted_size
from gradlint.load.infer_context import Argument
from gradlint.load.infer_joined import as_many_axes, joined_size, resized
from gradlint.load.infer_masks import mask_form, mask_shape, numeric_mask, padding_size, truth_values
from gradlint.load.infer_repair import (
    CHANNELS,
    SPATIAL,
    Broken,
    Change,
    other_sides,
    rerank,
    retype,
    set_axis,
    solve_side,
    touches,
)
from gradlint.load.infer_start import BESIDE_BOXES, ROLES, guesses

LARGEST = 1 << 16

FEW_ENTRIES = 64
"""Entries that code picks one by one, by their places."""


def textual(broken: Broken) -> Iterator[Change]:
    """Repairs that the message asks for, by every rule whose pattern it matches."""
    text = broken.refusal.text
    for pattern, rule in RULES:
        match = pattern.search(text)
        if match is not None:
            yield from rule(broken, match)


def swapped_numbers(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A number of the message that is one of our sizes gives way to another number of the message."""
    numbers = list(dict.fromkeys(int(n) for n in re.findall(r"(?<![\w.])\d{1,6}(?![\w.]*\.\d)", broken.refusal.text)))
    operands = broken.refusal.call.operands if broken.refusal.call is not None else ()
    touched = frozenset[str]().union(*(operand.sources for operand in operands))
    for path, guess in broken.plan.leaves().items():
        cost = 0.3 if path in touched or not touched else 0.9
        for place, size in enumerate(broken.plan.shape(guess)):
            others = [n for n in numbers if n not in (size, broken.plan.size("B")) and 0 < n < LARGEST]
            others = others if size in numbers and size > 1 else []
            unlikely = 1.5 if guess.axes[place] == "B" else 0.0
            for rank, other in enumerate(others[:5]):
                single = 2.0 if other == 1 and isinstance(guess.axes[place], str) else 0.0
                yield cost + unlikely + single + 0.15 * rank, set_axis(broken.plan, path, place, other)


def stated_size(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A message that names one size ("divisible by 32", "block size is only 16", "multiple of 7")."""
    wanted = int(match[1])
    for path, guess in broken.plan.leaves().items():
        axis = SPATIAL.get(guess.role, "T")
        if axis in guess.axes and 1 < wanted < LARGEST and wanted != broken.plan.size(axis):
            now = broken.plan.size(axis)
            yield 0.6, broken.plan.resized(**{axis: max(wanted, now // wanted * wanted)})
            yield 0.7, set_axis(broken.plan, path, guess.axes.index(axis), wanted)


def index_of_axis(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """An entry of an axis that is too short for it (`marks[:, :, 3]`): as many entries as it needs."""
    index, axis, size = (int(match[i]) for i in (1, 2, 3))
    call = broken.refusal.call
    for operand in call.operands[:1] if call is not None and 0 <= index < FEW_ENTRIES else ():
        for path in operand.sources & set(broken.plan.leaves()):
            guess = broken.plan.leaves()[path]
            if len(guess.axes) > axis and broken.plan.shape(guess)[axis] == size:
                axes = (*guess.axes[:axis], index + 1, *guess.axes[axis + 1 :])
                yield 0.1, broken.plan.put(path, replace(guess, axes=axes))


def wrong_rank(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """ "expected 4D input (got 2D input)", "Expected 3D (unbatched) or 4D (batched) input to conv2d"."""
    text = broken.refusal.text
    told = re.search(r"got (?:input )?(\d)-?D", text)
    wanted = [int(n) for n in re.findall(r"(\d)-?D", text[: told.start()] if told else text)]
    operand = broken.refusal.call.operands[0] if broken.refusal.call and broken.refusal.call.operands else None
    shape = re.search(r"size:? \[([\d, ]*)\]", text)
    got = int(told[1]) if told else len(operand.shape) if operand else len(shape[1].split(",")) if shape else 0
    for path in _suspects(broken, got):
        for rank, target in enumerate(sorted(set(wanted), reverse=True)):
            yield from _cheaper(rerank(broken, path, target - got), 0.3 * rank)


def wanted_rank(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """ "input must have 3 dimensions, got 2"."""
    wanted, got = int(match[1]), int(match[2])
    for path in _suspects(broken, got):
        yield from rerank(broken, path, wanted - got)


def unpacked(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """`b, c, h, w = x.shape` with fewer dimensions, or `a, b = batch` where a tuple was meant."""
    frame = broken.refusal.frame
    wanted = int(match[1])
    line = frame.line if frame else ""
    value = line.partition("=")[2].strip()
    subject = re.match(r"([\w.]+?)(?:\.shape|\.size\(\))", value)
    tensor = _variable(broken, subject[1]) if subject else None
    if tensor is not None:
        for path in sources_of(tensor):
            yield from rerank(broken, path, wanted - tensor.dim())
        return
    for path in [value] if value in broken.plan.leaves() else ():
        guess = broken.plan.leaves()[path]
        yield 0.3, broken.plan.put(path, Group("tuple", tuple((str(i), guess) for i in range(wanted))))
    for path, guess in broken.plan.leaves().items():
        yield from _cheaper(rerank(broken, path, wanted - len(guess.axes)), 0.6)


def needs_rank(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """An axis that is not there: one dimension more."""
    operands = broken.refusal.call.operands if broken.refusal.call is not None else ()
    touched = frozenset[str]().union(*(operand.sources for operand in operands))
    for path in touched or broken.plan.leaves():
        yield from rerank(broken, path, 1)
        yield from _cheaper(rerank(broken, path, 2), 0.5)
        yield from _cheaper(rerank(broken, path, -1), 1.0)


def whole_numbers(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """An index was a float."""
    for path, guess in broken.plan.leaves().items():
        if guess.dtype == "float32" and touches(broken, path):
            yield from retype(broken, path, "int64")


def floating_numbers(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A layer was given whole numbers."""
    for path, guess in broken.plan.leaves().items():
        if guess.dtype != "float32" and touches(broken, path):
            yield from retype(broken, path, "float32")


def flattened_size(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """ "shape '[-1, 400]' is invalid for input of size 107584"."""
    fixed = [int(n) for n in re.findall(r"-?\d+", match[1])]
    total, call = int(match[2]), broken.refusal.call
    wanted = [n for n in fixed if n > 1 and n != broken.plan.size("B")]
    batch = broken.plan.size("B")
    for path, guess in broken.plan.leaves().items():
        if wanted and guess.role in SPATIAL and call is not None and total % batch == 0:
            yield from solve_side(broken, path, total // batch, max(wanted), call.operands[0])
        yield from _stretched_over_a_map(broken, path, fixed, total)
        if len(fixed) > 1 and -1 not in fixed and guess.dtype == "float32" and touches(broken, path):
            axes = ("B" if fixed[0] == batch else fixed[0], *fixed[1:])
            yield 0.3, broken.plan.put(path, Guess("vector", axes))  # the view then changes nothing
        if list(broken.plan.shape(guess)) == fixed and guess.role == "image" and total % batch == 0:
            yield from _as_large_an_image(broken, path, total // batch)
    yield from _as_sequences(broken)


def _as_sequences(broken: Broken) -> Iterator[Change]:
    """Several rows of features (the query, key and value of attention): all of them are sequences."""
    rows = {path: guess for path, guess in broken.plan.leaves().items() if guess.role == "vector" and guess.axes[1:]}
    plan = broken.plan
    for path, guess in rows.items():
        plan = plan.put(path, Guess("sequence", ("B", "T", guess.axes[-1])))
    yield from [(0.2, plan)] if len(rows) > 1 else []


def _as_large_an_image(broken: Broken, path: str, entries: int) -> Iterator[Change]:
    """`self.fc(z).view(*img.shape)`: an image of so many numbers a sample."""
    for rank, channels in enumerate(CHANNELS):
        side = math.isqrt(entries // channels)
        if channels * side * side == entries:
            image = Guess("image", ("B", channels, "S", "S"))
            yield 0.1 + 0.1 * rank, broken.plan.put(path, image).resized(S=side)


def _stretched_over_a_map(broken: Broken, path: str, wanted: list[int], size: int) -> Iterator[Change]:
    """`c.view(c.size(0), c.size(1), 1, 1)`: a vector, which is given to every place of an image."""
    guess = broken.plan.leaves()[path]
    shape, given = list(broken.plan.shape(guess)), wanted
    while given[-1:] == [1]:
        given = given[:-1]
    if 0 < len(given) < len(shape) and shape[: len(given)] == given and math.prod(shape) == size:
        yield 0.1, broken.plan.put(path, Guess("vector", guess.axes[: len(given)]))


def dict_key(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A key that the dict inputs must have (the same for every dict of a list)."""
    raised = broken.refusal.error.args
    key = match[1] if match.lastindex else str(raised[0]) if raised else ""
    lacking = [path for path, group in broken.plan.groups().items() if group.kind == "dict"]
    lacking = [path for path in lacking if broken.plan.node(f"{path}.{key}") is None]
    boxed = any(broken.plan.node(f"{path}.boxes") for path in lacking)
    found = guesses(Argument(key, "", required=True, keyword=False), broken.known)[:4]
    for rank, node in enumerate([BESIDE_BOXES[key]] if boxed and key in BESIDE_BOXES else found):
        plan = broken.plan
        for path in lacking if key.isidentifier() else ():
            plan = plan.put(f"{path}.{key}", node)
        yield 0.2 + 0.3 * rank, plan


def dict_wanted(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A tensor was indexed by a string."""
    for name, node in broken.plan.arguments:
        if isinstance(node, Guess):
            yield 0.3, broken.plan.put(name, Group("dict", ()))


def attribute(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A tensor was asked for a field of a data object (`data.edge_index`), or the object lacks one."""
    key = match[1]
    for name, node in broken.plan.arguments:
        if isinstance(node, Group) and node.kind == "object":
            yield from _members(broken, f"{name}.{key}", key)
        elif isinstance(node, Guess) and not hasattr(Tensor, key):
            kind = "dict" if key in ("keys", "items", "get", "values") else "object"
            yield 0.4, broken.plan.put(name, Group(kind, ()))  # type: ignore[arg-type]


def missing(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """An optional argument that this forward needs after all: it was None where it was used."""
    given = dict(broken.plan.arguments)
    variables = broken.refusal.frame.variables if broken.refusal.frame else {}
    for argument in broken.known.arguments:
        if argument.name not in given and not argument.several:
            near = 0.0 if argument.name in variables or argument.name in broken.refusal.text else 0.6
            for rank, node in enumerate(guesses(argument, broken.known)[:3]):
                plan = broken.plan.put(argument.name, node)
                keyed = replace(plan, keywords=plan.keywords | {argument.name})
                yield 0.4 + near + 0.3 * rank, keyed


def token_count(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """Patches (and a class token or two) against a position table: the side goes with their square root."""
    one, other = int(match[1]), int(match[2])
    for path, guess in broken.plan.leaves().items():
        axis = SPATIAL.get(guess.role, "")
        if axis not in guess.axes or not touches(broken, path):
            continue
        for tokens, (now, wanted) in itertools.product((0, 1, 2), ((one, other), (other, one))):
            ratio = (wanted - tokens) / (now - tokens) if min(now, wanted) > tokens else 1.0
            side = broken.plan.size(axis) * (math.sqrt(ratio) if axis == "S" else ratio)
            if ratio != 1 and side == int(side):
                yield 0.4 + 0.05 * tokens, broken.plan.resized(**{axis: int(side)})


def too_flat(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """ "batch1 must be a 3D tensor": every operand of another rank."""
    wanted = int(match[1])
    for operand in broken.refusal.call.operands if broken.refusal.call is not None else ():
        for path in operand.sources & set(broken.plan.leaves()) if len(operand.shape) != wanted else ():
            yield from rerank(broken, path, wanted - len(operand.shape))


def hidden_state(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """A recurrent layer was given a state of another form."""
    others = broken.plan.arguments[1:]
    for rank, node in enumerate(ROLES["state"](broken.known)):
        yield from ((0.3 + 0.3 * rank, broken.plan.put(name, node)) for name, _ in others)


def larger(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """The size does not suit a pooling, a window or a skip."""
    for path, guess in broken.plan.leaves().items():
        if guess.role in SPATIAL:
            yield from other_sides(broken, path)
        elif "T" in guess.axes:
            for rank, steps in enumerate((32, 64, 16, 128, 256)):
                yield 0.9 + 0.2 * rank, broken.plan.resized(T=steps)


def larger_batch(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """BatchNorm over one value a channel: a larger image, then a larger batch."""
    yield from larger(broken, match)
    yield 1.0, broken.plan.resized(B=2 * broken.plan.size("B"))


def smaller_ids(broken: Broken, match: re.Match[str]) -> Iterator[Change]:
    """An index past the end of a table, although ids are 0 or 1: the table is of positions, so fewer steps.

    What is made an index of features, whose signs differ (`marks.long()`), are numbers of hours and days.
    """
    for path, guess in broken.plan.leaves().items():
        if guess.dtype == "float32" and guess.values is None and touches(broken, path):
            yield 0.2, broken.plan.put(path, Guess("ids", guess.axes, "int64"))
    for steps in (16, 8, 4):
        if steps < broken.plan.size("T"):
            yield 0.6, broken.plan.resized(T=steps)


def _members(broken: Broken, path: str, key: str) -> Iterator[Change]:
    for rank, node in enumerate(guesses(Argument(key, "", required=True, keyword=False), broken.known)[:4]):
        yield 0.2 + 0.3 * rank, broken.plan.put(path, node)


def _variable(broken: Broken, name: str) -> Tensor | None:
    frame = broken.refusal.frame
    value = frame.variables.get(name) if frame else None
    return value if isinstance(value, Tensor) else None


def _suspects(broken: Broken, rank: int) -> list[str]:
    """The inputs that the refused call's operands come from; else those of the given rank; else all."""
    leaves = broken.plan.leaves()
    call = broken.refusal.call
    if call is not None and call.operands and call.operands[0].sources:
        return [path for path in leaves if path in call.operands[0].sources]
    local = _local_sources(broken, rank)
    return local or [path for path, guess in leaves.items() if len(guess.axes) == rank] or list(leaves)


def _local_sources(broken: Broken, rank: int) -> list[str]:
    """The inputs behind the tensors of this rank in the user's frame."""
    frame = broken.refusal.frame
    tensors = [t for t in tensors_in(list(frame.variables.values())) if t.dim() == rank] if frame else []
    behind = frozenset[str]().union(*map(sources_of, tensors))
    return [path for path in broken.plan.leaves() if path in behind]


def _cheaper(changes: Iterator[Change], extra: float) -> Iterator[Change]:
    for cost, plan in changes:
        yield cost + extra, plan


Rule = Callable[[Broken, "re.Match[str]"], Iterator[Change]]

RULES: tuple[tuple[re.Pattern[str], Rule], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), rule)
    for pattern, rule in (
        (r"\d", swapped_numbers),
        (r"shape '\[([-\d, ]+)\]' is invalid for input of size (\d+)", flattened_size),
        (
            r"(?:divisible by|multiple of|block size is only|at most|maximum(?: \w+)* (?:of|is)|less than) (\d+)",
            stated_size,
        ),
        (r"index (\d+) is out of bounds for dimension (\d+) with size (\d+)", index_of_axis),
        (r"\dD.*(?:got|input)", wrong_rank),
        (r"must have (\d) dimensions, got (\d)", wanted_rank),
        (r"(?:must|should) be (\d)-?D.*?(?:got|but) (\d)", wanted_rank),
        (r"values to unpack \(expected(?: at least)? (\d)", unpacked),
        (
            r"dimension out of range|too many indices|tuple index out of range|number of dim|invalid index of a 0-dim",
            needs_rank,
        ),
        (
            r"dimension specified as|must have the same number of dimensions|must be at least|rank|ndim|\.dim\(\)",
            needs_rank,
        ),
        (r"AssertionError", asserted_size),
        (r"AssertionError", needs_rank),
        (
            r"indices.*(long|int)|(long|int).*ind(ex|ices)|index tensor|one of the following scalar types: Long",
            whole_numbers,
        ),
        (r"dtype int32 or int64|argument #1 'ind", whole_numbers),
        (r"same dtype|found long|got long|for 'long'|\(long|floating point|input dtype", floating_numbers),
        (r"only supports boolean|expected.*bool|bool.*expected|must be.*bool", truth_values),
        (r"with a bool tensor|for 'bool'|bool and float|found bool", numeric_mask),
        (r"attn_mask is torch\.Size\(\[(.*?)\]\), but should be \((.*?)\)", mask_shape),
        (r"key_padded_mask\.shape\[(\d)\] to be (\d+), but got (\d+)", padding_size),
        (r"must match|broadcast|expanded size|shape of the mask|size of mask", mask_form),
        (r"must match|broadcast", as_many_axes),
        (r"Expected size (\d+) but got size (\d+) for tensor number (\d+)", joined_size),
        (r"same number of spatial dimensions.*output size of [(\[]([\d, ]+)", resized),
        (r"must be a (\d)-?D", too_flat),
        (r"\bhx\b|hidden state|expected hidden|hidden\[", hidden_state),
        (r"KeyError", dict_key),
        (r"(?:have|has|need|needs|missing|expects?|requires?|contain) (?:a |an |the )?['\"]?(\w+)['\"]? key", dict_key),
        (r"only integers, slices|indices must be integers|string ind", dict_wanted),
        (r"has no attribute '(\w+)'", attribute),
        (r"NoneType|is None|should not be none|must be (?:given|provided)|have to specify|missing", missing),
        (
            r"kernel size|too small|output size|greater than|sizes of tensors must match|padding|divisible",
            larger,
        ),
        (r"tensor a \((\d+)\) must match the size of tensor b \((\d+)\)", token_count),
        (r"tensor a .* must match|invalid for input|window|patch|stack expects|broadcast|shape", larger),
        (r"more than 1 value per channel", larger_batch),
        (r"index out of range in self|IndexError", smaller_ids),
    )
)
