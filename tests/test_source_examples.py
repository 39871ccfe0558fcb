"""The input shapes that a file mentions."""

import textwrap

import pytest

from gradlint.source.models import find_models
from gradlint.source.text import read

HEAD = """
import torch
import torch.nn as nn
import torchvision
from torchvision import datasets, transforms
SIZE = 16
OPTIONS = {{"nz": 100}}
class Net(nn.Module):
    {doc}
    def forward(self, x, y=None):{comment}
        return x
"""


@pytest.fixture
def hints(tmp_path):
    def find(text, doc="", comment=""):
        path = tmp_path / "model.py"
        path.write_text(HEAD.format(doc=f'"""{doc}"""', comment=f"  # {comment}") + textwrap.dedent(text))
        (candidate,) = find_models(read(path))
        return candidate.hints

    return find


@pytest.mark.parametrize(
    ("call", "shape"),
    [
        ("model(torch.randn(2, 3, 32, 32))", (2, 3, 32, 32)),
        ("model(torch.rand((4, SIZE * 2)))", (4, 32)),
        ("model(torch.zeros(batch, 3, SIZE, SIZE).to('cpu'))", ("batch", 3, 16, 16)),
        ("x = torch.ones(2, 784)\nz = x.cuda()\nmodel(z)", (2, 784)),
        ("model(images.view(-1, 28 * 28))", ("N", 784)),
        ("model(images.reshape(-1, 28, 28).to(device))", ("N", 28, 28)),
        ("model(torch.randn(2, 3, 8, 8).view(2, -1))", (2, 192)),
        ("model(torch.randn(3, 8).unsqueeze(0))", (1, 3, 8)),
        ("model(torch.randn(8, 8, 3).permute(2, 0, 1))", (3, 8, 8)),
        ("shape = (2, 5)\nmodel(torch.randn(*shape))", (2, 5)),
        ("Net()(torch.randn(2, 7))", (2, 7)),
        ("nz = int(args.nz)\nmodel(torch.randn(b, nz, 1))", ("b", 100, 1)),
    ],
)
def test_a_call_of_the_model_gives_its_shape(hints, call, shape):
    text = "def check():\n    model = Net()\n" + textwrap.indent(call, "    ") + "\n"
    assert hints(text).calls[0][0].shape == shape


def test_whole_numbers_keep_their_bound_and_keywords_their_name(hints):
    ((ids, mask),) = hints(
        "net = Net()\nnet(torch.randint(0, 50, (4, 9)), y=torch.ones(4, 9, dtype=torch.long))\n"
    ).calls
    assert (ids.shape, ids.dtype, ids.high) == ((4, 9), "int64", 50)
    assert (mask.name, mask.shape, mask.dtype) == ("y", (4, 9), "int64")


def test_a_call_with_an_unreadable_argument_says_nothing(hints):
    assert hints("net = Net()\nnet(batch['x'], torch.ones(3, 3))\n").calls == ()


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("from torchsummary import summary\nsummary(Net(), (3, 64, 64))", ("N", 3, 64, 64)),
        ("import torchinfo\ntorchinfo.summary(Net(), input_size=(1, 3, 64, 64))", (1, 3, 64, 64)),
        ("torch.onnx.export(Net(), torch.randn(1, 3, 9, 9), 'f')", (1, 3, 9, 9)),
    ],
)
def test_summaries_and_exports_give_shapes(hints, text, shape):
    assert hints(text).shapes[0].shape == shape


@pytest.mark.parametrize(
    ("doc", "shapes"),
    [
        ("Expects (N, 3, 32, 32).", [("N", 3, 32, 32)]),
        ("x: [batch size, 20] -> (N, 5)", [("batch_size", 20)]),
        ("maps (x, y) in [-1, 1] to intensity", []),
        ("returns (N, 10)", []),
        ("reads a 28x28 digit", [("N", 3, 28, 28), ("N", 1, 28, 28), ("N", 28, 28)]),
        ("a 3x3 convolution", []),
    ],
)
def test_docstrings_are_read_up_to_the_result(hints, doc, shapes):
    assert [h.shape for h in hints("", doc=doc).shapes] == shapes


def test_comments_on_forward_are_read(hints):
    (hint,) = hints("", comment="x: (B, 12)").shapes
    assert (hint.shape, hint.name, hint.origin) == (("B", 12), "x", "comment")


@pytest.mark.parametrize(
    ("text", "name", "shape"),
    [
        ("data = datasets.MNIST('.')", "MNIST", ("N", 1, 28, 28)),
        ("data = torchvision.datasets.CIFAR10('.')", "CIFAR10", ("N", 3, 32, 32)),
        ("t = transforms.Resize((48, 64))\ndata = datasets.ImageFolder('.')", "ImageFolder", ("N", 3, 48, 64)),
        ("from sklearn.datasets import load_iris\nd = load_iris()", "load_iris", ("N", 4)),
    ],
)
def test_a_data_set_gives_the_shape_of_its_entries(hints, text, name, shape):
    found = hints(text)
    assert (found.dataset, found.shapes[0].shape) == (name, shape)
