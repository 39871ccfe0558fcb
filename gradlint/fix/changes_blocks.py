"""Norms and skips of a candidate in terms of the user's source: which layers, blocks and calls they are about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from gradlint.finding import Change
from gradlint.fix.candidate import Bypass, Normalise, Skip
from gradlint.fix.places import INDEXED, NoChangeError, Places, owner_of
from gradlint.fix.postnorm import Block, post_norm_blocks, stacks
from gradlint.fix.stretch import operands
from gradlint.fix.wording import is_module
from gradlint.graph.ir import Graph, Op

LAYERS = ("Linear", "Conv1d", "Conv2d", "Conv3d")
NORMED = (*LAYERS, "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Bilinear")
NORMS: Mapping[str, str] = {
    "batch_norm": "BatchNorm{0}d",
    "layer_norm": "LayerNorm",
    "group_norm": "GroupNorm",
    "rms_norm": "RMSNorm",
}
SIZED = ("LayerNorm", "RMSNorm")  # what torch's norms of features are called
TORCH_LAYERS = ("TransformerEncoderLayer", "TransformerDecoderLayer")  # they take `norm_first` …
TORCH_STACKS = ("TransformerEncoder", "TransformerDecoder")  # … and these a final norm


def normalised(places: Places, norms: Sequence[Normalise]) -> Iterator[Change]:
    """One change a layer module after which a norm comes, at every call of it."""
    chosen = {step.op: step for step in norms}
    for step in chosen.values():
        op = places.graph.ops[step.op]
        if not _is_layer(places, op) or op.constructed is None:
            raise NoChangeError
        alike = _made_with(places, op)
        units = list(dict.fromkeys(other.module_path for other in alike))
        if any(other.module_path == op.module_path and other.index not in chosen for other in alike):
            raise NoChangeError
        shape = places.graph.values[op.outputs[0]].shape
        channels = shape[1] if step.function in ("batch_norm", "group_norm") else shape[-1]
        norm = NORMS[step.function].format(max(1, len(shape) - 2))
        place = units.index(op.module_path)
        module, items = _held(places, op.module_path)
        yield Change(
            "norm",
            norm,
            op.module_type,
            span=op.constructed,
            place=place,
            of=len(units),
            module=module,
            types=(op.module_type, places.root.type),
            gain=step.groups,
            size=channels,
            items=(*items[:1], *items) if items else (),
        )


def _is_layer(places: Places, op: Op) -> bool:
    """Whether the op makes what a module returns: a layer of torch's, or one of the user's own."""
    if places.is_builtin(op):
        return op.module_type in NORMED
    own = f"{op.module_path}."
    readers = [places.graph.ops[index] for index in places.graph.values[op.outputs[0]].consumers]
    return bool(op.module_path) and not any(f"{reader.module_path}.".startswith(own) for reader in readers)


def _held(places: Places, path: str) -> tuple[str, tuple[int, ...]]:
    """The list that a module is in, as the root writes it, its position there and how many there are; or itself."""
    owner = owner_of(path)
    if owner not in places.modules or places.modules[owner].type not in INDEXED or not owner:
        return places.expression(path), ()
    members = [each for each in places.modules if each and owner_of(each) == owner]
    return places.expression(owner), (members.index(path), len(members))


def _made_with(places: Places, op: Op) -> list[Op]:
    """The calls of modules of the same class that the line that constructed the op's module makes."""
    return [o for o in places.graph.ops if o.constructed == op.constructed and o.module_type == op.module_type]


def skipped(places: Places, skips: Sequence[Skip]) -> Iterator[Change]:
    """One change a piece of source: members of a Sequential, or nested or successive calls in a forward."""
    chosen = {step.start for step in skips}
    for step in skips:
        start, end = places.graph.ops[step.start], places.graph.ops[step.end]
        inside, last = places.inside(start), places.inside(end)
        if inside is not None or last is not None:
            if inside != last:
                raise NoChangeError
            yield _around_members(places, start, end, chosen, step)
        else:
            yield _around_calls(places, start, end, chosen, step)


def _around_members(places: Places, start: Op, end: Op, chosen: set[int], step: Skip) -> Change:
    alike = _made_with(places, start)
    units = list(dict.fromkeys(other.module_path for other in alike))
    partial = _some_are_left(places, alike, chosen)
    place = units.index(start.module_path)
    module, items = _held(places, start.module_path)
    return Change(
        "skip",
        old=start.module_type,
        span=start.constructed,
        place=place,
        of=len(units),
        end=end.constructed,
        last=end.module_type,
        partial=partial,
        stride=step.stride,
        module=module,
        items=(*items[:1], *_held(places, end.module_path)[1]) if items else (),
        types=(start.module_type, places.root.type),
    )


