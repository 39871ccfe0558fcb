"""The loss that a file applies to its model."""

import textwrap

import pytest

from gradlint.source.models import find_models
from gradlint.source.text import read

HEAD = """
import torch
import torch.nn as nn
import torch.nn.functional as F
class D(nn.Module):
    def forward(self, x): return F.mse_loss(x, x)
class G(nn.Module):
    def forward(self, x): return x
"""


@pytest.fixture
def losses(tmp_path):
    def find(text, head=HEAD):
        path = tmp_path / "model.py"
        path.write_text(head + textwrap.dedent(text))
        return {c.name: c.loss for c in find_models(read(path))}

    return find


ONE = HEAD.replace("class D(nn.Module):\n    def forward(self, x): return F.mse_loss(x, x)\n", "")


@pytest.mark.parametrize(
    ("text", "loss"),
    [
        ("criterion = nn.CrossEntropyLoss()", "ce"),
        ("def train(model, x, y):\n    F.nll_loss(model(x), y).backward()", "nll"),
        ("def train(model, x, y):\n    return nn.BCELoss()(model(x), y)", "bce"),
        ("loss_fn = torch.nn.BCEWithLogitsLoss()\nout = loss_fn(model(x), y)", "bce_logits"),
        ("class Trainer:\n    def __init__(self):\n        self.loss = nn.SmoothL1Loss()", "mse"),
        ("criterion = nn.CrossEntropyLoss()\naux = nn.MSELoss()", None),
        ("criterion = MyOwnLoss()", None),
        ("", None),
    ],
)
def test_the_only_loss_of_a_file_is_that_of_its_only_model(losses, text, loss):
    assert losses(text, ONE)["G"] == loss


def test_a_loss_inside_a_forward_is_not_the_files(losses):
    assert losses("") == {"D": None, "G": None}


def test_with_several_models_the_outermost_call_decides(losses):
    text = """
    d, g = D(), G()
    bce, mse = nn.BCELoss(), nn.MSELoss()
    loss = bce(d(g(z)), ones) + bce(d(x), ones)
    recon = g(z)
    mse(recon, x).backward()
    """
    assert losses(text) == {"d": "bce", "g": "mse"}


def test_two_losses_on_one_model_say_nothing(losses):
    assert losses("d = D()\nF.mse_loss(d(x), y)\nF.nll_loss(d(x), y)\n")["d"] is None


def test_a_lightning_step_counts(losses):
    text = """
    class Lit(L.LightningModule):
        def forward(self, x): return x
        def training_step(self, batch, i):
            x, y = batch
            return F.cross_entropy(self(x), y)
    """
    assert losses(text, "import lightning as L\nimport torch.nn.functional as F\n") == {"Lit": "ce"}
