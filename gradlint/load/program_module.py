"""A program of torch-level calls as a module that torch can run and differentiate."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradlint.onnx.node import UnknownEntriesError, UnsupportedError
from gradlint.onnx.program import Array, Bundle, DType, Place, Program, Step, Symbol, Training, dtype_name, substituted
from gradlint.onnx.shapes import Described

ROOT = "torch"


class ProgramModule(nn.Module):
    """Runs a program's steps one by one; every weight of the file is a parameter under its own name.

    `place` is where the running step stands in the file.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self._plan = _Plan(program)
        self.place = Place()
        for name, symbol in program.leaves.items():
            _register(self, name, symbol)

    @property
    def program(self) -> Program:
        """The program that is run."""
        return self._plan.program

    def forward(self, *inputs: Tensor) -> Any:
        """The output, or a tuple of the outputs when there are several."""
        plan = self._plan
        held: dict[int, Any] = {id(symbol): tensor for symbol, tensor in zip(plan.program.inputs, inputs, strict=True)}
        for symbol, path in plan.leaves:
            held[id(symbol)] = _found(self, path)
        for step, function, gone in plan.steps:
            self.place = step.place
            result = function(self, step, held)
            held |= {id(output): tensor for output, tensor in zip(step.outputs, result, strict=False)}
            for key in gone:
                held.pop(key, None)
        self.place = Place()
        outputs = tuple(held[id(symbol)] for symbol in plan.program.outputs)
        return outputs[0] if len(outputs) == 1 else outputs


class _Plan:
    """What the steps need at run time, worked out once; copies of the module share it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.leaves = [(symbol, tuple(_parts(name))) for name, symbol in program.leaves.items()]
        kept = {id(symbol) for symbol in program.outputs} | {id(symbol) for symbol, _ in self.leaves}
        last: dict[int, int] = {}
        for index, step in enumerate(program.steps):
            last |= {id(symbol): index for symbol in step.reads}
        gone: list[list[int]] = [[] for _ in program.steps]
        for key, index in last.items():
            if key not in kept:
                gone[index].append(key)
        self.steps = [(step, _runner(step), tuple(ends)) for step, ends in zip(program.steps, gone, strict=True)]

    def __deepcopy__(self, memo: dict[int, Any]) -> _Plan:
        return self


Runner = Callable[[ProgramModule, Step, dict[int, Any]], Sequence[Any]]


def _runner(step: Step) -> Runner:
    if step.late is not None:
        return _interpret
    if not step.known:
        return _refuse
    function = resolve(step.function)
    return lambda module, step, held: _call(function, module, step, held)


@functools.cache
def resolve(name: str) -> Callable[..., Any]:
    """The torch function of a qualified name."""
    root, _, rest = name.partition(".")
    if root != ROOT:
        raise LookupError(name)
    found: Callable[..., Any] = operator.attrgetter(rest)(torch)
    return found


def _call(function: Callable[..., Any], module: ProgramModule, step: Step, held: dict[int, Any]) -> Sequence[Any]:
    def given(symbol: Symbol) -> Any:
        return held[id(symbol)]

    args = _concrete(substituted(step.args, given), training=module.training)
    kwargs = {
        name: _concrete(substituted(value, given), training=module.training) for name, value in step.kwargs.items()
    }
    result = function(*args, **kwargs)
    return [result] if isinstance(result, Tensor) else list(_flat(result))


def _flat(result: Any) -> Any:
    """Every tensor of a result in order: an LSTM's output and both of its states."""
    if isinstance(result, Tensor):
        yield result
    else:
        for item in result:
            yield from _flat(item)


