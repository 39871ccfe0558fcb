"""Steps of a candidate in terms of the user's source: which activations, layers and weights the edits are about."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradlint.finding import Change
from gradlint.fix.candidate import (
    Bypass,
    Fuse,
    Guard,
    Initialise,
    Normalise,
    Prenormalise,
    Rescale,
    Score,
    Skip,
    Soften,
    Step,
    Swap,
)
from gradlint.fix.changes_blocks import LAYERS, normalised, prenormalised, skipped
from gradlint.fix.places import NoChangeError, Places, owner_of, site_of
from gradlint.fix.stretch import is_offset
from gradlint.fix.wording import is_module
from gradlint.graph.ir import Graph, Module, Op, Span
from gradlint.graph.ranges import ANY, ranges

SCHEMES = ("kaiming_normal", "lecun_normal", "normal", "xavier_normal", "orthogonal", "default")
BIASES = ("zeros", "default_bias")


def changes(graph: Graph, steps: Sequence[Step], scales: Mapping[str, float] | None = None) -> tuple[Change, ...]:
    """The steps as changes of the source; none when one of them has no edit (a recurrence …).

    `scales` has what a trial of the steps rescaled weights by.
    """
    places, groups = Places(graph), dict[type, list[Any]]()
    for step in _as_drawn(steps, scales or {}):
        groups.setdefault(type(step), []).append(step)
    try:
        made = [change for kind, found in groups.items() for change in _writer(kind)(places, found)]
    except NoChangeError:
        return ()
    return tuple(dict.fromkeys(made))


def _as_drawn(steps: Sequence[Step], scales: Mapping[str, float]) -> Iterator[Step]:
    """The steps with the gains that rescaled weights came to, which draw them so without data."""
    drawn = {step.param for step in steps if isinstance(step, Initialise)}
    told = {step.param for step in steps if isinstance(step, Rescale)} & drawn & scales.keys()
    for step in steps:
        if isinstance(step, Initialise) and step.param in told:
            yield replace(step, gain=step.gain * scales[step.param])
        elif not (isinstance(step, Rescale) and step.param in told):
            yield step


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
        alike = places.alike(site_of(op))
        units = list(dict.fromkeys(_unit(other) for other in alike))
        shared = {other.index for other in alike if _unit(other) == _unit(op)}
        name = "" if is_module(op) else op.name
        if shared <= functions.keys():
            place, module = units.index(_unit(op)), places.expression(op.module_path) if is_module(op) else ""
            types = ("", places.root.type if "" in places.modules else "")
            yield Change(
                "activation", function, op.function, name, site_of(op)[0], place, len(units), module=module, types=types
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


def _unit(op: Op) -> str | int:
    """A module counts once however often it is called; every call of a function counts."""
    return op.module_path if is_module(op) else op.index


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
    """One change a call of the last function; `axis` is the one that a softmax written as a module does not say."""
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
            axis=axis,
            last=start.function,
        )


def _softened(places: Places, steps: Sequence[Soften]) -> Iterator[Change]:
    """One change a lookup, with the line of its argmax."""
    for step in steps:
        start, end = places.graph.ops[step.start], places.graph.ops[step.end]
        if start.span is None or end.span is None or not places.is_builtin(end):
            raise NoChangeError
        yield Change("soften", name=end.module_path.rpartition(".")[2], span=end.span, end=start.span)


def _scored(places: Places, scores: Sequence[Score]) -> Iterator[Change]:
    """One change: every use of the loss in the file is about the same outputs."""
    yield from (Change("loss", step.loss) for step in scores)


# -- initialisations ---------------------------------------------------------------------------------------------------


def _initialised(places: Places, inits: Sequence[Initialise]) -> list[Change]:
    """One change a layer, with what becomes of its bias, then the layers that stay; one a parameter if that fails."""
    modules, params = places.modules, places.graph.params
    weights = {owner_of(step.param): step for step in inits if step.param.endswith("weight")}
    biases = {owner_of(step.param): step.scheme for step in inits if step.param.endswith("bias")}
    layers = {path: module for path, module in modules.items() if _is_layer(module)}
    known = weights.keys() <= layers.keys() and biases.keys() <= weights.keys()
    schemes = {step.scheme for step in weights.values()} <= {*SCHEMES} and {*biases.values()} <= {*BIASES}
    root = places.root
    if not (known and schemes) or len(weights) + len(biases) != len(inits):
        drawn = {step.param for step in inits}
        others = [Change("untouched", old=path) for path in places.graph.params if path not in drawn]
        return [*(_drawn(places, step, root) for step in inits), *others]
    offset = {owner_of(step.param) for step in inits if step.scheme == "zeros" and is_offset(params[step.param])}
    made = [
        Change(
            "init",
            step.scheme,
            path,
            module=places.expression(path),
            gain=step.gain,
            bias=biases.get(path, ""),
            offset=path in offset,
        )
        for path, step in weights.items()
    ]
    rest = [Change("untouched", old=path, module=places.expression(path)) for path in layers if path not in weights]
    paths, order = [*weights, *(path for path in layers if path not in weights)], list(layers)
    return [
        replace(change, types=(layers[path].type, root.type), span=_made_at(root), place=order.index(path))
        for change, path in zip([*made, *rest], paths, strict=True)
    ]


def _drawn(places: Places, step: Initialise, root: Module) -> Change:
    """One parameter drawn; `old` is its path."""
    shape, owner = places.graph.params[step.param].shape, places.modules.get(owner_of(step.param))
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


WRITERS: Mapping[type, Callable[[Places, Sequence[Any]], Iterator[Change] | list[Change]]] = {
    Swap: _swapped,
    Normalise: normalised,
    Skip: skipped,
    Bypass: prenormalised,
    Prenormalise: lambda places, steps: [],  # the first branch's part of what `prenormalised` writes
    Guard: _guarded,
    Fuse: _fused,
    Soften: _softened,
    Score: _scored,
    Initialise: _initialised,
}
