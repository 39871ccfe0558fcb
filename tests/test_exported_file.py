"""Exported programs (.pt2): linted like the model they were made of, and never a way to run code."""

import contextlib
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from gradlint.analysis import analyse, analyse_model
from gradlint.capture import capture
from gradlint.config import Settings
from gradlint.error import GradlintError, LoadError
from gradlint.graph.verify import verify
from gradlint.load.exported_archive import check
from gradlint.load.exported_file import load
from gradlint.load.model import LoadedModel
from gradlint.probe import measure
from gradlint.source.target import parse


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    torch.manual_seed(0)
    torch.export.save(torch.export.export(Net().train(), (torch.randn(8, 3, 8, 8),)), path)
    return path


def rewritten(saved, tmp_path, change):
    """The archive with `change(name, data)` for each entry; None drops it."""
    path = tmp_path / "changed.pt2"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            data = change(entry.filename, old.read(entry))
            if data is not None:
                new.writestr(entry.filename, data)
    return path


def refused(path):
    with pytest.raises(LoadError) as caught:
        load(path, path.name, Settings())
    return caught.value.message


def test_a_program_is_known_by_paths_roles_and_lines(saved):
    loaded = load(saved, saved.name, Settings())
    graph, _ = capture(loaded.model, loaded.args)
    assert verify(graph) == []
    found = [(op.kind, op.module_path, op.module_type) for op in graph.ops if op.kind in ("conv", "norm", "linear")]
    assert found == [
        ("conv", "features.0", "Conv2d"),
        ("norm", "features.1", "BatchNorm2d"),
        ("linear", "head", "Linear"),
    ]
    assert {Path(op.span.path).name for op in graph.ops if op.kind == "conv"} == {Path(__file__).name}
    assert graph.coverage.unknown == ()


def test_a_program_is_measured_with_places(saved):
    loaded = load(saved, saved.name, Settings())
    graph, measured = measure(loaded)
    assert all(param.status == "ok" for path, param in measured.params.items() if path == "head.weight")
    assert {op.module_path for op in graph.ops} >= {"features.0", "head"}


def test_seeds_give_other_inputs_of_the_same_shape(saved):
    loaded = load(saved, saved.name, Settings())
    (first,), (second,) = loaded.draw(1)[0], loaded.draw(2)[0]
    assert first.shape == second.shape == (8, 3, 8, 8)
    assert not torch.equal(first, second)


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


@pytest.mark.parametrize("entry", ["sample_inputs", "constants"])
def test_a_pickle_is_never_run(saved, tmp_path, monkeypatch, entry):
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save(Bomb(), buffer)

    def change(name, data):
        inside = f"/{entry}/" in name and not name.endswith("json")
        return buffer.getvalue() if inside or name.endswith(".pt") else data

    path = rewritten(saved, tmp_path, change)
    with contextlib.suppress(GradlintError):
        load(path, path.name, Settings())
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "executed").exists(), "the test's own pickle does nothing"


def edited(saved, tmp_path, old, new):
    def change(name, data):
        if "/models/" not in name or not name.endswith(".json"):
            return data
        assert old in data
        return data.replace(old, new)

    return rewritten(saved, tmp_path, change)


@pytest.mark.parametrize(
    "target", [b"torch.hub.load", b"torch.serialization.os.system", b"_operator.x.y", b"os.system"]
)
def test_a_call_of_anything_but_an_operator_is_refused(saved, tmp_path, target):
    path = edited(saved, tmp_path, b"torch.ops.aten.relu.default", target)
    assert "no operator of torch's" in refused(path)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "s0.__class__",
        "[x for x in s0]",
        "(lambda: 1)()",
        "s0['a']",
        "s0 if s1 else s2 or f'{s0}'",
    ],
)
def test_a_size_that_is_no_arithmetic_is_refused(tmp_path, text):
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/models/model.json", json.dumps({"range": {"expr_str": text}}))
    assert "no arithmetic" in refused(path)


@pytest.mark.parametrize("text", ["s0", "2*s0 + 1", "FloorDiv(s0, 2)", "Max(1, s77 - 3)", "Eq(s0, 4) & (s1 > 2)"])
def test_sizes_that_are_arithmetic_pass(tmp_path, text):
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/models/model.json", json.dumps({"expr_str": text}))
    check(path, path.name)


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path):
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("net/models/model.json", b"{}")
        archive.writestr("net/data/weights/weight_0", bytes(200 * 2**20))
    assert path.stat().st_size < 2**20
    assert "would unpack to" in refused(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"not a zip", bytes(5000)])
def test_what_is_no_archive_is_refused(tmp_path, data):
    path = tmp_path / "net.pt2"
    path.write_bytes(data)
    assert "net.pt2" in refused(path)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_archive_is_refused(saved, tmp_path, share):
    path = tmp_path / "net.pt2"
    path.write_bytes(saved.read_bytes()[: int(saved.stat().st_size * share)])
    assert "net.pt2" in refused(path)


def test_a_deeply_nested_description_is_refused(tmp_path):
    path = tmp_path / "net.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/models/model.json", b"[" * 100_000 + b"]" * 100_000)
    assert "net.pt2" in refused(path)


def test_targets_of_finished_models_are_told_by_their_suffix():
    assert [parse(name).form for name in ("a.py", "a.py:Net()")] == ["", ""]
    assert parse(__file__).form == ""


def test_a_traced_graph_keeps_the_places_of_its_nodes():
    graph, recording = capture(torch.fx.symbolic_trace(Net()), (torch.randn(8, 3, 8, 8),))
    assert recording.method == "fx"
    assert [op.module_path for op in graph.ops if op.kind in ("conv", "norm", "linear")] == [
        "features.0",
        "features.1",
        "head",
    ]


def residual():
    block = [layer for _ in range(3) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
    return nn.Sequential(nn.Conv2d(3, 8, 3), *block, nn.Flatten(), nn.Linear(8 * 36, 4))


def sigmoids():
    hidden = [layer for _ in range(10) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
    return nn.Sequential(*hidden, nn.Linear(32, 5))


def squashed():
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4), nn.Softmax(-1))


def attending():
    return nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), nn.Linear(16, 5))


@pytest.mark.parametrize(
    ("build", "shape"),
    [(residual, (8, 3, 8, 8)), (sigmoids, (8, 32)), (squashed, (8, 16)), (attending, (8, 6, 16))],
)
def test_findings_are_those_of_the_python_model(build, shape, tmp_path):
    torch.manual_seed(0)
    model, path = build(), tmp_path / "net.pt2"
    spec = f"float32{list(shape)}".replace(" ", "")
    loaded = LoadedModel(model, (torch.randn(shape),), {}, (), "", None, None, lambda seed: ((torch.randn(shape),), {}))
    settings = Settings(inputs=(spec,), fix=False, loss="ce" if len(shape) < 3 else None)
    own = analyse_model("net", None, loaded, settings)
    torch.export.save(torch.export.export(model, (torch.randn(shape),)), path)
    (theirs,) = analyse(parse(str(path)), settings)
    assert theirs.probe.ran
    assert [(f.rule, f.severity) for f in theirs.findings if f.stands] == [
        (f.rule, f.severity) for f in own.findings if f.stands
    ]
