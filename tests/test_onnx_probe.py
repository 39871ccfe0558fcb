"""Measuring ONNX files: only once the converted graph gives onnxruntime's outputs, and then as any model."""

import sys
import warnings

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from gradlint.analysis import analyse
from gradlint.capture import capture
from gradlint.capture.written import to_graph
from gradlint.config import Settings
from gradlint.load.onnx_model import load
from gradlint.source.target import parse


def exported(model, x, path, **options):
    model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (x,), path, dynamo=False, opset_version=17, **options)
    return path


def chain(depth=10):
    torch.manual_seed(0)
    return nn.Sequential(
        *(layer for _ in range(depth) for layer in (nn.Linear(16, 16), nn.Sigmoid())), nn.Linear(16, 4)
    )


def report_of(path, **options):
    (report,) = analyse(parse(str(path)), Settings(seeds=1, **options))
    return report


def test_the_graph_that_is_run_is_the_graph_that_is_read(tmp_path):
    path = exported(chain(3), torch.randn(8, 16), tmp_path / "net.onnx")
    loaded = load(path, path.name, Settings())
    recorded, _ = capture(loaded.model, loaded.args)
    written = to_graph(loaded.model.program)

    def essence(graph):
        return [(op.kind, op.function, op.module_path, op.params, op.roles, dict(op.attrs)) for op in graph.ops]

    assert essence(recorded) == essence(written)
    assert {p: (q.rms, q.fan_in, q.moments) for p, q in recorded.params.items()} == {
        p: (q.rms, q.fan_in, q.moments) for p, q in written.params.items()
    }


def test_a_chain_is_confirmed_and_its_fix_is_measured(tmp_path):
    report = report_of(exported(chain(), torch.randn(8, 16), tmp_path / "net.onnx"))
    finding = next(f for f in report.findings if f.rule == "saturating-chain")
    assert (report.probe.ran, finding.severity, finding.verdict) == (True, "error", "confirmed")
    assert finding.fixes and not any(fix.changes for fix in finding.fixes)


def test_what_the_file_computes_otherwise_is_not_measured(tmp_path, monkeypatch):
    path = exported(chain(3), torch.randn(8, 16), tmp_path / "net.onnx")
    monkeypatch.setattr(
        "gradlint.load.program_module.resolve", lambda name: wrong if "sigmoid" in name else right(name)
    )
    report = report_of(path)
    assert not report.probe.ran
    assert "differs from onnxruntime's" in report.probe.reason
    assert all(finding.verdict == "not-probed" for finding in report.findings)


def wrong(x):
    return x.tanh()


def right(name):
    found = torch
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


def test_without_onnxruntime_nothing_is_measured_and_it_is_said(tmp_path, monkeypatch):
    path = exported(chain(3), torch.randn(8, 16), tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = report_of(path)
    assert not report.probe.ran
    assert "onnxruntime is not installed" in report.probe.reason


def test_norms_use_the_batch_in_train_mode_and_leave_the_file_alone(tmp_path):
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4))
    nn.init.uniform_(model[2].running_mean)
    path = exported(model, torch.randn(8, 16), tmp_path / "net.onnx", do_constant_folding=False)
    before = path.read_bytes()
    loaded = load(path, path.name, Settings())
    kept = {name: buffer.clone() for name, buffer in loaded.model.named_buffers()}
    graph, _ = capture(loaded.model, loaded.args)
    norm = next(op for op in graph.ops if op.kind == "norm")
    assert norm.attrs["batch_stats"] is True
    assert all(torch.equal(kept[name], buffer) for name, buffer in loaded.model.named_buffers())
    assert path.read_bytes() == before
    assert any("trained" in note for note in graph.coverage.notes)


def test_what_is_too_large_to_be_measured_is_still_read(tmp_path):
    report = report_of(exported(chain(), torch.randn(8, 16), tmp_path / "net.onnx"), memory=2**14)
    assert not report.probe.ran
    assert "raise --memory" in report.probe.reason
    assert "saturating-chain" in {finding.rule for finding in report.findings}


def info(name, *shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, list(shape))


def written(tmp_path, nodes, inputs, outputs, stored=()):
    graph = helper.make_graph(nodes, "net", inputs, outputs, list(stored))
    path = tmp_path / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_branch_that_the_data_choose_is_taken_during_the_run(tmp_path):
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32) * 2, "w")
    then = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["a"])], "then", [], [info("a", 3, 4)])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["b"])], "else", [], [info("b", 3, 4)])
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    path = written(tmp_path, nodes, [info("x", 3, 4)], [info("y", 3, 4)], [weight, zero])
    loaded = load(path, path.name, Settings())
    assert loaded.doubt() == ""
    x = torch.rand(3, 4)
    torch.testing.assert_close(loaded.model(x), 2 * x)
    torch.testing.assert_close(loaded.model(-x), x)


def test_a_shape_that_the_data_choose_is_computed_during_the_run(tmp_path):
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Transpose", ["places"], ["rows"], perm=[1, 0]),
        helper.make_node("GatherND", ["x", "rows"], ["kept"]),
        helper.make_node("Reshape", ["kept", "column"], ["y"]),
    ]
    column = numpy_helper.from_array(np.array([-1, 1], np.int64), "column")
    path = written(tmp_path, nodes, [info("x", 3, 4)], [info("y", None, 1)], [column])
    loaded = load(path, path.name, Settings())
    assert loaded.doubt() == ""


def test_a_forward_that_draws_is_not_compared(tmp_path):
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["noise"]), helper.make_node("Add", ["x", "noise"], ["y"])]
    loaded = load(written(tmp_path, nodes, [info("x", 3, 4)], [info("y", 3, 4)]), "net.onnx", Settings())
    assert "draws random numbers" in loaded.doubt()


@pytest.mark.parametrize("op", ["Frobnicate", "StringNormalizer"])
def test_an_operator_that_cannot_be_run_is_the_reason(tmp_path, op):
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node(op, ["h"], ["y"])]
    report = report_of(written(tmp_path, nodes, [info("x", 3, 4)], [info("y", 3, 4)]))
    assert report.status == "analysed"
    assert report.probe.reason == f"it cannot be run: {op} is not supported"
    assert report.unknown == ((f"onnx.{op}", 1),)