def _around_calls(places: Places, start: Op, end: Op, chosen: set[int], step: Skip) -> Change:
    block = _chain(places.graph, start, end)
    if start.span is None or end.span is None or any(op.span is None for op in block):
        raise NoChangeError
    alike = [op for op in places.graph.ops if op.span == start.span and op.kind == start.kind]
    units = list(dict.fromkeys(op.module_path for op in alike))
    partial = _some_are_left(places, alike, chosen)
    last = end.name if not is_module(end) else ""
    place, of = (units.index(start.module_path), len(units)) if not partial else (0, 1)
    return Change(
        "skip",
        name=start.name,
        span=start.span,
        place=place,
        of=of,
        size=len(block),
        end=end.span,
        last=last,
        partial=partial,
        stride=step.stride,
    )


def _some_are_left(places: Places, alike: Sequence[Op], chosen: set[int]) -> bool:
    """Whether some of the layers get no skip: those that change the shape, which the source can tell when it runs."""
    left = [op for op in alike if op.index not in chosen]
    values = places.graph.values
    for op in left:
        data = operands(places.graph, op)
        if data and values[data[0]].shape == values[op.outputs[0]].shape:
            raise NoChangeError
    return bool(left)


def _chain(graph: Graph, start: Op, end: Op) -> list[Op]:
    """The ops from start to end in single file."""
    found = [end]
    while found[-1] is not start:
        producer = graph.op_of(found[-1].inputs[0]) if found[-1].inputs else None
        if producer is None or producer.index < start.index:
            raise NoChangeError
        found.append(producer)
    return found[::-1]


# -- pre-norm ----------------------------------------------------------------------------------------------------------


def prenormalised(places: Places, steps: Sequence[Bypass]) -> Iterator[Change]:
    """One change a line of a forward, or a layer of torch's, then the final norm of each stack."""
    blocks = post_norm_blocks(places.graph)
    normed = {block.norm.index for block in blocks}
    for block in blocks:
        yield _before_branch(places, block, normed)
    for stack in stacks(blocks):
        if not _is_normed(places.graph, stack[-1].norm):
            yield _final_norm(places, stack)


def _before_branch(places: Places, block: Block, normed: set[int]) -> Change:
    norm = block.norm
    layer = places.modules.get(owner_of(norm.module_path))
    if not places.is_builtin(norm) or norm.module_type not in SIZED or layer is None:
        raise NoChangeError
    if layer.builtin:
        if layer.type not in TORCH_LAYERS or layer.constructed is None:
            raise NoChangeError
        return Change("prenorm", old=layer.type, span=layer.constructed)
    alike = {op.index for op in places.graph.ops if op.span == norm.span and op.kind == "norm"}
    if norm.span is None or not alike <= normed:
        raise NoChangeError
    return Change("prenorm", span=norm.span, end=block.add.span)


def _is_normed(graph: Graph, norm: Op) -> bool:
    readers = [graph.ops[index] for index in graph.values[norm.outputs[0]].consumers]
    return bool(readers) and all(reader.kind == "norm" for reader in readers)


def _final_norm(places: Places, stack: Sequence[Block]) -> Change:
    """The norm of the module that holds the whole stack; `old` is its attribute that the last block is in, if any."""
    last = stack[-1].norm
    shared = _shared(owner_of(block.norm.module_path) for block in stack)
    while shared in places.modules and places.modules[shared].type in INDEXED:
        shared = owner_of(shared)
    owner = places.modules.get(shared)
    if owner is None or last.span is None:
        raise NoChangeError
    if owner.builtin and owner.type not in TORCH_STACKS:
        raise NoChangeError
    inner = last.module_path.removeprefix(f"{shared}." if shared else "").split(".")
    return Change(
        "final-norm",
        last.module_type,
        old="" if len(inner) == 1 else inner[0],
        span=owner.constructed if owner.builtin else last.span,
        module=_within(places, last.module_path, shared),
        types=("", owner.type),
        size=places.graph.values[last.outputs[0]].shape[-1],
    )


def _shared(paths: Iterator[str]) -> str:
    """The path of the innermost module that all of these are in, or are."""
    rows = [path.split(".") for path in paths]
    alike = takewhile(lambda parts: len(set(parts)) == 1, zip(*rows, strict=False))
    return ".".join(parts[0] for parts in alike)


def _within(places: Places, path: str, owner: str) -> str:
    """The module as a method of its owner writes it: "self.blocks[-1].norm"."""
    written = places.expression(path)
    return f"self{written.removeprefix(places.expression(owner) if owner else 'self')}"
