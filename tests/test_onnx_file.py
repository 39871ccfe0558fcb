"""Reading ONNX files: what is refused, in which words, and that nothing is executed or read from elsewhere."""

import struct

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gradlint.error import LoadError
from gradlint.onnx.file import read


def tensor(name, *shape, value=None):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32) if value is None else np.asarray(value)
    return numpy_helper.from_array(array, name)


def model(nodes, inputs, outputs, stored=(), opset=17, **more):
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(stored))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **more)


def info(name, *shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, list(shape))


def perceptron():
    nodes = [
        helper.make_node("Gemm", ["x", "fc.weight", "fc.bias"], ["h"], "fc", transB=1),
        helper.make_node("Sigmoid", ["h"], ["y"], "act"),
    ]
    return model(nodes, [info("x", 4, 8)], [info("y", 4, 3)], [tensor("fc.weight", 3, 8), tensor("fc.bias", 3)])


def written(tmp_path, net, name="net.onnx"):
    path = tmp_path / name
    path.write_bytes(net if isinstance(net, bytes) else net.SerializeToString())
    return path


def refused(path):
    with pytest.raises(LoadError) as caught:
        read(path, path.name)
    return caught.value.message


def test_a_well_formed_file_is_read(tmp_path):
    assert read(written(tmp_path, perceptron())).model.graph.name == "net"


@pytest.mark.parametrize("data", [b"", b"\x00", b"not protobuf at all", bytes(range(256)) * 40])
def test_what_is_no_protobuf_is_refused(tmp_path, data):
    assert "net.onnx" in refused(written(tmp_path, data))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path, share):
    whole = perceptron().SerializeToString()
    assert "net.onnx" in refused(written(tmp_path, whole[: int(len(whole) * share)]))


@pytest.mark.parametrize("dims", [[-3, 8], [3, 9], [2**40, 2**40], [2**62]])
def test_dimensions_that_do_not_fit_the_data_are_refused(tmp_path, dims):
    net = perceptron()
    net.graph.initializer[0].dims[:] = dims
    assert "'fc.weight'" in refused(written(tmp_path, net))


def test_an_operator_set_that_onnx_does_not_know_is_refused(tmp_path):
    net = perceptron()
    net.opset_import[0].version = 999
    assert "operator set 999" in refused(written(tmp_path, net))


def external(tmp_path, location, length=None, offset=0):
    net = perceptron()
    weight = net.graph.initializer[0]
    data = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    stated = {"location": location, "offset": str(offset), "length": str(len(data) if length is None else length)}
    for key, value in stated.items():
        weight.external_data.add(key=key, value=value)
    return net, data


def test_external_data_are_read_from_beside_the_file(tmp_path):
    net, data = external(tmp_path, "net.data")
    (tmp_path / "net.data").write_bytes(data)
    file = read(written(tmp_path, net))
    found = file.array(file.model.graph.initializer[0])
    assert found.tobytes() == data
    assert found.shape == (3, 8)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "a/../../secret", "..\\secret", "", "link"])
def test_external_data_outside_the_folder_are_refused(tmp_path, location):
    inside = tmp_path / "models"
    inside.mkdir()
    (tmp_path / "secret").write_bytes(b"x" * 96)
    (inside / "link").symlink_to(tmp_path / "secret")
    net, _ = external(inside, location)
    assert "outside the model's folder" in refused(written(inside, net))


@pytest.mark.parametrize(("length", "offset"), [(None, 1), (None, -1), (95, 0), (2**60, 0), ("many", 0)])
def test_external_data_that_do_not_fit_are_refused(tmp_path, length, offset):
    net, data = external(tmp_path, "net.data", length, offset)
    (tmp_path / "net.data").write_bytes(data)
    assert "'fc.weight'" in refused(written(tmp_path, net))


def test_external_data_that_are_missing_are_named(tmp_path):
    net, _ = external(tmp_path, "net.data")
    assert "net.data, which is not there" in refused(written(tmp_path, net))


def test_a_function_that_calls_itself_is_refused(tmp_path):
    body = [helper.make_node("Again", ["a"], ["b"], domain="own")]
    function = helper.make_function("own", "Again", ["a"], ["b"], body, [helper.make_opsetid("own", 1)])
    net = model([helper.make_node("Again", ["x"], ["y"], domain="own")], [info("x", 4)], [info("y", 4)])
    net.opset_import.append(helper.make_opsetid("own", 1))
    net.functions.append(function)
    assert "calls itself" in refused(written(tmp_path, net))


def test_functions_that_expand_without_end_are_refused(tmp_path):
    """Each calls the one before twice: 2⁴⁰ nodes in a file of a few kilobytes."""
    own = helper.make_opsetid("own", 1)
    functions = [helper.make_function("own", "f0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], [own])]
    for level in range(1, 40):
        twice = [
            helper.make_node(f"f{level - 1}", ["a"], ["m"], domain="own"),
            helper.make_node(f"f{level - 1}", ["m"], ["b"], domain="own"),
        ]
        functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], twice, [own]))
    net = model([helper.make_node("f39", ["x"], ["y"], domain="own")], [info("x", 4)], [info("y", 4)])
    net.opset_import.append(own)
    net.functions.extend(functions)
    assert "expand to more than" in refused(written(tmp_path, net))


def test_a_length_that_promises_more_than_the_file_has_is_refused(tmp_path):
    assert refused(written(tmp_path, b"\x3a" + struct.pack("<I", 0xFFFFFFFF) + b"x"))


def test_sizes_of_every_stored_type_are_known():
    from gradlint.onnx.file import bits_of

    for number, name in [(i, onnx.TensorProto.DataType.Name(i)) for i in range(1, 24)]:
        if name != "STRING":
            assert bits_of(number) > 0, name
