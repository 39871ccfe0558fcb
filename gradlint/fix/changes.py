"""Steps of a candidate in terms of the user's source: which activations, layers and weights the edits are about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from gradlint.finding import Change
from gradlint.fix.candidate import Fuse, Guard, Initialise, Normalise, Score, Skip, Step, Swap
from gradlint.fix.cost import widths
from gradlint.fix.stretch import operands
from gradlint.fix.wording import is_module
from gradlint.graph.ir import Graph, Module, Op, Span
from gradlint.graph.ranges import ANY, ranges

LAYERS = ("Linear", "Conv1d", "Conv2d", "Conv3d")
NORMED = (*LAYERS, "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Bilinear")
INDEXED = ("Sequential", "ModuleList")
SCHEMES = ("kaiming_normal", "lecun_normal", "normal", "xavier_normal", "orthogonal", "default")
BIASES = ("zeros", "default_bias")
NORMS: Mapping[str, str] = {
    "batch_norm": "BatchNorm{0}d",
    "layer_norm": "LayerNorm",
    "group_norm": "GroupNorm",
    "rms_norm": "RMSNorm",
}


class NoChangeError(Exception):
    """A step is about something that the source has no single place for."""


@dataclass(frozen=True)
class Places:
    """A graph as the source sees it: its modules by path, and which ops one piece of source makes."""

    graph: Graph

    @cached_property
    def modules(self) -> Mapping[str, Module]:
        """The modules by path."""
        return {module.path: module for module in self.graph.modules}

    @property
    def root(self) -> Module:
        """The model itself."""
        if "" not in self.modules:
            raise NoChangeError
        return self.modules[""]

    def alike(self, site: tuple[Span | None, str, bool]) -> list[Op]:
        """The ops that the piece of source makes. Raises NoChangeError for an unknown place."""
        if site[0] is None:
            raise NoChangeError
        return [op for op in self.graph.ops if _site(op) == site]

    def inside(self, op: Op) -> str | None:
        """The path of torch's own Sequential that calls the op's module; None for one that a forward calls."""
        parent = _owner(op.module_path)
        module = self.modules.get(parent) if op.module_path else None
        held = module is not None and module.builtin and module.type == "Sequential"
        return parent if held and self.is_builtin(op) else None

    def is_builtin(self, op: Op) -> bool:
        """Whether one of torch's own modules made the call."""
        module = self.modules.get(op.module_path)
        return module is not None and module.builtin

    def expression(self, path: str) -> str:
        """The module as a method of the root writes it: "self.hidden[-1]"."""
        written = "".join(_written(path, self.modules))
        return f"self{written}" if "?" not in written else f'self.get_submodule("{path}")'

    def weight(self, path: str) -> str:
        """The parameter as a method of the root writes it: "self.embed.weight". Raises NoChangeError."""
        owner, _, name = path.rpartition(".")
        if owner and owner not in self.modules:
            raise NoChangeError
        return f"{self.expression(owner) if owner else 'self'}{f'[{name}]' if name.isdigit() else f'.{name}'}"


def changes(graph: Graph, steps: Sequence[Step]) -> tuple[Change, ...]:
    """The steps as changes of the source; none when one of them has no edit (a rescaling by data, a recurrence …)."""
    places, groups = Places(graph), dict[type, list[Any]]()
    for step in steps:
        groups.setdefault(type(step), []).append(step)
    try:
        made = [change for kind, found in groups.items() for change in _writer(kind)(places, found)]
    except NoChangeError:
        return ()
    return tuple(dict.fromkeys(made))


def _writer(kind: type) -> Callable[[Places, Sequence[Any]], Iterator[Change] | list[Change]]:
    if kind not in WRITERS:
        raise NoChangeError
    return WRITERS[kind]


# -- activations -------------------------------------------------------------------------------------------------------


def _swapped(places: Places, swaps: Sequence[Swap]) -> Iterator[Change]:
    """One change an activation module or call; where a module serves at other ops, too, one a call of it."""
    functions = {step.op: step.function for step in swaps}
    for index, function in functions.items():
        op = places.graph.ops[index]
        if op.kind == "recurrent":
            raise NoChangeError
        alike = places.alike(_site(op))
        units = list(dict.fromkeys(_unit(other) for other in alike))
        shared = {other.index for other in alike if _unit(other) == _unit(op)}
        name = "" if is_module(op) else op.name
        if shared <= functions.keys():
            place, module = units.index(_unit(op)), places.expression(op.module_path) if is_module(op) else ""
            types = ("", places.root.type if "" in places.modules else "")
            yield Change(
                "activation", function, op.function, name, _site(op)[0], place, len(units), module=module, types=types
            )
        else:
            yield _called(places, op, function)


