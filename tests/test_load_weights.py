"""Checkpoints: what is read, what is refused, and what the message says when they do not fit."""

import pytest
import torch
from torch import nn

from gradlint.error import LoadError
from gradlint.load.weights import put_weights


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def other(**changes):
    state = {
        k: torch.full_like(v, 7) for k, v in nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).state_dict().items()
    }
    return {**state, **changes}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": s, "optimizer": {}},
        lambda s: {f"module.{k}": v for k, v in s.items()},
        lambda s: {f"model._orig_mod.{k}": v for k, v in s.items()},
    ],
)
def test_the_weights_are_found_in_what_training_scripts_save(model, tmp_path, wrap):
    path = tmp_path / "net.pt"
    torch.save(wrap(other()), path)
    if any("_orig_mod" in key for key in wrap(other())):
        with pytest.raises(LoadError):
            put_weights(model, path)
        return
    assert put_weights(model, path) == "weights from net.pt: 7 tensors"
    assert model[0].weight.eq(7).all()


def test_safetensors_are_read(model, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(other(), tmp_path / "net.safetensors")
    put_weights(model, tmp_path / "net.safetensors")
    assert model[0].weight.eq(7).all()


def test_a_pickle_that_holds_more_than_tensors_is_refused_and_not_run(model, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save({"state_dict": other(), "extra": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(LoadError, match="refused: reading it would execute code") as caught:
        put_weights(model, tmp_path / "evil.pth")
    assert "open" in caught.value.message
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("state", "message", "hint"),
    [
        (
            other(**{"0.weight": torch.zeros(5, 2)}),
            "0.weight is 5×2 there and 3×2 in the model",
            "arguments it was trained with",
        ),
        ({k: v for k, v in other().items() if k != "0.bias"}, "it lacks 0.bias", ""),
        ({("0.biass" if k == "0.bias" else k): v for k, v in other().items()}, "the model has no 0.biass", "0.biass"),
        ({"epoch": 3}, "holds no named tensors", "state_dict"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_how(model, tmp_path, state, message, hint):
    torch.save(state, tmp_path / "net.pt")
    with pytest.raises(LoadError) as caught:
        put_weights(model, tmp_path / "net.pt")
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"), [("a.pt", b"junk"), ("a.safetensors", b"junk"), ("a.h5", b""), ("none.pt", None)]
)
def test_what_cannot_be_read_is_a_load_error(model, tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(LoadError):
        put_weights(model, tmp_path / name)
