"""A TorchScript module as modules of Python that run its graphs one node at a time, so that every call is seen."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from gradlint.load.scripted_calls import call, holds_tensor, is_known
from gradlint.load.scripted_graph import Block, Step, block, flat, read, type_name
from gradlint.onnx.node import UnsupportedError

MOST_ROUNDS = 100_000  # of one loop
MODAL = frozenset({"aten::batch_norm", "aten::instance_norm", "aten::dropout", "aten::lstm", "aten::gru"})


class ScriptedModule(nn.Module):
    """Runs the methods of one module of an archive; its children, parameters and buffers are those of the original.

    Everything of its own has a name that begins with `script`, since the names of the original's members are free.
    """

    def __init__(self, script: Any, shared: Shared) -> None:
        super().__init__()
        self._script_own = _Own(script, shared)
        self._script_plain: dict[str, Any] = {}

    @property
    def script_shared(self) -> Shared:
        """What all modules of the archive share."""
        return self._script_own.shared

    def forward(self, *args: Any, _method: str = "forward", **kwargs: Any) -> Any:
        """What the method gives."""
        graph, defaults = self._script_own.method(_method)
        names = graph.inputs[1:]
        given = list(args)
        for name in list(defaults)[len(given) : len(names)]:
            given.append(kwargs.get(name, defaults[name]))
        return _run(self, graph, [self, *given])

    @property
    def script_keeps_mode(self) -> bool:
        """Whether its norms and dropout were traced in one mode, and do not ask for it again."""
        steps = self._script_steps()
        asks = any(step.kind == "prim::GetAttr" and step.given == "training" for step in steps)
        return not asks and any(step.kind in MODAL for step in steps)

    @property
    def script_unknown(self) -> tuple[str, ...]:
        """The operators that cannot be run, should the run come to them."""
        return tuple(sorted({step.kind for step in self._script_steps() if not is_known(step)}))

    def _script_steps(self) -> list[Step]:
        """Every step of it and all below."""
        own = [child.script_methods() for child in self.modules() if isinstance(child, ScriptedModule)]
        return [step for graphs in own for graph in graphs for step in flat(graph)]

    def script_methods(self) -> list[Block]:
        """The graphs of its forward methods."""
        return [
            self._script_own.method(name)[0]
            for name in self._script_own.script._method_names()
            if name.startswith("forward")
        ]

    def script_attribute(self, name: str) -> Any:
        """An attribute of the original."""
        if name == "training":
            return self.training
        for kept in (self._parameters, self._buffers, self._modules, self._script_plain):
            if name in kept:
                return kept[name]
        value = read(lambda: self._script_own.script.getattr(name))
        if holds_tensor(value):
            return self._script_resolved(value)  # an LSTM's list of its own weights
        self._script_plain[name] = value
        return value

    def _script_resolved(self, value: Any) -> Any:
        """The value with the tensors of the original replaced by this module's own."""
        if isinstance(value, (list, tuple)):
            return [self._script_resolved(item) for item in value]
        name = self._script_own.names.get(id(value))
        return value if name is None else self.script_attribute(name)

    def script_assign(self, name: str, value: Any) -> None:
        """Set an attribute of the original."""
        kept = self._buffers if name in self._buffers else self._script_plain
        kept[name] = value


class Shared:
    """What the modules of one archive share: its functions, and where the run stands, innermost last."""

    def __init__(self, unit: Any) -> None:
        self.unit = unit
        self.running: list[Step] = []
        self._functions: dict[str, Block] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared:
        return self

    def function(self, name: str) -> Block:
        """The graph of a function of the archive."""
        if name not in self._functions:
            found = self.unit.find_function(name)
            if found is None:
                raise UnsupportedError(f"TorchScript's function {name}")
            self._functions[name] = block(found.graph)
        return self._functions[name]


class _Own:
    """The original of one module, and its methods as far as they were read; copies of the module share it."""

    def __init__(self, script: Any, shared: Shared) -> None:
        self.script = script
        self.shared = shared
        kept = [*_items(torch._C.ParameterDict(script)), *_items(torch._C.BufferDict(script))]
        self.names = {id(tensor): name for name, tensor in kept}
        self._kept = kept  # so that no other tensor gets the id of one of them
        self._methods: dict[str, tuple[Block, dict[str, Any]]] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> _Own:
        return self

    def method(self, name: str) -> tuple[Block, dict[str, Any]]:
        """The graph of a method, and its arguments with their defaults."""
        if name not in self._methods:
            found = self.script._get_method(name)
            defaults = {a.name: a.default_value for a in found.schema.arguments[1:]}
            self._methods[name] = block(found.graph), defaults
        return self._methods[name]