def _called(places: Places, op: Op, function: str) -> Change:
    """The change of one call of a module that the user's forward calls at several places."""
    calls = [o for o in places.graph.ops if o.span == op.span and o.module_path == op.module_path]
    if places.inside(op) is not None or op.span is None:
        raise NoChangeError
    attribute = op.module_path.rpartition(".")[2]
    return Change("call", function, attribute, span=op.span, place=calls.index(op), of=len(calls))


def _site(op: Op) -> tuple[Span | None, str, bool]:
    """What ops that one piece of source makes have in common."""
    return (op.constructed if is_module(op) else op.span), op.function, is_module(op)


def _unit(op: Op) -> str | int:
    """A module counts once however often it is called; every call of a function counts."""
    return op.module_path if is_module(op) else op.index


# -- norms and skips ---------------------------------------------------------------------------------------------------


def _normalised(places: Places, norms: Sequence[Normalise]) -> Iterator[Change]:
    """One change a layer module after which a norm comes, at every call of it."""
    chosen = {step.op: step for step in norms}
    for step in chosen.values():
        op = places.graph.ops[step.op]
        if not places.is_builtin(op) or op.module_type not in NORMED or op.constructed is None:
            raise NoChangeError
        alike = _made_with(places, op)
        units = list(dict.fromkeys(other.module_path for other in alike))
        if any(other.module_path == op.module_path and other.index not in chosen for other in alike):
            raise NoChangeError
        shape = places.graph.values[op.outputs[0]].shape
        channels = shape[1] if step.function in ("batch_norm", "group_norm") else shape[-1]
        norm = NORMS[step.function].format(max(1, len(shape) - 2))
        place = units.index(op.module_path)
        yield Change(
            "norm", norm, op.module_type, "", op.constructed, place, len(units), gain=step.groups, size=channels
        )


def _made_with(places: Places, op: Op) -> list[Op]:
    """The calls of modules of the same class that the line that constructed the op's module makes."""
    return [o for o in places.graph.ops if o.constructed == op.constructed and o.module_type == op.module_type]


def _skipped(places: Places, skips: Sequence[Skip]) -> Iterator[Change]:
    """One change a piece of source: members of a Sequential, or nested or successive calls in a forward."""
    chosen = {step.start for step in skips}
    for step in skips:
        start, end = places.graph.ops[step.start], places.graph.ops[step.end]
        inside, last = places.inside(start), places.inside(end)
        if inside is not None or last is not None:
            if inside != last:
                raise NoChangeError
            yield _around_members(places, start, end, chosen, step)
        elif step.stride:
            raise NoChangeError
        else:
            yield _around_calls(places, start, end, chosen)


def _around_members(places: Places, start: Op, end: Op, chosen: set[int], step: Skip) -> Change:
    alike = _made_with(places, start)
    units = list(dict.fromkeys(other.module_path for other in alike))
    partial = _some_are_left(places, alike, chosen)
    place = units.index(start.module_path)
    return Change(
        "skip",
        old=start.module_type,
        span=start.constructed,
        place=place,
        of=len(units),
        end=end.constructed,
        last=end.module_type,
        partial=partial,
        fans=(step.stride, widths(places.graph, step)[1]) if step.stride else (0, 0),
    )


def _around_calls(places: Places, start: Op, end: Op, chosen: set[int]) -> Change:
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


# -- numerics ----------------------------------------------------------------------------------------------------------


def _guarded(places: Places, guards: Sequence[Guard]) -> Iterator[Change]:
    """One change a call; a denominator is kept from zero only where it is known not to be negative."""
    known = ranges(places.graph)
    for step in guards:
        op = places.graph.ops[step.op]
        alike = [o for o in places.graph.ops if o.span == op.span and o.name == op.name]
        if op.span is None:
            raise NoChangeError
        if op.function in ("div", "reciprocal"):
            value = places.graph.operand(op, "other") or places.graph.operand(op, "input")
            if value is None or known.get(value.id, ANY).low < 0:
                raise NoChangeError
        yield Change("guard", "", op.function, op.name, op.span, alike.index(op), len(alike), gain=step.bound)


