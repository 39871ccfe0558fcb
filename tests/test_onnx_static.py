"""ONNX files understood without torch: the graph, its roles and statistics, and the whole command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradlint.capture.written import to_graph
from gradlint.config import Settings
from gradlint.error import InputError, LoadError, UsageError
from gradlint.graph.verify import verify
from gradlint.load.onnx_model import prepare

ROOT = Path(__file__).parent.parent
RANDOM = np.random.default_rng(0)


def stored(name, *shape, scale=1.0):
    return numpy_helper.from_array((RANDOM.normal(size=shape) * scale).astype(np.float32), name)


def numbers(name, *values):
    return numpy_helper.from_array(np.array(values, np.int64), name)


def info(name, *shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, list(shape))


def file(tmp_path, nodes, inputs, outputs, initializers=(), opset=17, functions=()):
    graph = helper.make_graph(list(nodes), "net", inputs, outputs, list(initializers))
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    net = helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))
    path = tmp_path / "net.onnx"
    path.write_bytes(net.SerializeToString())
    return path


def graph_of(path, **settings):
    graph = to_graph(prepare(path, path.name, Settings(**settings)).program)
    assert verify(graph) == []
    return graph


def node(op, inputs, outputs, name="", **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), name, **attrs)


def deep_sigmoid(tmp_path, depth=12):
    nodes, initializers = [], []
    for i in range(depth):
        nodes.append(
            node("Gemm", f"h{i} net.{2 * i}.weight net.{2 * i}.bias", f"z{i}", f"/net/net.{2 * i}/Gemm", transB=1)
        )
        nodes.append(node("Sigmoid", f"z{i}", f"h{i + 1}", f"/net/net.{2 * i + 1}/Sigmoid"))
        initializers += [stored(f"net.{2 * i}.weight", 16, 16, scale=0.25), stored(f"net.{2 * i}.bias", 16, scale=0.1)]
    return file(tmp_path, nodes, [info("h0", 8, 16)], [info(f"h{depth}", 8, 16)], initializers)


def test_roles_places_and_statistics(tmp_path):
    graph = graph_of(deep_sigmoid(tmp_path, 2))
    assert [(op.kind, op.function, op.module_path) for op in graph.ops] == [
        ("linear", "linear", "net.0"),
        ("activation", "sigmoid", "net.1"),
        ("linear", "linear", "net.2"),
        ("activation", "sigmoid", "net.3"),
    ]
    weight = graph.params["net.0.weight"]
    assert (weight.shape, weight.fan_in) == ((16, 16), 16)
    assert weight.std == pytest.approx(0.25, rel=0.2)
    assert graph.coverage.method == "onnx"


def test_the_bias_of_one_unit_is_a_parameter_and_a_lone_number_is_none(tmp_path):
    nodes = [node("Gemm", "x w b", "h", transB=1), node("Mul", "h c", "y")]
    single = [numpy_helper.from_array(np.full(1, 0.5, np.float32), name) for name in ("b", "c")]
    weights = [stored("w", 1, 8), *single]
    graph = graph_of(file(tmp_path, nodes, [info("x", 4, 8)], [info("y", 4, 1)], weights))
    assert sorted(graph.params) == ["b", "w"]


def test_shape_arithmetic_is_computed_and_leaves_no_trace(tmp_path):
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "batch", axis=0),
        node("Unsqueeze", "batch zeros", "b"),
        node("Concat", "b rest", "target", axis=0),
        node("Reshape", "x target", "y"),
    ]
    constants = [numpy_helper.from_array(np.int64(0), "zero"), numbers("zeros", 0), numbers("rest", -1)]
    graph = graph_of(file(tmp_path, nodes, [info("x", "batch", 3, 4)], [info("y", None, None)], constants))
    assert [(op.kind, graph.values[op.outputs[0]].shape) for op in graph.ops] == [("reshape", (8, 12))]


def test_open_dimensions_are_guessed_until_the_graph_accepts_them(tmp_path):
    nodes = [node("MatMul", "x w", "y")]
    path = file(tmp_path, nodes, [info("x", "n", "features")], [info("y", None, 4)], [stored("w", 128, 4)])
    prepared = prepare(path, path.name, Settings())
    assert prepared.sized[0].shape == (8, 128)
    assert prepared.inputs[0].source == "guessed"


def test_ids_stay_below_the_table_they_index(tmp_path):
    nodes = [node("Gather", "table ids", "y", axis=0)]
    path = file(
        tmp_path,
        nodes,
        [info("ids", "n", "t", dtype=TensorProto.INT64)],
        [info("y", None, None, 8)],
        [stored("table", 30, 8)],
    )
    prepared = prepare(path, path.name, Settings())
    assert str(prepared.sized[0].values) == "<30"
    assert [op.kind for op in to_graph(prepared.program).ops] == ["embedding"]


def test_a_branch_that_is_always_taken_is_followed(tmp_path):
    then = helper.make_graph([node("Relu", "x", "a")], "then", [], [info("a", 2, 3)])
    other = helper.make_graph([node("Sigmoid", "x", "b")], "else", [], [info("b", 2, 3)])
    nodes = [node("If", "yes", "y", then_branch=then, else_branch=other)]
    constants = [numpy_helper.from_array(np.array(True), "yes")]
    graph = graph_of(file(tmp_path, nodes, [info("x", 2, 3)], [info("y", 2, 3)], constants))
    assert [op.function for op in graph.ops] == ["relu"]


def test_a_loop_of_known_length_is_written_out(tmp_path):
    body = helper.make_graph(
        [node("Identity", "going", "on"), node("Tanh", "state", "next")],
        "body",
        [info("turn", dtype=TensorProto.INT64), info("going", dtype=TensorProto.BOOL), info("state", 2, 3)],
        [info("on", dtype=TensorProto.BOOL), info("next", 2, 3)],
    )
    constants = [numpy_helper.from_array(np.int64(5), "times"), numpy_helper.from_array(np.array(True), "yes")]
    nodes = [node("Loop", "times yes x", "y", body=body)]
    graph = graph_of(file(tmp_path, nodes, [info("x", 2, 3)], [info("y", 2, 3)], constants))
    assert [op.function for op in graph.ops] == ["tanh"] * 5


def test_functions_are_expanded_with_their_attributes(tmp_path):
    inner = node("LeakyRelu", "a", "b")
    inner.attribute.append(helper.make_attribute("alpha", 0.0))
    inner.attribute[0].ClearField("f")
    inner.attribute[0].ref_attr_name = "slope"
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("own", "Leaky", ["a"], ["b"], [inner], imports, ["slope"])
    nodes = [helper.make_node("Leaky", ["x"], ["y"], domain="own", slope=0.3)]
    graph = graph_of(file(tmp_path, nodes, [info("x", 2, 3)], [info("y", 2, 3)], functions=[function]))
    assert [(op.function, op.attrs["slope"]) for op in graph.ops] == [("leaky_relu", 0.3)]


def test_an_operator_that_is_not_known_is_named(tmp_path):
    nodes = [helper.make_node("Frobnicate", ["x"], ["h"], domain="own"), node("Relu", "h", "y")]
    graph = graph_of(file(tmp_path, nodes, [info("x", 2, 3)], [info("y", 2, 3)]))
    assert graph.coverage.unknown == (("onnx.own.Frobnicate", 1),)


@pytest.mark.parametrize(
    "nodes", [[node("Relu", "b", "a"), node("Tanh", "a", "b")], [node("Relu", "nothing", "b")]], ids=["cycle", "cut"]
)
def test_a_graph_that_reads_what_nothing_produces_is_refused(tmp_path, nodes):
    path = file(tmp_path, nodes, [info("x", 2, 3)], [info("b", 2, 3)])
    with pytest.raises(LoadError, match="which nothing produces before it"):
        prepare(path, path.name, Settings())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"inputs": ("float32[3,16]",)}, "the file declares h0=float32\\[8,16\\]"),
        ({"inputs": ("z=float32[8,16]",)}, "no such input"),
        ({"init": ("depth=2",)}, "holds a finished one"),
        ({"weights": "w.pt"}, "holds its own"),
    ],
)
def test_options_that_do_not_fit_the_file_are_refused(tmp_path, options, error):
    path = deep_sigmoid(tmp_path, 2)
    with pytest.raises(UsageError, match=error):
        prepare(path, path.name, Settings(**options))


def test_open_dimensions_that_nothing_fits_ask_for_inputs(tmp_path):
    nodes = [node("MatMul", "x w", "y")]
    path = file(tmp_path, nodes, [info("x", "n", "features")], [info("y", None, 4)], [stored("w", 77, 4)])
    with pytest.raises(InputError) as caught:
        prepare(path, path.name, Settings())
    assert "--input" in caught.value.hint
    assert prepare(path, path.name, Settings(inputs=("float32[2,77]",))).sized[0].shape == (2, 77)


def test_memory_is_not_taken_for_what_only_a_number_asks_for(tmp_path):
    """An expansion to 2⁴⁰ entries is described, not made."""
    nodes = [node("ConstantOfShape", "huge", "big"), node("Add", "x big", "y")]
    path = file(tmp_path, nodes, [info("x", 1, 1)], [info("y", None, None)], [numbers("huge", 2**20, 2**20)])
    graph = graph_of(path)
    assert graph.values[graph.outputs[0]].shape == (2**20, 2**20)


def command(path, *options):
    code = f"import sys; from gradlint.cli import main; main({[str(path), *options]!r})"
    return subprocess.run([sys.executable, "-c", code], cwd=path.parent, capture_output=True, text=True, check=False)


def test_the_command_line_finds_the_chain_without_torch(tmp_path):
    run = command(deep_sigmoid(tmp_path), "--no-probe", "--output-format", "json", "--no-cache")
    report = json.loads(run.stdout)["targets"][0]
    assert run.returncode == 1, run.stderr
    assert [f["rule"] for f in report["findings"] if f["severity"] == "error"] == ["saturating-chain"]
    assert report["findings"][0]["verdict"] == "not-probed"


def test_static_analysis_never_imports_torch(tmp_path):
    code = (
        "import sys; from gradlint.static import analyse; from gradlint.config import Settings;"
        "from gradlint.source.target import parse;"
        f"report = analyse(parse({str(deep_sigmoid(tmp_path))!r}), Settings(probe=False));"
        "assert report.findings; sys.exit('torch' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "rules"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


def test_a_damaged_file_is_one_message_and_exit_2(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"\x08\x07garbage")
    run = command(path, "--no-probe")
    assert run.returncode == 2
    assert "net.onnx" in run.stdout + run.stderr
    assert "Traceback" not in run.stdout + run.stderr
