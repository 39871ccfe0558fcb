"""An ONNX file as a program: stored tensors sorted into weights and constants, inputs sized, nodes lowered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from gradlint.error import InputError, LoadError
from gradlint.onnx import locations
from gradlint.onnx.file import File
from gradlint.onnx.inputs import Declared, Sized
from gradlint.onnx.lowering import Lowering, Scope, Writer, constant
from gradlint.onnx.patterns import recognised
from gradlint.onnx.program import Program, Step, Symbol
from gradlint.onnx.shapes import TYPES, MisfitError
from gradlint.onnx.weights import named

FLOATS = frozenset({"float16", "float32", "float64", "bfloat16"})
FOLDED = "FuseBatchNormInto"  # the name of the exporter's rewriting, which it notes on the nodes
STATISTICS = {"BatchNormalization": (3, 4)}  # inputs that the forward pass updates, and no gradient
BIASED = ("Gemm", "Conv", "ConvTranspose")  # their third input is a bias, be it of one unit
_BUFFERS = re.compile(r"%([bc]_\w+)")
_RENAMED = re.compile(r"onnx::Conv_\d+")
RULE, FX = "pkg.onnxscript.rewriter.rule_name", "pkg.torch.onnx.fx_node"


def build(file: File, declared: Sequence[Declared], sized: Sequence[Sized]) -> Program:
    """The program of the file for inputs of these sizes.

    Raises InputError when a node does not accept sizes that were guessed, LoadError when the graph is not well-formed.
    """
    graph = file.model.graph
    lowering = Lowering(file, guessed=any(size.guessed for size in sized))
    scope, writer = Scope(), Writer()
    for symbol in _stored(file):
        scope.names[symbol.name] = symbol
    inputs = [Symbol(d.name, "input", s.shape, s.dtype) for d, s in zip(declared, sized, strict=True)]
    scope.names |= {symbol.name: symbol for symbol in inputs}
    try:
        lowering.nodes(graph.node, scope, writer, {}, file.model.opset_import)
    except MisfitError as error:
        raise InputError(f"the graph does not accept {_told(inputs)}: {error}", "give the inputs: --input") from error
    outputs = [held for value in graph.output if isinstance(held := scope.find(value.name), Symbol)]
    if not outputs:
        raise LoadError("the graph gives no tensor")
    kinds: dict[str, str] = {}
    for node in graph.node:
        kinds |= locations.types(node)
    steps = _used(writer.steps, outputs)
    folded = _folded(file.model)
    stored = [symbol for step in steps for symbol in step.reads if symbol.kind == "buffer"]
    facts = _inference_facts(folded, trained=_is_trained(stored, _statistics(graph)))
    notes = (*lowering.notes, *_unknown_shapes(steps), *facts)
    absent = ("norm",) if folded else ()
    program = Program(graph.name or file.path.stem, tuple(steps), tuple(inputs), tuple(outputs), kinds, notes, absent)
    return named(recognised(program))


def _stored(file: File) -> Iterator[Symbol]:
    """Every initializer: floating tensors are weights, but for statistics and what the exporter notes as a buffer."""
    graph = file.model.graph
    statistics = _statistics(graph)
    biases = {node.input[2] for node in graph.node if node.op_type in BIASED and len(node.input) > 2}
    told = {
        match
        for node in graph.node
        for entry in node.metadata_props
        if entry.key == FX
        for match in _BUFFERS.findall(entry.value)
    }
    for sparse in graph.sparse_initializer:
        raise LoadError(f"the sparse tensor {sparse.values.name!r} is not supported")
    for tensor in graph.initializer:
        plain = re.sub(r"\W", "_", tensor.name)
        fixed = tensor.name in statistics or f"b_{plain}" in told or f"c_{plain}" in told
        dtype = TYPES.get(tensor.data_type, "")
        single = prod(tensor.dims) <= 1 and not fixed and not (tensor.dims and tensor.name in biases)
        if dtype not in FLOATS or single:
            yield constant(file, tensor)
        else:
            shape = tuple(tensor.dims)
            array = file.array(tensor)
            statistic = tensor.name in statistics
            yield Symbol(
                tensor.name,
                "buffer" if fixed else "param",
                shape,
                dtype,
                data=array if fixed and not statistic else None,
                array=array,
            )


def _statistics(graph: Any) -> set[str]:
    """The names of running means and variances, also of those that several norms share."""
    found = {
        node.input[place]
        for node in graph.node
        for place in STATISTICS.get(node.op_type, ())
        if place < len(node.input)
    }
    copies = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity" and node.input}
    return found | {copies[name] for name in found if name in copies}


def _used(steps: Sequence[Step], outputs: Sequence[Symbol]) -> list[Step]:
    """The steps that an output depends on."""
    wanted = {id(symbol) for symbol in outputs}
    kept: list[Step] = []
    for step in reversed(steps):
        if any(id(symbol) in wanted for symbol in step.outputs if symbol is not None):
            wanted |= {id(symbol) for symbol in step.reads}
            kept.append(step)
    return kept[::-1]


def _unknown_shapes(steps: Sequence[Step]) -> Iterator[str]:
    count = sum(any(symbol is not None and symbol.shape is None for symbol in step.outputs) for step in steps)
    if count:
        yield f"the shapes of {count} of {len(steps)} operations are only known during a run"


def _folded(model: Any) -> int:
    """How many BatchNorms the exporter folded into convolutions: it notes that, the older one renames the weights."""
    noted = sum(
        FOLDED in entry.value for node in model.graph.node for entry in node.metadata_props if entry.key == RULE
    )
    if noted or model.producer_name != "pytorch":
        return noted
    return sum(bool(_RENAMED.fullmatch(node.input[1])) for node in model.graph.node if len(node.input) > 1)


def _is_trained(symbols: Sequence[Symbol], statistics: set[str]) -> bool:
    """Whether a norm's running statistics have moved off 0 and 1."""
    arrays = [s.array for s in symbols if s.name in statistics and s.array is not None and s.array.size]
    return any(not (bool((array == 0).all()) or bool((array == 1).all())) for array in arrays)


def _inference_facts(folded: int, *, trained: bool) -> Iterator[str]:
    """What changes the meaning of a gradient finding: norms that were taken out, weights that are trained."""
    if folded:
        yield (
            f"the exporter folded {folded} BatchNorms into convolutions: gradients are those of the network without "
            "them, so what is found about the size of signals is only shown as info (optimize=False keeps the norms)"
        )
    if trained:
        yield "the weights are trained: what is found holds for them, not for a fresh initialisation"


def _told(inputs: Sequence[Symbol]) -> str:
    return ", ".join(f"{symbol.name}={symbol.dtype}{list(symbol.shape or ())}" for symbol in inputs)


@dataclass(frozen=True)
class Fitted:
    """A program and the sizes of its inputs."""

    program: Program
    sized: tuple[Sized, ...]


def fitted(file: File, declared: Sequence[Declared], tries: Sequence[Sequence[Sized]]) -> Fitted:
    """The first program whose nodes accept the sizes. Raises the last InputError when none does."""
    error: InputError | None = None
    for sized in tries:
        try:
            program = build(file, declared, sized)
        except InputError as refused:
            error = refused
            continue
        return Fitted(replace(program, name=file.path.name), tuple(sized))
    raise error or InputError("the graph has no inputs that can be sized")
