"""Batches of the user's own feed the model: what goes into forward, what the loss gets, and what is wrong with them."""

import textwrap

import pytest
import torch
from torch import nn

from gradlint.api import check
from gradlint.config import Settings
from gradlint.error import InputError, LoadError, ProbeError, UsageError
from gradlint.load import load
from gradlint.load.data import Batches, find, split
from gradlint.probe import measure
from gradlint.probe.target import Target, fitted
from gradlint.source.target import parse


class One(nn.Module):
    def forward(self, x, scale=1.0):
        return x


class Two(nn.Module):
    def forward(self, image, text):
        return image


class Keywords(nn.Module):
    def forward(self, ids, **more):
        return ids


X, Y, Z = torch.zeros(4, 3), torch.ones(4), torch.full((4,), 2.0)


@pytest.mark.parametrize(
    ("batch", "model", "args", "kwargs", "target"),
    [
        (X, One(), (X,), {}, None),
        ((X,), One(), (X,), {}, None),
        ([X, Y], One(), (X,), {}, Y),
        ((X, Y, Z), One(), (X,), {}, (Y, Z)),
        ((X, Y), Two(), (X, Y), {}, None),
        ((X, Y, Z), Two(), (X, Y), {}, Z),
        ({"x": X, "label": Y}, One(), (), {"x": X}, Y),
        ({"x": X, "a": Y, "b": Z}, One(), (), {"x": X}, {"a": Y, "b": Z}),
        ({"ids": X, "labels": Y}, Keywords(), (), {"ids": X, "labels": Y}, None),
        (({"image": X, "text": Y}, Z), Two(), (), {"image": X, "text": Y}, Z),
        ({"pixels": X}, One(), ({"pixels": X},), {}, None),
    ],
)
def test_what_goes_into_forward_and_what_remains_for_the_loss(batch, model, args, kwargs, target):
    found = split(batch, model)
    assert (found.args, found.kwargs, found.target) == (args, kwargs, target) or found.target is target


@pytest.mark.parametrize("batch", [(X,), {"image": X}])
def test_a_batch_with_too_few_entries_is_refused(batch):
    with pytest.raises(InputError, match="forward requires"):
        split(batch, Two())


def test_batches_are_gone_round_and_an_iterator_is_read_once():
    batches = Batches(iter([(X, Y), (Z, Y)]), One())
    assert [batches(i).args[0] is X for i in (0, 1, 2, 0)] == [True, False, True, True]


def test_arrays_of_numpy_become_tensors():
    assert torch.equal(Batches([(X.numpy(), Y.numpy())], One())(0).args[0], X)


@pytest.mark.parametrize(("source", "message"), [([], "no batch"), ((1 / 0 for _ in "x"), "raised ZeroDivisionError")])
def test_data_without_batches_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        Batches(source, One())(0)


@pytest.mark.parametrize("name", ["nowhere:batches", "math:nothing", "math:pi", "math:sqrt"])
def test_a_name_that_gives_no_batches_is_refused(name):
    with pytest.raises(UsageError, match=f"--data {name}"):
        find(name)


# targets that fit an output ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "given", "shape", "axis"),
    [
        (torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]), (4,), 1),
        (torch.zeros(4, 7, 9), torch.zeros(4, 7, dtype=torch.long), (4, 7), 2),
        (torch.zeros(4, 9, 7), torch.zeros(4, 7, dtype=torch.long), (4, 7), 1),
        (torch.zeros(2, 5, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long), (2, 8, 8), 1),
        (torch.zeros(4, 1), torch.zeros(4), (4, 1), 1),
        (torch.zeros(4, 3), torch.zeros(4, 3), (4, 3), 1),
    ],
)
def test_the_class_axis_is_the_one_that_the_labels_lack(output, given, shape, axis):
    found = fitted(Target(output, 1), given)
    assert tuple(found.given.shape) == shape
    assert found.axis == axis


@pytest.mark.parametrize("given", [torch.zeros(5), torch.zeros(4, 2), {"a": Y}, torch.zeros(4)])
def test_targets_that_fit_no_loss_ask_for_one(given):
    with pytest.raises(ProbeError, match="targets") as caught:
        fitted(Target(torch.zeros(4, 3), 1), given)
    assert "--loss module:function" in caught.value.hint


