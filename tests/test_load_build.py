"""How a model is built: by the file's own calls, with what it states, with guesses; and what user code may not do."""

import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from gradlint.error import LoadError, UsageError
from gradlint.load.build import build
from gradlint.load.construct import parsed_overrides
from gradlint.load.environment import place, surroundings
from gradlint.load.guess import guess
from gradlint.source.models import find_expression, find_models
from gradlint.source.names import parents
from gradlint.source.text import read

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width, num_classes):
        super().__init__()
        self.fc = nn.Linear(width, num_classes)
    def forward(self, x):
        return self.fc(x)
"""


LATER = """
from dataclasses import dataclass
from torch import nn

@dataclass(frozen=True)
class Config:
    dim: int = 12
    vocab_size: int = -1  # defined later by the tokenizer
    pad_id: int = -1

class Net(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.table = nn.Embedding(config.vocab_size, config.dim)
    def forward(self, x):
        return self.table(x)
"""


@pytest.fixture
def built(tmp_path):
    """Build the first model of a file, or an expression in it."""

    def make(text, expression="", **options):
        path = tmp_path / "model.py"
        path.write_text(textwrap.dedent(text))
        source = read(path)
        candidate = find_expression(source, expression) if expression else find_models(source)[0]
        with surroundings(place(source.path)) as session:
            return build(candidate, source, place(source.path), session, **options)

    yield make
    for name in ("model", "_gradlint_model"):
        sys.modules.pop(name, None)


def size(found):
    return found.model.fc.in_features, found.model.fc.out_features


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("model = Net(7, 3)", "model"),
        ("def check():\n    Net(7, 3)(torch.zeros(2, 7))", "Net(7, 3)"),
        ("if __name__ == '__main__':\n    net = Net(width=7, num_classes=3).to('cpu')", "Net(width=7, num_classes=3)"),
        ("W = 7\ndef run(n=3):\n    w = W\n    m = Net(w, n)", "Net(w, n)"),
        ("def main():\n    go(7, classes=3)\ndef go(w, classes):\n    m = Net(w, classes)", "Net(w, classes)"),
        ("cfg = dict(width=7, num_classes=3)\nmodel = Net(**cfg)", "model"),
    ],
)
def test_the_files_own_call_is_followed(built, text, name):
    found = built(NET + text + "\n")
    assert (size(found), found.name, found.notes) == ((7, 3), name, ())


@pytest.mark.parametrize(
    "text",
    [
        "import argparse\np = argparse.ArgumentParser()\np.add_argument('--width', default=7)\n"
        "p.add_argument('--num-classes', default=3, type=int)\nargs = p.parse_args()\n"
        "def main():\n    m = Net(args.width, args.num_classes)",
        "WIDTH, NUM_CLASSES = 7, 3",
        "CONFIG = {'width': 7, 'num_classes': 3}",
        "from dataclasses import dataclass\n@dataclass\nclass Config:\n    width: int = 7\n    num_classes: int = 3",
    ],
)
def test_arguments_that_the_file_states_are_taken(built, text):
    assert size(built(NET + text + "\n")) == (7, 3)


def test_what_nobody_states_is_guessed_and_noted(built):
    found = built(NET)
    assert size(found) == (64, 10)
    assert found.notes == ("guessed: width=64, num_classes=10",)
    assert found.name == "Net(width=64, num_classes=10)"


def test_an_argument_read_from_data_is_guessed_and_the_others_kept(built):
    text = NET + "data = torch.load('missing.pt')\nmodel = Net(7, len(data.classes))\n"
    found = built(text)
    assert size(found) == (7, 10)
    assert found.notes == ("guessed: num_classes=10",)


def test_the_users_arguments_win(built):
    assert size(built(NET + "model = Net(7, 3)\n", overrides=parsed_overrides(["num_classes=5"]))) == (7, 5)
    with pytest.raises(UsageError, match="no such argument"):
        built(NET, overrides={"depth": 3})
    with pytest.raises(UsageError, match="cannot read"):
        parsed_overrides(["num_classes"])


def test_expressions_are_evaluated_in_the_files_namespace(built):
    assert size(built(NET + "W = 5\n", "Net(W, num_classes=W + 1)")) == (5, 6)
    assert size(built(NET + "def main():\n    inner = Net(2, 9)\n", "inner")) == (2, 9)
    assert size(built(NET, "Net")) == (64, 10)


def test_a_configuration_that_is_not_there_is_guessed_field_by_field(built):
    text = NET.replace("width, num_classes)", "config)", 1).replace(
        "(width, num_classes)", "(config.n_embd, config['n_class'])"
    )
    found = built(text)
    assert size(found) == (64, 10)
    assert "n_embd=64" in found.notes[0]


def test_a_guess_that_is_rejected_is_replaced(built):
    text = NET.replace(
        "self.fc = nn.Linear(width, num_classes)", "assert width == 8, width\n        self.fc = nn.Linear(8, 8)"
    )
    assert built(text).notes == ("guessed: width=8, num_classes=10",)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_classes", 10),
        ("in_channels", 3),
        ("hidden_dim", 64),
        ("vocab_size", 1000),
        ("dropout", 0.1),
        ("n_heads", 4),
        ("bias", True),
        ("num_layers", 2),
        ("img_size", 32),
        ("kernel_size", 3),
        ("latent_dim", 32),
        ("seq_len", 64),
    ],
)
def test_guesses_go_by_the_name(name, value):
    assert guess(name) == value


def test_annotations_overrule_names():
    assert guess("depth", None, "list[int]") == (2, 2, 2, 2)
    assert guess("anything", None, "bool") is False
    assert guess("hidden", None, "float") == 64


def test_the_weights_depend_on_the_seed_alone_and_the_generator_is_left_alone(built):
    before = torch.get_rng_state()
    one, two, three = built(NET, seed=1), built(NET, seed=1), built(NET, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.model.fc.weight, two.model.fc.weight)
    assert not torch.equal(one.model.fc.weight, three.model.fc.weight)


@pytest.mark.parametrize("text", ["", "model = Net(7, 3)\n", "def make():\n    return Net(7, 3)\n"])
def test_rebuilding_gives_a_new_model_with_new_weights(built, text):
    found = built(NET + text)
    torch.manual_seed(1)  # the caller says which weights are drawn; another test may have left the seed of the first
    again = found.rebuild()
    assert again is not found.model
    assert again.fc.weight.shape == found.model.fc.weight.shape
    assert not torch.equal(again.fc.weight, found.model.fc.weight)


def test_wrappers_are_taken_off(built):
    assert size(built(NET + "model = nn.DataParallel(Net(7, 3))\n")) == (7, 3)
    found = built(NET + "def make():\n    net = Net(7, 3)\n    return net, 'optimizer'\n")
    assert size(found) == (7, 3)
    assert "returns several values" in found.notes[0]


def test_a_plain_function_is_a_model_when_asked_for(built):
    found = built("import torch\ndef f(x, y=2):\n    return x * y\n", "f")
    assert found.model(torch.ones(1)).item() == 2


def test_an_error_names_the_users_line_type_and_words(built):
    text = NET.replace("self.fc =", "raise ValueError('width is odd')\n        self.fc =")
    with pytest.raises(LoadError, match=r"cannot build Net: ValueError: width is odd") as caught:
        built(text)
    assert caught.value.span.line == 8
    assert "Net(width=64, num_classes=10)" in caught.value.hint


def test_a_missing_library_that_the_model_does_not_use_is_left_out(built):
    found = built(
        "import not_installed_at_all\nfrom not_installed_at_all.sub import thing\n" + NET + "    log = thing\n"
    )
    assert "not installed, so left out: not_installed_at_all" in found.notes
    with pytest.raises(LoadError, match=r"not_installed_at_all\.Layer, which is not installed"):
        built(NET.replace("nn.Linear(width", "not_installed_at_all.Layer(width") + "import not_installed_at_all\n")


def test_an_installed_library_that_is_broken_is_left_out(built, tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "half_broken_library"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from . import _native\nanswer = 3\n")
    (package / "_native.py").write_text("raise RuntimeError('built for another torch')\n")
    monkeypatch.syspath_prepend(str(package.parent))
    found = built("import half_broken_library\n" + NET + "model = Net(7, half_broken_library.answer)\n")
    assert size(found) == (7, 3)
    assert "left out: half_broken_library._native (RuntimeError: built for another torch)" in found.notes[0]


def test_the_surroundings_are_restored(built, capfd):
    path, folder, arguments = list(sys.path), Path.cwd(), list(sys.argv)
    text = "import os, sys\nos.chdir('/')\nsys.path.append('x')\nsys.argv.clear()\nprint('noise')\n" + NET
    built(text.replace("self.fc", "print('more noise')\n        self.fc", 1))
    assert (sys.path, Path.cwd(), sys.argv) == (path, folder, arguments)
    assert capfd.readouterr().out == ""


def test_a_file_may_be_called_like_a_library_and_import_its_neighbours(tmp_path):
    (tmp_path / "parts.py").write_text("width = 5\n")
    path = tmp_path / "random.py"
    path.write_text("from parts import width\n" + NET + "model = Net(width, 3)\n")
    source = read(path)
    with surroundings(place(source.path)) as session:
        found = build(find_models(source)[0], source, place(source.path), session)
    assert size(found) == (5, 3)
    assert sys.modules["random"].__file__ != str(path)


def test_relative_imports_work_in_a_package_whose_init_fails(tmp_path):
    package = tmp_path / "some_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError\n")
    (package / "parts.py").write_text("width = 5\n")
    (package / "net.py").write_text("from .parts import width\n" + NET + "model = Net(width, 3)\n")
    source = read(package / "net.py")
    with surroundings(place(source.path)) as session:
        found = build(find_models(source)[0], source, place(source.path), session)
    assert size(found) == (5, 3)


def test_what_does_not_fit_the_memory_is_built_on_meta(built):
    found = built(NET + "model = Net(100_000, 1000)\n", memory=10 * 2**20)
    assert found.model.fc.weight.is_meta
    assert "on meta" in found.notes[0]
    assert not built(NET).model.fc.weight.is_meta


def test_an_accelerator_that_is_not_there_is_the_cpu():
    from gradlint.load.devices import on_cpu

    with on_cpu() as mode:
        torch.device("cuda")
        assert not mode.moved
        layer = nn.Linear(2, 2).cuda().to("cuda:0")
        made = [
            layer.weight,
            torch.zeros(2, device="cuda"),
            torch.ones(2).to(torch.device("cuda")),
            torch.cuda.FloatTensor(2),
        ]
        assert {t.device.type for t in made} == {"cpu"}
        assert mode.moved
        assert torch.cuda.current_device() == 0


def test_pretrained_weights_are_not_fetched():
    from gradlint.load.downloads import offline

    with offline() as downloads:
        state = torch.hub.load_state_dict_from_url("https://example.org/resnet18-f37072fd.pth")
        layer = nn.Linear(2, 2)
        before = layer.weight.clone()
        layer.load_state_dict(state)
        assert torch.equal(layer.weight, before)
        assert "resnet18-f37072fd.pth" in downloads.notes()[0]


def test_a_depth_is_one_that_the_class_asserts(built):
    text = """
    from torch import nn

    class WideResNet(nn.Module):
        def __init__(self, depth, widen_factor=1):
            super().__init__()
            assert (depth - 4) % 6 == 0
            self.layers = nn.Sequential(*(nn.Linear(4, 4) for _ in range((depth - 4) // 6)))

        def forward(self, x):
            return self.layers(x)
    """
    assert len(built(text).model.layers) == 1


def test_a_padding_index_lies_in_the_table(built):
    text = """
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self, n_src_vocab, src_pad_idx):
            super().__init__()
            self.table = nn.Embedding(n_src_vocab, 4, padding_idx=src_pad_idx)

        def forward(self, x):
            return self.table(x)
    """
    found = built(text).model.table
    assert (found.num_embeddings, found.padding_idx) == (1000, 0)


def test_a_size_that_is_asked_of_what_is_not_here_is_guessed_by_its_name(built):
    text = """
    import an_environment_that_is_not_installed as gym
    from torch import nn

    env = gym.make("CartPole-v0")
    N_ACTIONS = env.action_space.n
    N_STATES = env.observation_space.shape[0]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(N_STATES, N_ACTIONS)

        def forward(self, x):
            return self.fc(x)
    """
    found = built(text)
    assert size(found) == (guess("n_states"), guess("n_actions"))
    assert f"guessed: N_STATES={guess('n_states')}" in found.notes


def test_a_size_that_the_configuration_leaves_for_later_is_guessed(built):
    found = built(LATER)
    assert found.model.table.weight.shape == (guess("vocab_size"), 12)
    assert found.model.config.pad_id == -1
    assert f"guessed: config.vocab_size={guess('vocab_size')}" in found.notes


def test_a_record_that_a_parameter_is_annotated_with_is_filled_field_by_field(built):
    text = LATER.replace("dim: int = 12", "dim: int").replace("vocab_size: int = -1", "vocab_size: int")
    found = built(text.replace("config: Config", "dims: Config").replace("config", "dims"))
    assert found.model.table.weight.shape == (guess("vocab_size"), guess("dim"))


def test_relative_imports_work_in_folders_without_an_init_file(tmp_path):
    folder = tmp_path / "models_of_mine"
    folder.mkdir()
    (folder / "blocks.py").write_text("from torch import nn\nclass Own(nn.Linear): pass\n")
    (folder / "net.py").write_text("from .blocks import Own\nmodel = Own(3, 2)\n")
    source = read(folder / "net.py")
    where = place(source.path, parents(source.tree))
    assert (where.name, where.root) == ("models_of_mine.net", tmp_path)
    with surroundings(where) as session:
        found = build(find_models(source)[0], source, where, session)
    assert type(found.model).__name__ == "Own"


def test_why_a_model_of_the_file_cannot_be_defined_is_what_is_reported(built):
    text = "import no_such_library\nfrom torch import nn\nclass Model(no_such_library.Base, nn.Module):\n"
    text += "    def forward(self, x):\n        return x\nmodel = Model(3)\n"
    with pytest.raises(LoadError, match="no_such_library"):
        built(text)


def test_a_model_s_own_configuration_class_makes_its_configuration(built):
    text = """
    from torch import nn

    class Sizes:
        def __init__(self, width=7):
            self.width = width

    class Net(nn.Module):
        config_class = Sizes
        def __init__(self, config):
            super().__init__()
            assert isinstance(config, self.config_class)
            self.fc = nn.Linear(config.width, 3)
        def forward(self, x):
            return self.fc(x)
    """
    assert size(built(text)) == (7, 3)


def test_a_module_called_like_its_package_does_not_hide_it(tmp_path):
    package = tmp_path / "wide_net"
    package.mkdir()
    (package / "__init__.py").write_text("from wide_net.wide_net import WIDTH\n")
    (package / "wide_net.py").write_text("WIDTH = 7\n")
    text = NET + "from wide_net.wide_net import WIDTH\nmodel = Net(WIDTH, 3)\n"
    (package / "other.py").write_text(text)
    source = read(package / "other.py")
    with surroundings(place(source.path)) as session:
        found = build(find_models(source)[0], source, place(source.path), session)
    for name in ("wide_net", "wide_net.wide_net", "wide_net.other"):
        sys.modules.pop(name, None)
    assert size(found) == (7, 3)


def test_packages_below_the_working_directory_are_found(tmp_path, monkeypatch):
    (tmp_path / "parts_beside").mkdir()
    (tmp_path / "parts_beside" / "layers.py").write_text("from torch import nn\nclass Own(nn.Linear): pass\n")
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "train.py"
    script.write_text("from parts_beside.layers import Own\nmodel = Own(3, 2)\n")
    monkeypatch.chdir(tmp_path)
    source, where = read(script), place(script)
    with surroundings(where) as session:
        found = build(find_models(source)[0], source, where, session)
    assert type(found.model).__name__ == "Own"
    assert where.is_user(str(tmp_path / "parts_beside" / "layers.py"))
    assert not where.is_user(str(tmp_path / ".venv" / "lib" / "site-packages" / "torch" / "nn.py"))


FIELDS = """
from torch import nn
from blocks import Embed, smoothed

class Net(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.task = cfg.task
        if self.task == "imputation":
            raise NotImplementedError(self.task)
        self.embed = Embed(cfg.freq, cfg.kind)
        self.smooth = smoothed(cfg.moving_avg)
        self.convs = nn.ModuleList(
            nn.Conv1d(cfg.width, cfg.width, k, dilation=d[1]) for k, d in zip(cfg.kernel_sizes, cfg.spread)
        )
        self.vocabulary = cfg.n_vocab
        self.pretrained = cfg.pretrained_vectors
        if cfg.pretrained_vectors is not None:
            self.pretrained = nn.Embedding.from_pretrained(cfg.pretrained_vectors)
    def forward(self, x):
        return self.embed.fc(x) if self.task == "forecast" else None

class Config:
    def __init__(self, folder):
        self.classes = open(folder).read()
        self.n_vocab = 0
        self.width = self.classes.width if self.classes else 24
"""

BLOCKS = """
from torch import nn

def smoothed(kernel_size):
    return nn.AvgPool1d(kernel_size, 1)

class Embed(nn.Module):
    def __init__(self, freq, kind="fixed"):
        super().__init__()
        assert kind == "fixed" or kind == "learned"
        self.fc = nn.Linear({"h": 4, "t": 5}[freq], 8)
"""


def test_the_fields_of_a_configuration_are_guessed_by_what_is_done_with_them(built, tmp_path):
    (tmp_path / "blocks.py").write_text(BLOCKS)
    model = built(FIELDS).model
    assert model.task == "forecast"
    assert model.embed.fc.in_features == 4
    assert model.smooth.kernel_size == (guess("kernel_size"),), "its name says nothing, that of where it goes does"
    assert {conv.in_channels for conv in model.convs} == {24}
    assert all(type(conv.dilation[0]) is int for conv in model.convs)
    assert model.pretrained is None
    assert model.vocabulary == guess("n_vocab"), "none is stated only until the data are read"


def test_what_a_factory_makes_is_linted_where_the_factory_cannot_be_called(built):
    found = built(f"{NET}\ndef build_model(tensors):\n    return Net(dict(tensors)['a.weight'].shape[1], 3)\n")
    assert size(found) == (64, 10)
    assert any("build_model cannot be called" in note for note in found.notes)


def test_arguments_that_are_passed_on_to_a_base_are_guessed_as_well(built):
    found = built(
        f"{NET}\nclass Wide(Net):\n    def __init__(self, scale, **rest):\n        super().__init__(**rest)\n"
    )
    assert size(found) == (64, 10)
    assert "guessed: scale=2, width=64, num_classes=10" in found.notes


def test_a_vocabulary_that_is_counted_in_data_that_are_not_here_is_guessed(built):
    text = """
    from torch import nn

    class Net(nn.Module):
        def __init__(self, vocab_size, width):
            super().__init__()
            self.table = nn.Embedding(vocab_size, width)
        def forward(self, x):
            return self.table(x)

    words = {}
    model = Net(len(words), 12)
    """
    found = built(text)
    assert found.model.table.weight.shape == (guess("vocab_size"), 12)
    assert f"guessed: vocab_size={guess('vocab_size')}" in found.notes


def test_parameters_that_are_never_written_are_drawn_and_named(built):
    text = """
    import torch
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.empty(16, 64))
            self.gain = nn.Parameter(torch.empty(16))
            self.fc = nn.Linear(64, 4)
            self.written = nn.Parameter(torch.empty(16, 64))
            nn.init.normal_(self.written, std=3.0)
        def forward(self, x):
            return x @ self.weight.T
    """
    found = built(text)
    assert found.unwritten == ("weight", "gain")
    assert found.notes == ("never initialised, so drawn as nn.Linear draws its own: weight, gain",)
    for model in (found.model, found.rebuild()):
        assert model.weight.abs().max() <= 1 / 8
        assert model.weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.1)
        assert model.gain.eq(1).all()
        assert model.written.std().item() == pytest.approx(3.0, rel=0.1)


def test_a_part_that_a_parameter_is_annotated_with_is_made(built):
    text = f"""{NET}
class Deep(nn.Module):
    def __init__(self, body: Net, count: int):
        super().__init__()
        self.layers = nn.ModuleList([body] * count)
    def forward(self, x):
        return x
"""
    found = built(text, "Deep")
    assert type(found.model.layers[0]).__name__ == "Net"