def module_of(script: Any, unit: Any) -> ScriptedModule:
    """The module with everything below it, sharing the numbers of the original."""
    made = _made(script, Shared(unit), {}, {})
    arguments = script._get_method("forward").schema.arguments[1:]
    type(made).forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY),
            *(
                inspect.Parameter(
                    argument.name,
                    inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=argument.default_value if argument.has_default_value() else inspect.Parameter.empty,
                    annotation=str(argument.type),
                )
                for argument in arguments
            ),
        ]
    )
    return made


def _made(script: Any, shared: Shared, known: dict[int, ScriptedModule], tensors: dict[int, Any]) -> ScriptedModule:
    if hash(script) in known:
        return known[hash(script)]
    name = type_name(script._type().qualified_name())

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return ScriptedModule.forward(self, *args, **kwargs)

    made: ScriptedModule = type(name, (ScriptedModule,), {"forward": forward})(script, shared)
    known[hash(script)] = made
    for path, tensor in _items(torch._C.ParameterDict(script)):
        made.register_parameter(path, tensors.setdefault(id(tensor), _parameter(tensor)))
    for path, tensor in _items(torch._C.BufferDict(script)):
        made.register_buffer(path, tensors.setdefault(id(tensor), tensor.clone()))
    for path, child in _items(torch._C.ModuleDict(script)):
        made.add_module(path, _made(child, shared, known, tensors))
    return made


def _items(held: Any) -> list[tuple[str, Any]]:
    """The names and values of one of C++'s dictionaries, whose stubs know no items."""
    found: list[tuple[str, Any]] = held.items()
    return found


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad)


def _run(module: ScriptedModule, graph: Block, args: list[Any]) -> Any:
    return _only(_walk(module.script_shared, graph, args, {}))


def _walk(shared: Shared, graph: Block, args: list[Any], held: dict[str, Any]) -> list[Any]:
    held.update(zip(graph.inputs, args, strict=True))
    for step in graph.steps:
        shared.running.append(step)
        try:
            results = _step(shared, step, [held[name] for name in step.inputs], held)
        finally:
            shared.running.pop()
        held.update(zip(step.outputs, results, strict=True))
    return [held[name] for name in graph.outputs]


def _step(shared: Shared, step: Step, args: list[Any], held: dict[str, Any]) -> list[Any]:
    """The values that one node gives."""
    kind = step.kind
    if kind == "prim::If":
        return _walk(shared, step.blocks[0 if args[0] else 1], [], held)
    if kind == "prim::Loop":
        return _loop(shared, step, args, held)
    if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
        return list(args[0])
    if kind == "prim::RaiseException":
        raise RuntimeError(str(args[0]))
    if kind == "prim::SetAttr":
        args[0].script_assign(step.given, args[1])
        return []
    value = _value(shared, step, args)
    return list(value) if len(step.outputs) > 1 else [value][: len(step.outputs)]


def _value(shared: Shared, step: Step, args: list[Any]) -> Any:
    kind = step.kind
    if kind == "prim::Constant":
        return step.given
    if kind == "prim::GetAttr":
        return args[0].script_attribute(step.given)
    if kind == "prim::CallMethod":
        return _method(step.given, *args)
    if kind == "prim::CallFunction":
        return _only(_walk(shared, shared.function(args[0]), args[1:], {}))
    return call(step, args)


def _method(name: str, module: Any, *args: Any) -> Any:
    """A call of another module's forward goes through the module, one of a helper method straight to its graph."""
    if name.startswith("forward"):
        return module(*args) if name == "forward" else module(*args, _method=name)
    return ScriptedModule.forward(module, *args, _method=name)


def _only(results: list[Any]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)


def _loop(shared: Shared, step: Step, args: list[Any], held: dict[str, Any]) -> list[Any]:
    most, going, *carried = args
    (body,) = step.blocks
    for index in range(min(int(most), MOST_ROUNDS)):
        if not going:
            break
        going, *carried = _walk(shared, body, [index, *carried], held)
    else:
        if int(most) > MOST_ROUNDS and going:
            raise UnsupportedError(f"a loop of more than {MOST_ROUNDS} rounds")
    return carried
