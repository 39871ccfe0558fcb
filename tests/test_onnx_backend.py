"""The onnx package's own test data: every operator is supported, with the right outputs, or named as unknown."""

import warnings
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from google.protobuf.message import DecodeError
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests

from gradlint.capture.written import to_graph
from gradlint.error import GradlintError
from gradlint.graph.verify import verify
from gradlint.load.program_module import ProgramModule, as_tensor
from gradlint.onnx.build import build
from gradlint.onnx.file import File
from gradlint.onnx.inputs import Sized, declared
from gradlint.onnx.node import UnknownEntriesError, UnsupportedError

OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
# how a node says that it asks for more than its handler, or torch for this dtype, can do
REFUSALS = (UnsupportedError, UnknownEntriesError, NotImplementedError)
TIES = "same_values"  # of equal entries any may come first
SIMPLE = [case for kind in ("simple", "pytorch-converted", "pytorch-operator") for case in load_model_tests(kind=kind)]


@pytest.fixture(scope="module")
def cases():
    """The node cases, each once, by the first operator in it."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            found.setdefault(case.model.graph.node[0].op_type, []).append(case)
    return found


def outcome(model, data):
    """ "supported", or why not; raises AssertionError when what was understood is wrong."""
    file = File(model, Path("case.onnx"))
    try:
        inputs = declared(file)
    except GradlintError as error:
        return error.message
    given = [array_of(value) for value in data[0][: len(inputs)]]
    sized = [Sized(tuple(array.shape), d.dtype) for array, d in zip(given, inputs, strict=True)]
    try:
        program = build(file, inputs, sized)
    except GradlintError as error:
        return error.message
    graph = to_graph(program)
    assert verify(graph) == []
    if program.unknown:
        assert {name for name, _ in graph.coverage.unknown} >= {f"onnx.{name}" for name in program.unknown}
        return f"unknown: {', '.join(program.unknown)}"
    try:
        agree(program, given, data[1], model.graph)
    except REFUSALS as error:
        return f"refused during the run: {error}"
    return "supported"


def array_of(value):
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def agree(program, given, expected, graph):
    module = ProgramModule(program).eval()
    with torch.no_grad():
        found = module(*(as_tensor(array) for array in given))
    found = [found] if isinstance(found, torch.Tensor) else list(found)
    drawn = any(node.op_type.startswith(("Random", "Bernoulli", "Multinomial", "Dropout")) for node in graph.node)
    for tensor, wanted in zip(found, expected, strict=True):
        assert tuple(tensor.shape) == array_of(wanted).shape
        if not drawn:
            wanted = array_of(wanted)
            close = 2e-3 if tensor.dtype != torch.bfloat16 else 2e-2
            np.testing.assert_allclose(tensor.double().numpy(), wanted.astype(np.float64), rtol=close, atol=close / 100)


@pytest.mark.parametrize("operator", OPERATORS)
def test_an_operator_is_supported_or_named(cases, operator):
    for case in cases.get(operator, ()):
        if TIES not in case.name:
            assert outcome(case.model, case.data_sets[0]), case.name


@pytest.mark.parametrize("case", SIMPLE, ids=[case.name for case in SIMPLE])
def test_a_simple_model_is_understood(case):
    folder = Path(case.model_dir)
    model = onnx.load(folder / "model.onnx")
    data = [stored(folder / "test_data_set_0", kind) for kind in ("input", "output")]
    if None in data:
        assert understood(model)
    else:
        assert outcome(model, data)


def stored(folder, kind):
    """The tensors of that kind in order; None where one is a sequence or an optional."""
    files = sorted(folder.glob(f"{kind}_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    try:
        return [onnx.numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())) for path in files]
    except (DecodeError, TypeError):
        return None


def understood(model):
    """Whether the model is refused in words, or every operator is supported or named."""
    file = File(model, Path("case.onnx"))
    try:
        inputs = declared(file)
        graph = to_graph(build(file, inputs, [Sized(tuple(d.dims), d.dtype) for d in inputs]))
    except GradlintError as error:
        return bool(error.message)
    return verify(graph) == []
