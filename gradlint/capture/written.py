"""A program of which nothing was run (an ONNX file) as a graph: its calls stand as a recording would have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gradlint.capture.convert import Known, Run, converted, owner
from gradlint.capture.record import Call, Leaf, Meta, Place, Ref
from gradlint.graph.ir import Graph
from gradlint.onnx.program import Program, Step, Symbol, substituted
from gradlint.onnx.table import LATE

USER = 2  # the rank of a line that the exporter says the user wrote


def to_graph(program: Program) -> Graph:
    """The program's graph, as a recorded run in train mode would give it (`Coverage.method` "onnx"). Needs no torch."""
    return _Writing(program).graph()


def module_types(program: Program) -> dict[str, str]:
    """The qualified class of every module by path, "" for those of which the file has only the path."""
    paths = [step.place.path for step in program.steps] + [owner(name) for name in program.leaves]
    every = {part: "" for path in paths for part in _above(path)}
    return {"": program.name, **every, **program.types}


class _Writing:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.params: dict[str, Any] = {}
        self.tensors: dict[int, list[str]] = {}
        self.steps: list[Leaf | Call] = []
        self._refs: dict[int, Ref] = {}

    def graph(self) -> Graph:
        program = self.program
        for symbol in program.inputs:
            self._leaf(symbol, "input")
        flowing = _flowing(program)
        for index, step in enumerate(program.steps):
            self._call(index, step, flowing)
        outputs = [("" if len(program.outputs) == 1 else str(i), self._ref(s)) for i, s in enumerate(program.outputs)]
        types = module_types(program)
        run = Run(
            dict.fromkeys(types, 1), types, training=True, method="onnx", notes=program.notes, absent=program.absent
        )
        return converted(run, Known(self.params, self.tensors), self.steps, outputs)

    def _leaf(self, symbol: Symbol, origin: Any) -> Ref:
        leaf = Leaf(origin, symbol.name, Meta(symbol.shape or (), symbol.dtype, origin == "param"))
        self.steps.append(leaf)
        ref = self._refs[id(symbol)] = Ref(leaf, 0)
        return ref

    def _ref(self, symbol: Symbol) -> Ref:
        known = self._refs.get(id(symbol))
        if known is not None:
            return known
        if symbol.kind == "param":
            self.params[symbol.name] = symbol.array
            self.tensors[id(symbol.array)] = [symbol.name]
        return self._leaf(symbol, "param" if symbol.kind == "param" else "buffer")

    def _call(self, index: int, step: Step, flowing: set[int]) -> None:
        args, kwargs = substituted(step.args, self._ref), {k: substituted(v, self._ref) for k, v in step.kwargs.items()}
        outputs = [symbol for symbol in step.outputs if symbol is not None]
        metas = [Meta(s.shape or (), s.dtype or "float32", id(s) in flowing) for s in outputs]
        span, place = step.place.span, step.place
        at: Place | None = None if span is None else (USER, span.path, span.line)
        call = Call(index, None, _name(step), metas, place.path, place.type, at, False, True, False)
        call.args, call.kwargs = _written(args), {key: _written(value) for key, value in kwargs.items()}
        call.paths = [()] if len(outputs) == 1 else [(i,) for i in range(len(outputs))]
        self.steps.append(call)
        for position, symbol in enumerate(outputs):
            self._refs[id(symbol)] = Ref(call, position)


def _name(step: Step) -> str:
    late = LATE.get(step.function.removeprefix("onnx."))
    return f"torch.{late}" if late and step.late is not None else step.function


def _written(value: Any) -> Any:
    """What stands for something only known at run time: the model is in train mode."""
    from gradlint.onnx.program import Training

    if isinstance(value, Training):
        return True
    if isinstance(value, list):
        return [_written(item) for item in value]
    if type(value) is tuple:
        return tuple(_written(item) for item in value)
    return value


def _flowing(program: Program) -> set[int]:
    """The tensors that a gradient flows back from: floating ones that depend on a weight."""
    found = {id(symbol) for symbol in program.leaves.values() if symbol.kind == "param"}
    for step in program.steps:
        if any(id(symbol) in found for symbol in step.reads) and step.function.rpartition(".")[2] not in NO_GRADIENT:
            found |= {id(s) for s in step.outputs if s is not None and s.dtype.startswith(("float", "bfloat"))}
    return found


NO_GRADIENT = frozenset(
    {"eq", "gt", "lt", "ge", "le", "argmax", "argmin", "nonzero", "isnan", "isinf", "sign", "floor"}
)


def _above(path: str) -> Iterator[str]:
    """The module itself and those around it, outermost first."""
    parts = path.split(".") if path else []
    return (".".join(parts[: i + 1]) for i in range(len(parts)))
