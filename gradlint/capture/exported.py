"""The door for graphs that exist already: a symbolic_trace result, an exported program's module, a model file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from torch import fx, nn

from gradlint.capture import frames
from gradlint.capture.naming import clean
from gradlint.capture.record import Place
from gradlint.capture.recorder import Located, Recorder
from gradlint.capture.recording import Recording
from gradlint.capture.written import module_types
from gradlint.load.program_module import ProgramModule
from gradlint.load.scripted_module import ScriptedModule

_LINE = re.compile(r'File "([^"]+)", line (\d+)')
_TORCH = re.compile(r"/(?:site|dist)-packages/torch/")
_DYNAMO = re.compile(r"^L\['self'\]\.?|_modules\['|'\](?=\.|$)")


def run_graph(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], **options: Any) -> Recording:
    """Record a run of a graph (a module of GRAPHS); module paths and lines are those that its nodes carry.

    `options` are the Recorder's.
    """
    known = DOORS[next(kind for kind in DOORS if isinstance(model, kind))](model)
    recorder = Recorder(model, locate=known.located, forward=known.forward, **options)
    recording = recorder.run(args, dict(kwargs))
    called = {"": 1, **recording.called}
    told = replace(recording, method=known.method, notes=known.notes, absent=known.absent)
    return replace(told, module_types={**recording.module_types, **known.types}, called=called)


class _Program:
    """A program and where its running step stands."""

    method = "onnx"

    def __init__(self, module: ProgramModule) -> None:
        self.forward = module.forward
        self.types = module_types(module.program)
        self.notes, self.absent = module.program.notes, module.program.absent
        self._module = module

    def located(self) -> Located:
        """The place of the running step."""
        place = self._module.place
        return Located(place.path, place.type, (frames.USER, place.span.path, place.span.line) if place.span else None)


class _Interpreted:
    """Runs the nodes one by one and knows which of them is running."""

    method = "fx"
    notes: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.types: dict[str, str] = {}
        self._module = graph_module
        self._node: fx.Node | None = None
        for node in graph_module.graph.nodes:
            self.types.update(_stack(node))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's output."""
        return _Interpreter(self, self._module).run(*self._flat(args, kwargs))

    def located(self) -> Located:
        """Path and type of the module, and the line, that the running node carries."""
        if self._node is None:
            return Located("", "", None)
        stack = list(_stack(self._node).items())
        path, name = stack[-1] if stack else ("", type(self._module).__name__)
        return Located(path, name.rpartition(".")[2], _place(self._node))

    def enter(self, node: fx.Node) -> None:
        """Note that the node is about to run."""
        self._node = node

    def _flat(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Any]:
        """The arguments in the order of the placeholders, defaults left out."""
        names = [node.target for node in self._module.graph.nodes if node.op == "placeholder"]
        rest = [kwargs[name] for name in names[len(args) :] if name in kwargs]
        return [*args, *rest]


class _Scripted:
    """A TorchScript archive and the lines that its running nodes come from; modules are called as modules."""

    method = "torchscript"
    notes: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    types: Mapping[str, str] = MappingProxyType({})

    def __init__(self, module: ScriptedModule) -> None:
        self.forward = module
        self._name = type(module).__name__
        self._running = module.script_shared.running

    def located(self) -> Located:
        """The innermost line of the user's that any running node carries."""
        trace = [place for step in reversed(self._running) for place in step.trace]
        return Located("", self._name, _best(trace))


class _Interpreter(fx.Interpreter):
    def __init__(self, owner: _Interpreted, module: nn.Module) -> None:
        super().__init__(module)
        self._owner = owner

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, known to the recorder as the place of what it calls."""
        self._owner.enter(n)
        return super().run_node(n)


def _stack(node: fx.Node) -> dict[str, str]:
    """The modules that the node was called in, outermost first: path → qualified class name."""
    found = {}
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():
        name = f"{kind.__module__}.{kind.__qualname__}" if isinstance(kind, type) else str(kind)
        found[clean(_DYNAMO.sub("", path))] = name
    return found


def _place(node: fx.Node) -> Place | None:
    """The innermost line of the node's stack trace that is the user's, else the innermost of a library."""
    return _best([(path, int(line)) for path, line in reversed(_LINE.findall(node.stack_trace or ""))])


def _best(trace: list[tuple[str, int]]) -> Place | None:
    """The first line that is the user's, else the first of a library; torch's own are neither, wherever it lies."""
    ranked = [(frames.rank(path), path, line) for path, line in trace if not _TORCH.search(path)]
    best = max((rank for rank, _, _ in ranked), default=frames.MACHINERY)
    return next((place for place in ranked if place[0] == best and best != frames.MACHINERY), None)


DOORS: Mapping[type[nn.Module], Callable[[Any], _Interpreted | _Program | _Scripted]] = {
    fx.GraphModule: _Interpreted,
    ProgramModule: _Program,
    ScriptedModule: _Scripted,
}
GRAPHS = tuple(DOORS)
