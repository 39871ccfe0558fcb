"""Example inputs of an ONNX file: sizes for the dimensions that it leaves open, and what the entries may be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from math import prod

from gradlint.error import UsageError
from gradlint.load.spec import InputSpec, Values
from gradlint.onnx.file import File
from gradlint.onnx.inputs import Declared, Sized
from gradlint.onnx.program import Program, Symbol

BATCH = 8  # of an open first dimension
STEPS = (16, 32, 128)  # sizes tried for an open dimension of a sequence or a feature axis
SIDES = (64, 224, 128, 32)  # for the last two of an image
INT64, MOST_STATED = 7, 10
NORMAL = Values("normal", 0.0, 1.0)
MASK = re.compile(r"mask|valid", re.IGNORECASE)


def tries(inputs: Sequence[Declared], given: Sequence[InputSpec], stated: Sequence[int] = ()) -> list[list[Sized]]:
    """Sizes to try, the likeliest first: the user's where given, the file's, and guesses for what it leaves open.

    `stated` are numbers in the file's shapes: exporters bake in sizes that they declare open. Raises UsageError for a
    spec that names no input, or contradicts the file.
    """
    specs = _matched(inputs, given)
    open_sizes = [(BATCH, steps, side) for side in SIDES for steps in STEPS]
    open_sizes += [(batch, size, side) for batch in (BATCH, 2, 1) for size in stated for side in (SIDES[0], size)]
    open_sizes += [(batch, STEPS[0], side) for batch in (2, 1) for side in SIDES[:2]]
    if all(isinstance(size, int) for d in inputs if d.name not in specs for size in d.dims):
        open_sizes = open_sizes[:1]
    return [[_sized(d, specs.get(d.name), sizes) for d in inputs] for sizes in open_sizes]


def stated_sizes(file: File) -> list[int]:
    """Numbers that stand in small integer tensors of the file, some at most."""
    nodes = file.model.graph.node
    constants = [a.t for node in nodes if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    tensors = [t for t in (*file.model.graph.initializer, *constants) if t.data_type == INT64 and 0 < prod(t.dims) <= 8]
    found = {int(value) for tensor in tensors for value in file.array(tensor).reshape(-1)}
    return sorted(value for value in found if 2 < value <= 1024)[:MOST_STATED]


def _matched(inputs: Sequence[Declared], given: Sequence[InputSpec]) -> dict[str, InputSpec]:
    names = [d.name for d in inputs]
    takes = f"it takes {', '.join(names) or 'none'}"
    specs = {spec.name: spec for spec in given if spec.name}
    unknown = [name for name in specs if name not in names and name not in map(_word, names)]
    if unknown:
        raise UsageError(f"--input {unknown[0]!r}: the graph has no such input", takes)
    specs = {name: specs.get(name) or specs[_word(name)] for name in names if name in specs or _word(name) in specs}
    free = [name for name in names if name not in specs]
    unnamed = [spec for spec in given if not spec.name]
    if len(unnamed) > len(free):
        raise UsageError(f"--input is given {len(given)} times, and the graph has {len(names)} inputs", takes)
    return specs | dict(zip(free, unnamed, strict=False))


def _word(name: str) -> str:
    """The name as `--input` can spell it: "input.1" is input_1."""
    return re.sub(r"\W", "_", name)


def _sized(d: Declared, spec: InputSpec | None, sizes: tuple[int, int, int]) -> Sized:
    if spec is not None:
        fixed = [
            (given, size)
            for given, size in zip(spec.shape, d.dims, strict=False)
            if isinstance(size, int) and given != size
        ]
        if fixed or (d.dims and len(spec.shape) != len(d.dims)) or spec.dtype != d.dtype:
            wanted = f"{d.dtype}[{','.join(str(size or '?') for size in d.dims)}]"
            raise UsageError(f"--input {spec}: the file declares {d.name}={wanted}", "export it with dynamic axes")
        return Sized(spec.shape, spec.dtype, values=spec.values, source="cli")
    shape = tuple(
        size if isinstance(size, int) else _guess(place, len(d.dims), sizes) for place, size in enumerate(d.dims)
    )
    guessed = any(not isinstance(size, int) for size in d.dims)
    return Sized(shape, d.dtype, guessed, source="guessed" if guessed else "example")


def _guess(place: int, rank: int, sizes: tuple[int, int, int]) -> int:
    batch, steps, side = sizes
    if place == 0:
        return batch
    if rank == 4 and place == 1:
        return 3
    return side if rank == 4 else steps


def values(program: Program, sized: Sequence[Sized]) -> list[Sized]:
    """The sizes with what entries may be: ids below the tables they index, masks open, the rest normal."""
    bounds = dict(_bounds(program))
    return [
        size
        if size.values is not None
        else Sized(size.shape, size.dtype, size.guessed, _values(symbol, size, bounds), size.source)
        for symbol, size in zip(program.inputs, sized, strict=True)
    ]


def _values(symbol: Symbol, size: Sized, bounds: dict[int, int]) -> Values | None:
    if size.dtype.startswith(("float", "bfloat")):
        return NORMAL
    if id(symbol) in bounds and not MASK.search(symbol.name):
        return Values("integers", 0, bounds[id(symbol)])
    return None


PASSED = ("reshape", "to", "unsqueeze", "squeeze", "flatten", "__getitem__", "transpose", "expand")


def _bounds(program: Program) -> Iterator[tuple[int, int]]:
    """For each input that indexes tables, the rows of the smallest one."""
    source = {id(symbol): id(symbol) for symbol in program.inputs}
    found: dict[int, int] = {}
    for step in program.steps:
        short = step.function.rpartition(".")[2]
        first = next(iter(step.reads), None)
        if first is None or id(first) not in source:
            continue
        if short == "embedding" and isinstance(step.args[1], Symbol):
            rows = (step.args[1].shape or (1,))[0]
            found[source[id(first)]] = min(rows, found.get(source[id(first)], rows))
        elif short in PASSED and step.outputs and step.outputs[0] is not None:
            source[id(step.outputs[0])] = source[id(first)]
    yield from found.items()