def _interpret(module: ProgramModule, step: Step, held: dict[int, Any]) -> Sequence[Any]:
    """Lower the node now that its inputs are there, making each call at once."""
    maker = _Maker(module)
    given = [maker.symbol(held[id(symbol)], symbol.name, symbol) for symbol in step.args]
    found = step.late.run(maker, given)
    if len(found) < len(step.outputs):
        raise UnsupportedError(f"output {len(found)} of {step.late.spec.op} during a run")
    if any(isinstance(item, Bundle) for item in found):
        raise UnsupportedError(f"a sequence that {step.late.spec.op} gives during a run")
    return [maker.tensor(item) if isinstance(item, Symbol) else item for item in found]


def _refuse(module: ProgramModule, step: Step, held: dict[int, Any]) -> Sequence[Any]:
    raise NotImplementedError(f"the operator {step.function.partition('.')[2]} is not supported")


class _Maker:
    """Makes calls at once, for nodes that are interpreted during a run."""

    def __init__(self, module: ProgramModule) -> None:
        self.module = module

    def emit(
        self, function: str, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Described], at: Place
    ) -> list[Symbol]:
        """The call's results."""
        training = self.module.training
        concrete = _concrete(substituted(args, self.tensor), training=training)
        named = {name: _concrete(substituted(value, self.tensor), training=training) for name, value in kwargs.items()}
        result = resolve(function)(*concrete, **named)
        return [self.symbol(tensor, function) for tensor in _flat(result)]

    def entries(self, symbol: Symbol) -> Array:
        """The entries of a tensor of the run."""
        if symbol.data is not None:
            return symbol.data
        if symbol.tensor is None:
            raise UnknownEntriesError(symbol.name)
        found = symbol.tensor.detach().cpu()
        return np.asarray((found.float() if found.dtype == torch.bfloat16 else found).numpy())

    def symbol(self, tensor: Tensor, name: str, like: Symbol | None = None) -> Symbol:
        """What a handler sees of the tensor."""
        kind = like.kind if like is not None else "op"
        return Symbol(
            name,
            kind,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            like.data if like else None,
            tensor=tensor,
        )

    def tensor(self, symbol: Symbol) -> Tensor:
        """The tensor itself; a known one is made where the model is."""
        if symbol.tensor is None:
            device = next((p.device for p in self.module.parameters()), torch.device("cpu"))
            symbol.tensor = as_tensor(symbol.data if symbol.data is not None else symbol.array).to(device)
        found: Tensor = symbol.tensor
        return found


def _concrete(value: Any, *, training: bool) -> Any:
    """The argument with what stands for dtypes and the mode replaced by them."""
    if isinstance(value, DType):
        return getattr(torch, value.name)
    if isinstance(value, Training):
        return training
    if isinstance(value, (tuple, list)):
        return type(value)(_concrete(item, training=training) for item in value)
    return value


def as_tensor(array: Any) -> Tensor:
    """A copy of the numbers as a tensor; bfloat16 and float8, which numpy lacks, by way of float32."""
    array = np.asarray(array)
    name = dtype_name(array)
    if array.dtype.kind not in "fiubc" or name.startswith(("bfloat", "float8")):
        return torch.from_numpy(array.astype(np.float32)).to(getattr(torch, name))
    return torch.from_numpy(np.array(array, order="C"))


def _register(root: nn.Module, name: str, symbol: Symbol) -> None:
    *parents, last = _parts(name)
    module = root
    for part in parents:
        child = module._modules.get(part)
        if child is None:
            child = nn.Module()
            module.add_module(part, child)
        module = child
    tensor = as_tensor(symbol.array if symbol.array is not None else symbol.data)
    if symbol.kind == "param":
        module.register_parameter(last, nn.Parameter(tensor))
    else:
        module.register_buffer(last, tensor)


def _parts(name: str) -> list[str]:
    return [part or "_" for part in name.split(".")]


def _found(root: nn.Module, path: Sequence[str]) -> Tensor:
    module = root
    for part in path[:-1]:
        module = module._modules[part]  # type: ignore[assignment]
    found = module._parameters.get(path[-1])
    tensor: Tensor | None = found if found is not None else module._buffers.get(path[-1])
    assert tensor is not None
    return tensor
