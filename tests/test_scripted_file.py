"""TorchScript archives: linted like the model they were made of, and never a way to run code."""

import enum
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from gradlint.analysis import analyse
from gradlint.capture import capture
from gradlint.config import Settings
from gradlint.error import LoadError
from gradlint.graph.verify import verify
from gradlint.load import artefact, scripted_file, scripted_module
from gradlint.load.scripted_calls import call
from gradlint.source.target import parse


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.blocks = nn.Sequential(*[Block(8) for _ in range(3)])
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.blocks(torch.relu(self.stem(x))).mean((2, 3)))


class Branching(nn.Module):
    """An `if` on a value, one on a size, a loop over modules, one with a count, and an attribute that is set."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.norm = nn.LayerNorm(16)
        self.drop = nn.Dropout(0.1)
        self.rounds = 2
        self.seen = 0

    def forward(self, x, scale: float = 1.0):
        for layer in self.layers:
            if x.size(0) > 1:
                x = torch.tanh(layer(x)) * scale
        parts = []
        for i in range(self.rounds):
            x = self.norm(x) + i
            parts.append(x)
        if bool(x.sum() > 1e9):
            x = x * 0
        self.seen += 1
        return self.drop(torch.stack(parts).sum(0))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, tokens):
        output, _ = self.lstm(self.embedding(tokens))
        return self.head(output[:, -1])


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


def sigmoids():
    hidden = [layer for _ in range(12) for layer in (nn.Sigmoid(), nn.Linear(64, 64))]
    return nn.Sequential(nn.Linear(32, 64), *hidden, nn.Sigmoid(), nn.Linear(64, 10))


IMAGE, VECTOR = torch.randn(8, 3, 16, 16), torch.randn(8, 16)
MODELS = {
    "residual": (Residual, IMAGE, "input=float32[8,3,16,16]"),
    "recurrent": (Recurrent, torch.randint(0, 50, (8, 6)), "int64[8,6]<50"),
    "attending": (Attending, torch.randn(8, 6, 16), "float32[8,6,16]"),
    "sigmoids": (sigmoids, torch.randn(32, 32), "float32[32,32]"),
}
SAVED = [(name, how) for name in MODELS for how in ("traced", "scripted")] + [("branching", "scripted")]


def saved(name, how, folder):
    torch.manual_seed(0)
    build, example, _ = (Branching, VECTOR, "") if name == "branching" else MODELS[name]
    model = build()
    made = torch.jit.trace(model, example, check_trace=False) if how == "traced" else torch.jit.script(model)
    path = folder / f"{name}-{how}.pt"
    made.save(str(path))
    return path, model


def spec(name):
    return "float32[8,16]" if name == "branching" else MODELS[name][2].rpartition("=")[2]


def loaded(path, name, **more):
    return scripted_file.load(path, path.name, Settings(inputs=(spec(name),), **more))


@pytest.mark.parametrize(("name", "how"), SAVED)
def test_an_archive_computes_what_torchscript_does(name, how, tmp_path):
    path, model = saved(name, how, tmp_path)
    found = loaded(path, name)
    assert found.doubt() == ""
    assert [n for n, _ in found.model.named_parameters()] == [n for n, _ in model.named_parameters()]
    assert [n for n, _ in found.model.named_buffers()] == [n for n, _ in model.named_buffers()]
    graph, _ = capture(found.model, found.args, found.kwargs)
    assert verify(graph) == []
    assert graph.coverage.unknown == ()
    assert graph.coverage.method == "torchscript"


@pytest.mark.parametrize(("name", "how"), SAVED)
def test_gradients_are_those_of_the_original(name, how, tmp_path):
    path, model = saved(name, how, tmp_path)
    found = loaded(path, name)
    for module in (model, found.model):
        torch.manual_seed(1)
        module(*found.args).square().mean().backward()
    expected = {key: parameter.grad for key, parameter in model.named_parameters()}
    for key, parameter in found.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[key], msg=key)


@pytest.mark.parametrize(("name", "how"), [pair for pair in SAVED if pair[0] in ("residual", "attending", "recurrent")])
def test_operations_have_the_paths_of_the_original(name, how, tmp_path):
    path, model = saved(name, how, tmp_path)
    found = loaded(path, name)
    kinds = ("conv", "norm", "linear", "embedding", "recurrent")

    def placed(module):
        ops = capture(module, found.args)[0].ops
        return [(op.kind, op.module_path, op.module_type) for op in ops if op.kind in kinds]

    assert placed(found.model) == placed(model)


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


class Named(nn.Module):
    """Children with names that a module of gradlint's could have itself, an enumeration, and shared weights."""

    mode: Mode

    def __init__(self):
        super().__init__()
        self.shared = self.held = nn.Linear(16, 16)
        self.method = nn.Linear(16, 16)
        self.method.weight = self.shared.weight
        self.mode = Mode.SLOW

    def forward(self, x):
        if self.mode == Mode.FAST:
            return self.shared(x)
        return self.method(torch.relu(self.held(x)))


def test_names_enumerations_and_shared_weights_are_kept(tmp_path):
    path = tmp_path / "net.pt"
    model = Named()
    torch.jit.script(model).save(str(path))
    found = loaded(path, "branching")
    assert found.doubt() == ""
    assert [n for n, _ in found.model.named_parameters()] == [n for n, _ in model.named_parameters()]


def test_the_lines_are_those_of_the_source(tmp_path):
    path, _ = saved("branching", "scripted", tmp_path)
    found = loaded(path, "branching")
    graph, _ = capture(found.model, found.args)
    tanh = next(op for op in graph.ops if op.kind == "linear")
    assert Path(tanh.span.path).name == Path(__file__).name
    assert "layer(x)" in Path(__file__).read_text().splitlines()[tanh.span.line - 1]


