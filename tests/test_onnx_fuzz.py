"""Mutated files never crash, hang or fill the memory: they are understood, or refused in words."""

import multiprocessing
import resource
import signal
import tempfile
import traceback
from pathlib import Path

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from gradlint.capture.written import to_graph
from gradlint.config import Settings
from gradlint.error import GradlintError
from gradlint.graph.verify import verify
from gradlint.load.onnx_model import prepare

MEMORY = 3 * 2**30  # bytes of address space beyond what the process has
SECONDS = 20  # for one file
NUMBERS = st.one_of(st.integers(-3, 8), st.sampled_from([0, -1, 2**31 - 1, 2**31, 2**40, 2**62, -(2**63), 2**63 - 1]))
KINDS = ["op", "input", "output", "attribute", "dims", "entries", "type", "drop", "twice", "shape"]
NAMES = st.sampled_from(["", "x", "y", "h", "w", "s", "nothing", "../x", "a" * 300, "\x00"])


def info(name, *shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, list(shape))


def net(nodes, inputs, outputs, stored, functions=()):
    graph = helper.make_graph(nodes, "net", inputs, outputs, stored)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def bases():
    random = np.random.default_rng(0)

    def weight(name, *shape):
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)

    def ints(name, *values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    node = helper.make_node
    layers = [
        node("Conv", ["x", "w"], ["h"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1], group=1),
        node("BatchNormalization", ["h", "g", "b", "m", "v"], ["n"], "norm"),
        node("MaxPool", ["n"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["p"], ["s"]),
        node("Slice", ["s", "zero", "one"], ["c"]),
        node("Concat", ["c", "rest"], ["t"], axis=0),
        node("Reshape", ["p", "t"], ["f"]),
        node("Gemm", ["f", "u", "k"], ["y"], "head", transB=1),
    ]
    stored = [weight("w", 4, 3, 3, 3), *(weight(name, 4) for name in "gbm"), weight("u", 2, 64), weight("k", 2)]
    stored += [numpy_helper.from_array(np.ones(4, np.float32), "v"), ints("zero", 0), ints("one", 1), ints("rest", -1)]
    yield net(layers, [info("x", "n", 3, 8, 8)], [info("y", None, 2)], stored)
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Tanh", ["st"], ["nx"])],
        "body",
        [info("i", dtype=TensorProto.INT64), info("go", dtype=TensorProto.BOOL), info("st", 2, 3)],
        [info("on", dtype=TensorProto.BOOL), info("nx", 2, 3)],
    )
    loop = [
        node("Loop", ["times", "yes", "x"], ["h"], body=body),
        node("Twice", ["h"], ["y"], domain="own"),
    ]
    twice = helper.make_function(
        "own", "Twice", ["a"], ["b"], [node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    scalars = [numpy_helper.from_array(np.int64(4), "times"), numpy_helper.from_array(np.array(True), "yes")]
    yield net(loop, [info("x", 2, 3)], [info("y", 2, 3)], scalars, [twice])
    mixed = [
        node("Gather", ["table", "x"], ["e"], axis=0),
        node("LSTM", ["e", "W", "R"], ["o"], "lstm", hidden_size=4),
        node("Transpose", ["o"], ["q"], perm=[0, 2, 1, 3]),
        node("Split", ["q", "parts"], ["l", "r"], axis=3),
        node("Expand", ["l", "big"], ["y"]),
    ]
    stored = [weight("table", 9, 5), weight("W", 1, 16, 5), weight("R", 1, 16, 4), ints("parts", 1, 3)]
    yield net(
        mixed,
        [info("x", 6, 2, dtype=TensorProto.INT64)],
        [info("y", None, None, None, None)],
        [*stored, ints("big", 1, 1, 1, 7)],
    )


BASES = [model.SerializeToString() for model in bases()]


@st.composite
def bytewise(draw):
    """A file with bytes changed, cut out, repeated or cut off."""
    data = bytearray(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "insert", "delete", "repeat", "cut"]))
        if kind == "flip" and data:
            data[place] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=12))
        elif kind == "delete":
            del data[place : place + draw(st.integers(1, 30))]
        elif kind == "repeat":
            data[place:place] = data[place : place + draw(st.integers(1, 60))]
        else:
            del data[place:]
    return bytes(data)


@st.composite
def structured(draw):
    """A well-formed message that says something else: other names, operators, attributes, dimensions."""
    model = onnx.ModelProto.FromString(draw(st.sampled_from(BASES)))
    graph = model.graph
    operators = sorted({schema.name for schema in onnx.defs.get_all_schemas()})
    for _ in range(draw(st.integers(1, 4))):
        node = draw(st.sampled_from(list(graph.node)))
        tensor = draw(st.sampled_from(list(graph.initializer)))
        kind = draw(st.sampled_from(KINDS))
        if kind == "op":
            node.op_type = draw(st.sampled_from(operators))
        elif kind in ("input", "output"):
            names = getattr(node, kind)
            if names:
                names[draw(st.integers(0, len(names) - 1))] = draw(NAMES)
        elif kind == "attribute" and node.attribute:
            mutate(draw, draw(st.sampled_from(list(node.attribute))))
        elif kind == "dims" and tensor.dims:
            tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(NUMBERS)
        elif kind == "entries":
            values = np.array(draw(st.lists(NUMBERS, min_size=1, max_size=5)), np.int64)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        elif kind == "type":
            tensor.data_type = draw(st.integers(0, 26))
        elif kind == "drop":
            graph.node.remove(node)
            if not graph.node:
                break
        elif kind == "twice":
            graph.node.append(node)
        elif kind == "shape" and graph.input[0].type.tensor_type.shape.dim:
            draw(st.sampled_from(list(graph.input[0].type.tensor_type.shape.dim))).dim_value = draw(NUMBERS)
    return model.SerializeToString()


def mutate(draw, attribute):
    if attribute.ints:
        attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(NUMBERS)
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw(NUMBERS)
    else:
        attribute.type = draw(st.integers(1, 14))


def understand(data, folder):
    """Read the file as the command line would without measuring; what is refused is refused in words."""
    path = Path(folder) / "net.onnx"
    path.write_bytes(data)
    signal.alarm(SECONDS)
    try:
        graph = to_graph(prepare(path, path.name, Settings()).program)
        assert verify(graph) == []
    except GradlintError as error:
        assert error.message
    finally:
        signal.alarm(0)


def within_limits(strategy, examples, failures):
    """In a process of its own: what kills it, or what it raises, is the parent's to report."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))

    def stop(*_):
        raise TimeoutError(f"a file took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    with tempfile.TemporaryDirectory() as folder:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def check(data):
            understand(data, folder)

        try:
            check()
        except BaseException:  # noqa: BLE001 the parent shows it
            failures.put(traceback.format_exc()[-6000:])


def fuzzed(strategy, examples):
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    worker = context.Process(target=within_limits, args=(strategy, examples, failures))
    worker.start()
    worker.join()
    assert failures.empty(), failures.get()
    assert worker.exitcode == 0, f"the process died: {worker.exitcode}"


def test_the_bases_are_understood(tmp_path):
    for data in BASES:
        path = tmp_path / "net.onnx"
        path.write_bytes(data)
        assert prepare(path, path.name, Settings()).program.unknown == ()


def test_changed_bytes_are_understood_or_refused():
    fuzzed(bytewise(), 250)


def test_changed_messages_are_understood_or_refused():
    fuzzed(structured(), 250)