@pytest.mark.parametrize(
    ("head", "given", "loss"),
    [
        ([], torch.tensor([0, 1, 2, 0]), "ce"),
        ([nn.LogSoftmax(1)], torch.tensor([0, 1, 2, 0]), "nll"),
        ([nn.Softmax(1)], torch.tensor([0, 1, 2, 0]), "nll_prob"),
        ([], torch.randn(4, 3), "mse"),
        ([], torch.ones(4, 3), "bce_logits"),
        ([nn.Sigmoid()], torch.rand(4, 3), "bce"),
    ],
)
def test_the_loss_follows_the_targets(head, given, loss):
    report = check(nn.Sequential(nn.Linear(3, 3), *head), data=[(torch.randn(4, 3), given)], fix=False)
    assert report.targets[0].probe.loss == loss


# from a file ---------------------------------------------------------------------------------------------------------


FILE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x):
        return self.fc(x)
"""
DATA = """
import torch


def batches():
    return [(torch.full((4, 5), float(i)), torch.arange(4) % 3) for i in range(3)]


def squared(output, target):
    return (output.argmax(1) - target).square().sum() + output.square().sum()
"""


def files(tmp_path):
    name = f"own_{tmp_path.name}".replace("-", "_")
    (tmp_path / "net.py").write_text(textwrap.dedent(FILE))
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(DATA))
    return parse(str(tmp_path / "net.py")), name


def test_a_module_beside_the_file_gives_batches_and_the_loss(tmp_path):
    target, name = files(tmp_path)
    (loaded,) = load(target, Settings(data=f"{name}:batches", loss=f"{name}:squared"))
    assert [(used.name, used.shape, used.source) for used in loaded.inputs] == [("x", (4, 5), "data")]
    assert loaded.draw(2)[0][0][0, 0] == 2.0
    _, measured = measure(loaded, settings=Settings(loss=f"{name}:squared"))
    output = loaded.model(loaded.args[0])
    wanted = (output.argmax(1) - torch.arange(4) % 3).square().sum() + output.square().sum()
    assert measured.loss_value == pytest.approx(float(wanted), rel=1e-5)


def test_data_and_loss_may_stand_in_the_file_itself(tmp_path):
    name = f"whole_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(FILE + DATA))
    settings = Settings(data=f"{name}:batches", loss=f"{name}:squared", seeds=3)
    (loaded,) = load(parse(str(tmp_path / f"{name}.py")), settings)
    assert [(used.name, used.source) for used in loaded.inputs] == [("x", "data")]
    loaded.rebuild()  # runs a part of the file anew, and the loss is looked up once more after it
    _, measured = measure(loaded, settings=settings)
    assert measured.loss == f"{name}:squared"


def test_an_error_of_the_whole_file_is_shown_with_its_line(tmp_path):
    name = f"raises_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(FILE + DATA + "\nunrelated = 1 / 0\n"))
    with pytest.raises(LoadError, match="ZeroDivisionError") as caught:
        load(parse(str(tmp_path / f"{name}.py")), Settings(data=f"{name}:batches"))
    assert caught.value.span is not None
    assert caught.value.span.line == len((FILE + DATA).splitlines()) + 2


def test_inputs_and_data_contradict_each_other(tmp_path):
    target, name = files(tmp_path)
    with pytest.raises(UsageError, match="--input and --data"):
        load(target, Settings(data=f"{name}:batches", inputs=("float32[4,5]",)))


# LightningModules ----------------------------------------------------------------------------------------------------


class LightningModule(nn.Module):
    """What is needed of lightning.pytorch.LightningModule."""


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.body(x).relu())

    def training_step(self, batch, batch_idx):
        x, y = batch
        output = self(x)
        return {"loss": nn.functional.cross_entropy(output, y, label_smoothing=0.5), "output": output.detach()}


def test_a_training_step_is_run_as_it_stands():
    batch = (torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))
    model = Classifier()
    report = check(model, data=[batch], steps=3, fix=False)
    target = report.targets[0]
    assert target.probe.loss == "own"
    expected = model.training_step(batch, 0)["loss"].item()
    assert target.probe.loss_value == pytest.approx(expected, rel=1e-5)
    assert {layer.module for layer in target.layers} >= {"body", "head"}
    assert target.trace.losses[0] == pytest.approx(expected, rel=1e-5)
    assert target.trace.losses[-1] < target.trace.losses[0]


def test_a_loss_that_is_told_goes_before_the_training_step():
    report = check(Classifier(), data=[(torch.randn(4, 5), torch.tensor([0, 1, 2, 0]))], loss="ce", fix=False)
    assert report.targets[0].probe.loss == "ce"
