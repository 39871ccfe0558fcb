"""Which models a file holds, found from its syntax tree alone."""

import subprocess
import sys
import textwrap

import pytest

from gradlint.error import LoadError
from gradlint.source.models import find_expression, find_models
from gradlint.source.text import read

NN = "import torch\nfrom torch import nn\n"
BLOCK = NN + "class Block(nn.Module):\n    def __init__(self, d): ...\n    def forward(self, x): return x\n"
NET = (
    BLOCK
    + "class Net(nn.Module):\n    def __init__(self, n=2): self.b = Block(n)\n    def forward(self, x): return x\n"
)


@pytest.fixture
def found(tmp_path):
    def find(text, **options):
        path = tmp_path / "model.py"
        path.write_text(textwrap.dedent(text))
        return [(c.kind, c.name) for c in find_models(read(path), **options)]

    return find


def test_a_class_that_another_one_uses_is_no_model_of_its_own(found):
    assert found(NET) == [("class", "Net")]
    assert found(NET, all_classes=True) == [("class", "Block"), ("class", "Net")]


def test_a_lambda_that_builds_a_model_is_a_function_like_any_other(found):
    assert found(NN + "build = lambda n=4: nn.Sequential(nn.Linear(n, n), nn.ReLU())\n") == [("factory", "build")]
    assert found(NN + "build = lambda: nn.Sequential(nn.Linear(2, 2))\nmodel = build()\n") == [("instance", "model")]


@pytest.mark.parametrize(
    "base",
    [
        "import torch.nn as nn|nn.Module",
        "import torch|torch.nn.Module",
        "from torch.nn import Module|Module",
        "from torch.nn import Module as M|M",
        "from torch.nn import *|Module",
        "import lightning as L|L.LightningModule",
        "import pytorch_lightning as pl|pl.LightningModule",
        "from torch import nn|nn.Sequential",
        "from transformers import PreTrainedModel|PreTrainedModel",
        "import torch; from somewhere import Unknown|Unknown",
    ],
)
def test_a_module_is_known_by_its_base_however_imported(found, base):
    imports, base = base.split("|")
    assert found(f"{imports}\nclass Net({base}):\n    def forward(self, x): return x\n") == [("class", "Net")]


def test_bases_are_followed_into_files_beside(found, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("from .base import *\n")
    (tmp_path / "parts" / "base.py").write_text(BLOCK)
    assert found("from parts import Block\nclass Deep(Block): ...\n") == [("class", "Deep")]
    assert found("from parts import *\nmodel = Block(3)\n") == [("instance", "model")]


def test_a_class_without_forward_is_no_model(found):
    assert found(NN + "class Base(nn.Module):\n    def forward(self, x): raise NotImplementedError\n") == []
    assert (
        found("import jax\nfrom flax import linen as nn\nclass Net(nn.Module):\n    def __call__(self, x): ...\n") == []
    )
    assert found("import torch\nclass F(torch.autograd.Function):\n    def forward(ctx, x): ...\n") == []


def test_an_instance_covers_its_class_and_its_parts(found):
    assert found(NET + "model = Net(3).to('cpu')\n") == [("instance", "model")]
    assert found(NET + "enc, dec = Net(1), Net(2)\nmodel = nn.Sequential(enc, dec)\n") == [("instance", "model")]


def test_the_same_call_twice_is_one_model(found):
    assert found(NET + "a = Net(3)\nb = Net(3)\nc = Net(4)\n") == [("instance", "a"), ("instance", "c")]


def test_a_single_layer_is_a_model_only_where_nothing_else_is(found):
    assert found(NN + "model = nn.Linear(3, 2)\n") == [("instance", "model")]
    assert found(NN + "layer = nn.Linear(3, 2)\nmodel = nn.Sequential(nn.Linear(3, 2))\n") == [("instance", "model")]


def test_a_loss_is_no_model_beside_one(found):
    text = NET + "class DiceLoss(nn.Module):\n    def forward(self, x, y): return x\ncriterion = nn.MSELoss()\n"
    assert found(text) == [("class", "Net")]


def test_a_block_that_nothing_uses_is_a_leftover(found):
    text = BLOCK + "class Net(nn.Module):\n    def forward(self, x): return x\n"
    assert found(text) == [("class", "Net")]


@pytest.mark.parametrize(
    "factory",
    [
        "def make(n) -> nn.Module:\n    return wrap(Net(n))\n",
        "def net18():\n    m = Net()\n    m.apply(f)\n    return m\n",
        "def create(n=3):\n    return nn.Sequential(Net(n), nn.Linear(2, 2))\n",
        "def get_model(n):\n    return Net(n), 3\n",
    ],
)
def test_a_function_that_returns_a_model_is_a_factory(found, factory):
    assert [kind for kind, _ in found(NET + factory)] == ["factory"]


def test_of_several_factories_of_one_class_the_first_or_the_one_that_is_called(found):
    both = NET + "def small(): return Net(1)\ndef large(): return Net(2)\n"
    assert found(both) == [("factory", "small")]
    assert found(both + "def test():\n    large()(torch.randn(2, 3))\n") == [("factory", "large")]


def test_a_helper_of_a_class_is_no_factory(found):
    helper = "def conv(i, o):\n    return nn.Sequential(nn.Conv2d(i, o, 3))\n"
    net = "class Net(nn.Module):\n    def __init__(self): self.a = conv(1, 2)\n    def forward(self, x): return x\n"
    assert found(NN + helper + net) == [("class", "Net")]


def test_a_function_that_trains_is_no_factory(found):
    train = "def train():\n    model = Net(3)\n    model(x).backward()\n    return model\n"
    assert found(NET + train) == [("class", "Net")]


def test_models_of_a_main_function_are_found(found):
    guard = '\nif __name__ == "__main__":\n    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU())\n'
    assert found(NN + guard) == [("expression", "net")]
    assert found(NN + "from torchvision import models\ndef main():\n    m = models.resnet18()\n") == [
        ("expression", "m")
    ]


@pytest.mark.parametrize(
    "text",
    [
        "from transformers import AutoModel\nm = AutoModel.from_config(c)\n",
        "import timm\nm = timm.create_model('vit')\n",
        "import torchvision\nm = torchvision.models.__dict__[name]()\n",
        "import torch\nm = torch.compile(torch.nn.Linear(1, 1))\n",
    ],
)
def test_library_calls_that_make_models_are_known(found, text):
    assert found(text) == [("instance", "m")]


def test_an_expression_may_name_a_variable_of_a_function(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(NET + "def main():\n    inner = Net(7)\n")
    source = read(path)
    assert find_expression(source, "inner").made_by == "Net"
    assert find_expression(source, "Net(n=4)").made_by == "Net"
    assert find_expression(source, "Net").span.line == 6


def test_files_without_a_model_are_empty(found):
    assert found("") == found("import torch\nx = torch.zeros(3)\n") == found("def f(): ...\n") == []


def test_what_cannot_be_read_or_parsed_is_a_load_error_with_its_line(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text("import torch\nclass Net(:\n")
    with pytest.raises(LoadError, match="syntax error") as caught:
        read(path)
    assert caught.value.span.line == 2
    with pytest.raises(LoadError, match="no such file"):
        read(tmp_path / "none.py")


def test_finding_imports_no_torch(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(NET)
    code = "import sys; from pathlib import Path; from gradlint.source.text import read; "
    code += f"from gradlint.source.models import find_models; assert find_models(read(Path({str(path)!r}))); "
    code += "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"], check=True, timeout=60)