def _fused(places: Places, fuses: Sequence[Fuse]) -> Iterator[Change]:
    """One change a call of the last function; `fans` has the axis that a softmax written as a module does not say."""
    for step in fuses:
        op, start = places.graph.ops[step.end], places.graph.ops[step.start]
        if op.span is None or start.span is None:
            raise NoChangeError
        alike = [o for o in places.graph.ops if o.span == op.span and o.function == op.function]
        axis = step.dims[0] if step.dims else 0
        yield Change(
            "fuse",
            step.function,
            op.function,
            op.name,
            op.span,
            alike.index(op),
            len(alike),
            fans=(axis, 0),
            last=start.function,
        )


def _scored(places: Places, scores: Sequence[Score]) -> Iterator[Change]:
    """One change: every use of the loss in the file is about the same outputs."""
    yield from (Change("loss", step.loss) for step in scores)


# -- initialisations ---------------------------------------------------------------------------------------------------


def _initialised(places: Places, inits: Sequence[Initialise]) -> list[Change]:
    """One change a layer, with what becomes of its bias, then the layers that stay; one a parameter if that fails."""
    modules = places.modules
    weights = {_owner(step.param): step for step in inits if step.param.endswith("weight")}
    biases = {_owner(step.param): step.scheme for step in inits if step.param.endswith("bias")}
    layers = {path: module for path, module in modules.items() if _is_layer(module)}
    known = weights.keys() <= layers.keys() and biases.keys() <= weights.keys()
    schemes = {step.scheme for step in weights.values()} <= {*SCHEMES} and {*biases.values()} <= {*BIASES}
    root = places.root
    if not (known and schemes) or len(weights) + len(biases) != len(inits):
        drawn = {step.param for step in inits}
        others = [Change("untouched", old=path) for path in places.graph.params if path not in drawn]
        return [*(_drawn(places, step, root) for step in inits), *others]
    made = [
        Change("init", step.scheme, module=places.expression(path), gain=step.gain, bias=biases.get(path, ""))
        for path, step in weights.items()
    ]
    rest = [Change("untouched", module=places.expression(path)) for path in layers if path not in weights]
    paths = [*weights, *(path for path in layers if path not in weights)]
    return [
        replace(change, types=(layers[path].type, root.type), span=_made_at(root))
        for change, path in zip([*made, *rest], paths, strict=True)
    ]


def _drawn(places: Places, step: Initialise, root: Module) -> Change:
    """One parameter drawn; `old` is its path."""
    shape, owner = places.graph.params[step.param].shape, places.modules.get(_owner(step.param))
    return Change(
        "draw",
        step.scheme,
        old=step.param,
        module=places.weight(step.param),
        types=(owner.type if owner else "", root.type),
        span=_made_at(root),
        gain=step.gain,
        size=shape[0] if shape else 1,
        of=len(shape),
        fans=(step.fan_in or math.prod(shape[1:]), step.fan_out),
    )


def _made_at(root: Module) -> Span | None:
    """Where a model of torch's own class is made; for one of the user's the class says more."""
    return root.constructed if root.builtin else None


def _is_layer(module: Module) -> bool:
    return module.builtin and module.type in LAYERS


def _owner(param: str) -> str:
    return param.rpartition(".")[0]


def _written(path: str, modules: Mapping[str, Module]) -> Iterator[str]:
    parts = path.split(".")
    for place, part in enumerate(parts):
        parent = ".".join(parts[:place])
        if part.partition("[")[0].isidentifier():  # what a plain list holds is called "blocks[0]"
            yield f".{part}"
        elif part.isdigit() and parent in modules and modules[parent].type in INDEXED:
            last = f"{parent}.{int(part) + 1}".lstrip(".") not in modules and int(part) > 0
            yield "[-1]" if last else f"[{part}]"
        else:
            yield "?"


WRITERS: Mapping[type, Callable[[Places, Sequence[Any]], Iterator[Change] | list[Change]]] = {
    Swap: _swapped,
    Normalise: _normalised,
    Skip: _skipped,
    Guard: _guarded,
    Fuse: _fused,
    Score: _scored,
    Initialise: _initialised,
}