def test_a_wrong_reading_is_noticed(tmp_path, monkeypatch):
    path, _ = saved("residual", "scripted", tmp_path)
    found = loaded(path, "residual")
    monkeypatch.setattr(scripted_module, "call", wrong)
    assert "differs from TorchScript's" in found.doubt()


def wrong(step, args):
    result = call(step, args)
    return result * 2 if step.kind == "aten::relu" else result


def worst(report):
    return {(f.rule, f.severity, f.verdict) for f in report.findings if f.stands}


@pytest.mark.parametrize("how", ["traced", "scripted"])
def test_findings_are_those_of_the_python_model(how, tmp_path):
    path, _ = saved("sigmoids", how, tmp_path)
    source = tmp_path / "net.py"
    source.write_text(
        "from torch import nn\n\n"
        "hidden = [layer for _ in range(12) for layer in (nn.Sigmoid(), nn.Linear(64, 64))]\n"
        "model = nn.Sequential(nn.Linear(32, 64), *hidden, nn.Sigmoid(), nn.Linear(64, 10))\n"
    )
    settings = Settings(inputs=("float32[32,32]",), fix=False)
    (own,) = analyse(parse(f"{source}:model"), settings)
    (theirs,) = analyse(parse(str(path)), settings)
    assert theirs.probe.ran
    assert worst(theirs) == worst(own)
    assert "saturating-chain" in {rule for rule, _, _ in worst(theirs)}


class Flattening(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 5)
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.head = nn.Linear(4 * 24 * 24, 10)

    def forward(self, x):
        return self.head(torch.flatten(self.up(nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)), 1))


@pytest.mark.parametrize("how", ["traced", "scripted"])
def test_inputs_are_found_without_being_told(how, tmp_path):
    path, model = tmp_path / "net.pt", Flattening()
    made = torch.jit.script(model) if how == "scripted" else torch.jit.trace(model, torch.randn(2, 1, 28, 28))
    made.save(str(path))
    found = scripted_file.load(path, path.name, Settings())
    assert found.args[0].shape[1:] == (1, 28, 28)
    assert found.doubt() == ""
    assert [used.source for used in found.inputs] == ["guessed"]


def test_an_archive_saved_in_eval_mode_is_trained(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.script(Residual().eval()).save(str(path))
    found = loaded(path, "residual")
    assert "saved in eval mode" in " ".join(found.notes)
    before = {name: buffer.clone() for name, buffer in found.model.named_buffers()}
    graph, _ = capture(found.model, found.args)
    assert all(op.attrs["batch_stats"] for op in graph.ops if op.kind == "norm")
    assert all(torch.equal(buffer, before[name]) for name, buffer in found.model.named_buffers())


def test_a_frozen_archive_is_refused(tmp_path):
    path = tmp_path / "net.pt"
    torch.jit.freeze(torch.jit.script(Residual().eval())).save(str(path))
    with pytest.raises(LoadError, match="frozen"):
        loaded(path, "residual")


def test_a_checkpoint_is_no_archive(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(Residual().state_dict(), path)
    with pytest.raises(LoadError, match="holds weights or a pickle"):
        artefact.check(parse(str(path)))


def rewritten(path, change):
    new = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as archive:
        for entry in old.infolist():
            archive.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return new


HOSTILE = {
    "writes": lambda text: text.replace(b"torch.relu(", b'torch.save(x, "stolen"); torch.relu(', 1),
    "state": lambda text: text + b"  def __setstate__(self,\n    state: int) -> NoneType:\n    return None\n",
    "foreign": lambda text: text.replace(b"torch.relu(", b"ops.other.relu(", 1),
    "nested": lambda text: text.replace(b"torch.relu(", b"(" * 5000 + b"torch.relu(", 1),
    "garbage": lambda text: b"\xff\xfe" + text[::-1],
    "cut": lambda text: text[: len(text) // 2],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_gets_one_message(name, tmp_path):
    path, _ = saved("residual", "traced", tmp_path)
    path = rewritten(path, lambda entry, data: HOSTILE[name](data) if entry.endswith(".py") else data)
    with pytest.raises(LoadError) as caught:
        loaded(path, "residual")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("entry", ["data.pkl", "constants.pkl", "data/0", "version"])
@pytest.mark.parametrize("data", [b"", b"\x80\x02", bytes(64)])
def test_a_damaged_entry_gets_one_message_or_none(entry, data, tmp_path):
    path, _ = saved("residual", "scripted", tmp_path)
    path = rewritten(path, lambda name, old: data if name.endswith("/" + entry) else old)
    done = subprocess.run(
        [sys.executable, "-m", "gradlint", str(path), "--input", "float32[8,3,16,16]", "--no-try-fixes"],
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 2, done.stdout + done.stderr


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_truncated_archive_is_refused(share, tmp_path):
    path, _ = saved("residual", "scripted", tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(LoadError, match=r"residual-scripted\.pt"):
        artefact.check(parse(str(path)))


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path):
    path, _ = saved("residual", "scripted", tmp_path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("residual-scripted/data/999", bytes(200 * 2**20))
    with pytest.raises(LoadError, match="would unpack to"):
        loaded(path, "residual")


def test_the_command_line_reads_an_archive(tmp_path):
    path, _ = saved("sigmoids", "traced", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "gradlint", str(path), "--no-try-fixes", "--output-format", "concise"],
        capture_output=True,
        text=True,
    )
    assert "saturating-chain" in done.stdout
    assert done.returncode == 1, done.stdout + done.stderr
