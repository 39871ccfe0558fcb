"""Steps of a candidate in terms of the user's source: which activations, layers and weights the edits are about."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from gradlint.finding import Change
from gradlint.fix.candidate import Initialise, Step, Swap
from gradlint.fix.wording import is_module
from gradlint.graph.ir import Graph, Module, Op, Span

LAYERS = ("Linear", "Conv1d", "Conv2d", "Conv3d")
INDEXED = ("Sequential", "ModuleList")
SCHEMES = ("kaiming_normal", "lecun_normal", "normal", "xavier_normal", "orthogonal", "default")
BIASES = ("zeros", "default_bias")


def changes(graph: Graph, steps: Sequence[Step]) -> tuple[Change, ...]:
    """The steps as changes of the source; none when one of them has no edit (norms, skips, guards, recurrences …)."""
    modules = {module.path: module for module in graph.modules}
    swaps = [step for step in steps if isinstance(step, Swap)]
    inits = [step for step in steps if isinstance(step, Initialise)]
    if len(swaps) + len(inits) < len(steps):
        return ()
    parts = (_swapped(graph, swaps), _initialised(graph, inits, modules))
    return () if None in parts else tuple(change for part in parts for change in part or ())


def _swapped(graph: Graph, swaps: Iterable[Swap]) -> list[Change] | None:
    """One change an activation module or call; None when a module serves at other ops, too, or its place is unknown."""
    functions = {step.op: step.function for step in swaps}
    made: list[Change] = []
    for index, function in functions.items():
        op = graph.ops[index]
        alike = [other for other in graph.ops if _site(other) == _site(op)]
        units = list(dict.fromkeys(_unit(other) for other in alike))
        shared = {other.index for other in alike if _unit(other) == _unit(op)}
        if _site(op)[0] is None or not shared <= functions.keys() or op.kind == "recurrent":
            return None
        name = "" if is_module(op) else op.name
        place = units.index(_unit(op))
        made.append(Change("activation", function, op.function, name, _site(op)[0], place, len(units)))
    return list(dict.fromkeys(made))


def _site(op: Op) -> tuple[Span | None, str, bool]:
    """What ops that one piece of source makes have in common."""
    return (op.constructed if is_module(op) else op.span), op.function, is_module(op)


def _unit(op: Op) -> str | int:
    """A module counts once however often it is called; every call of a function counts."""
    return op.module_path if is_module(op) else op.index


def _initialised(graph: Graph, inits: Sequence[Initialise], modules: Mapping[str, Module]) -> list[Change] | None:
    """One change a layer, with what becomes of its bias; then the layers that stay as they are."""
    weights = {_owner(step.param): step for step in inits if step.param.endswith("weight")}
    biases = {_owner(step.param): step.scheme for step in inits if step.param.endswith("bias")}
    layers = {path: module for path, module in modules.items() if _is_layer(module)}
    known = weights.keys() <= layers.keys() and biases.keys() <= weights.keys()
    schemes = {step.scheme for step in weights.values()} <= {*SCHEMES} and {*biases.values()} <= {*BIASES}
    if not (known and schemes) or len(weights) + len(biases) != len(inits) or (inits and "" not in modules):
        return None
    root = modules[""].type if inits else ""
    made = [
        Change("init", step.scheme, module=_expression(path, modules), gain=step.gain, bias=biases.get(path, ""))
        for path, step in weights.items()
    ]
    rest = [Change("untouched", module=_expression(path, modules)) for path in layers if inits and path not in weights]
    paths = [*weights, *(path for path in layers if inits and path not in weights)]
    return [
        replace(change, types=(layers[path].type, root), span=modules[""].constructed)
        for change, path in zip([*made, *rest], paths, strict=True)
    ]


def _is_layer(module: Module) -> bool:
    return module.builtin and module.type in LAYERS


def _owner(param: str) -> str:
    return param.rpartition(".")[0]


def _expression(path: str, modules: Mapping[str, Module]) -> str:
    """The module as a method of the root writes it: "self.hidden[-1]"."""
    written = "".join(_written(path, modules))
    return f"self{written}" if "?" not in written else f'self.get_submodule("{path}")'


def _written(path: str, modules: Mapping[str, Module]) -> Iterator[str]:
    parts = path.split(".")
    for place, part in enumerate(parts):
        parent = ".".join(parts[:place])
        if part.isidentifier():
            yield f".{part}"
        elif part.isdigit() and parent in modules and modules[parent].type in INDEXED:
            last = f"{parent}.{int(part) + 1}".lstrip(".") not in modules and int(part) > 0
            yield "[-1]" if last else f"[{part}]"
        else:
            yield "?"
