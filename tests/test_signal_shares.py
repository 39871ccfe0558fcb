"""Means whose weights are divided by their own sum, and what stands beside a padding, against real backward passes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.signal import predict
from tests.test_signal_coverage import Around, worst
from tests.test_signal_mechanisms import errors

SIZE = (8, 48, 16)


def attend(p: nn.ParameterDict, x: Tensor) -> Tensor:
    """Cai et al. 2023 (EfficientViT): a column of ones makes the last column of the product the divisor.

    Of two heads one is ten times as large, so that the quotient of averages is not the average of quotients.
    """
    size = torch.tensor([1.0, 0.1]).to(x)[:, None, None]
    q, k, v = (size * (x @ p[name]).unflatten(-1, (2, 8)).transpose(1, 2) for name in "qkv")
    y = q.relu() @ (k.relu().transpose(-1, -2) @ F.pad(v, (0, 1), value=1.0))
    return y[..., :-1] / (y[..., -1:] + 1e-5)


def test_linear_attention() -> None:
    model = Around(attend, q=(16, 16), k=(16, 16), v=(16, 16))
    model(torch.randn(*SIZE))
    found, signal = errors(model, SIZE, 12)
    assert abs(found["own.v"]) < 0.12 and abs(found["last.weight"]) < 0.12
    assert all(abs(error) < 2.0 * signal.profile.spread[name] for name, error in found.items())


def test_one_class_of_a_padded_dimension_keeps_its_mean() -> None:
    model = Around(lambda p, x: F.pad(x, (1, 2), value=3.0)[..., -2:] + x[..., :2])
    model(torch.randn(*SIZE))
    graph, _ = capture(model, (torch.randn(*SIZE),))
    added = next(op for op in graph.ops if op.kind == "add")
    assert predict(graph).profile.activation[added.inputs[0]] == pytest.approx(torch.tensor(3.0).log10().item())


def test_columns_of_a_product_keep_their_own_size() -> None:
    def halves(p: nn.ParameterDict, x: Tensor) -> Tensor:
        y = p["w"].softmax(-1) @ torch.cat([x, 10.0 * torch.tanh(x)], -1)
        return y[..., :16] + 100.0 * y[..., 16:].detach()

    assert worst(Around(halves, w=(24, 48)), *SIZE) < 0.1
