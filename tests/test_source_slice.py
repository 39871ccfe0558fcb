"""The statements that a model needs, and only those."""

import ast
import textwrap

import pytest

from gradlint.source.models import find_models
from gradlint.source.text import read

NN = """
import os
import torch
from torch import nn
import torchvision, wandb
"""
NET = """
class Net(nn.Module):
    def __init__(self, width=WIDTH):
        self.fc = nn.Linear(width, 2)
    def forward(self, x):
        return self.fc(x * scale)
"""


@pytest.fixture
def kept(tmp_path):
    """The module statements of the first model's first recipe, as text."""

    def slice_(text):
        path = tmp_path / "model.py"
        path.write_text(textwrap.dedent(text))
        recipe = find_models(read(path))[0].recipes[0]
        return [ast.unparse(s) for s in (*recipe.module, *(s for f in recipe.frames for s in f.body))]

    return slice_


def test_training_is_left_out(kept):
    text = (
        NN
        + "WIDTH = 4\nscale = 2\n"
        + NET
        + """
model = Net()
train = torchvision.datasets.MNIST("data", download=True)
loader = torch.utils.data.DataLoader(train)
optimizer = torch.optim.Adam(model.parameters())
for x, y in loader:
    optimizer.zero_grad()
    loss = model(x).sum()
    loss.backward()
    optimizer.step()
torch.save(model.state_dict(), "out.pt")
"""
    )
    lines = kept(text)
    assert [line.splitlines()[0] for line in lines] == [
        "from torch import nn",
        "WIDTH = 4",
        "scale = 2",
        "class Net(nn.Module):",
        "model = Net()",
    ]


@pytest.mark.parametrize(
    "change",
    [
        "model.apply(init)",
        "init(model)",
        "nn.init.zeros_(model.fc.weight)",
        "model.fc.weight.data.mul_(3)",
        "for m in model.modules():\n    nn.init.zeros_(m.weight)",
        "with torch.no_grad():\n    model.fc.weight.fill_(1)",
        "model.fc = nn.Linear(3, 3)",
        "_ = model.apply(init)",
        "if True:\n    model.fc.bias.requires_grad_(False)",
    ],
)
def test_what_changes_the_model_is_kept(kept, change):
    text = NN + "def init(m): ...\nWIDTH, scale = 4, 1\n" + NET + "model = Net()\n" + change + "\n"
    assert kept(text)[-1].splitlines()[0] == change.splitlines()[0]


@pytest.mark.parametrize(
    "use",
    [
        "model.eval()",
        "print(model)",
        "out = model(torch.zeros(2, 4))",
        "summary(model, (3,))",
        "train(model)",
        "model.load_state_dict(torch.load('x'))",
        "for p in model.parameters():\n    print(p)",
        "torch.save(model, 'm')",
    ],
)
def test_what_only_uses_the_model_is_not(kept, use):
    text = NN + "def train(m): m.backward()\nWIDTH, scale = 4, 1\n" + NET + "model = Net()\n" + use + "\n"
    assert kept(text)[-1] == "model = Net()"


def test_what_a_forward_reads_is_kept_though_it_is_bound_later(kept):
    text = NN + "WIDTH = 4\n" + NET + "model = Net()\nlosses = []\nscale = 2\n"
    assert kept(text)[-1] == "scale = 2"


def test_a_name_that_a_function_binds_itself_is_not_looked_for_outside(kept):
    text = NN + "x = torch.load('big')\nWIDTH, scale = 4, 1\n" + NET
    assert not any("torch.load" in line for line in kept(text))


def test_the_path_and_the_default_type_are_set_as_the_file_sets_them(kept):
    text = NN + "import sys\nsys.path.append('..')\ntorch.set_default_dtype(torch.float64)\nWIDTH, scale = 4, 1\n" + NET
    assert "sys.path.append('..')" in kept(text)
    assert "torch.set_default_dtype(torch.float64)" in kept(text)


def test_globals_that_only_the_main_guard_sets_are_kept(kept):
    text = NN + "WIDTH = 4\n" + NET + '\nif __name__ == "__main__":\n    scale = 3\n    print(Net())\n'
    assert "scale = 3" in kept(text)


def test_a_call_in_a_function_brings_the_callers_values(kept):
    text = (
        NN
        + "WIDTH, scale = 4, 1\n"
        + NET
        + """
def run(args, epochs):
    hidden = args.width * 2
    model = Net(hidden)
    for _ in range(epochs):
        model.step()

def main():
    args = parse()
    run(args, 10)

def parse():
    return {"width": 3}
"""
    )
    lines = kept(text)
    assert lines[-2:] == ["hidden = args.width * 2", "model = Net(hidden)"]
    assert "args = parse()" in lines
    assert any(line.startswith("def parse") for line in lines)
