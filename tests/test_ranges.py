"""The range of a value holds every number that the value takes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from gradlint.capture import capture
from gradlint.graph.ranges import ANY, COSINE, Range, ranges


def range_of(function: Callable[[Tensor], Tensor]) -> Range:
    graph, _ = capture(function, (torch.randn(64, 8, requires_grad=True),), {})
    return ranges(graph)[graph.outputs[0]]


EXPRESSIONS: dict[str, tuple[Callable[[Tensor], Tensor], Range]] = {
    "relu": (lambda x: x.relu(), Range(0, math.inf, at_low=True)),
    "relu6": (lambda x: F.relu6(x), Range(0, 6, at_low=True, at_high=True)),
    "hardtanh": (lambda x: F.hardtanh(x, -2, 2), Range(-2, 2, at_low=True, at_high=True)),
    "sigmoid": (lambda x: x.sigmoid(), Range(0, 1)),
    "one minus a sigmoid": (lambda x: 1 - x.sigmoid(), Range(0, 1)),
    "a number over a sum": (lambda x: 1 / (1 + (-x).exp()), Range(0, 1)),
    "softmax": (lambda x: x.softmax(1), Range(0, 1)),
    "exp": (lambda x: x.exp(), Range(0, math.inf)),
    "square": (lambda x: x * x, Range(0, math.inf)),
    "square of a relu": (lambda x: x.relu() ** 2, Range(0, math.inf, at_low=True)),
    "sum of squares of a relu": (lambda x: x.relu().pow(2).sum(1), Range(0, math.inf, at_low=True)),
    "sum of squares": (lambda x: x.pow(2).sum(1), Range(0, math.inf)),
    "an epsilon": (lambda x: x.relu() + 0.5, Range(0.5, math.inf, at_low=True)),
    "length": (lambda x: x.relu().norm(dim=1), Range(0, math.inf, at_low=True)),
    "clamp": (lambda x: x.clamp(min=-1.0), Range(-1, math.inf, at_low=True)),
    "clamp at both ends": (lambda x: x.clamp(-1, 1), Range(-1, 1, at_low=True, at_high=True)),
    "clamp of what lies inside": (lambda x: x.sigmoid().clamp(-1, 2), Range(0, 1)),
    "negative of a relu": (lambda x: -x.relu(), Range(-math.inf, 0, at_high=True)),
    "difference": (lambda x: 1 - x.cos().square(), Range(0, 1)),
    "half of it": (lambda x: x.tanh() / 2, Range(-0.5, 0.5)),
    "mean": (lambda x: x.sigmoid().mean(1), Range(0, 1)),
    "reshaped": (lambda x: x.relu().reshape(-1).unsqueeze(0), Range(0, math.inf, at_low=True)),
    "concatenated": (lambda x: torch.cat([x.relu(), x.sigmoid() - 1], 1), Range(-1, math.inf)),
    "chosen": (lambda x: torch.where(x > 0, x.sigmoid(), -1.0), Range(-1, 1, at_low=True)),
    "log of a probability": (lambda x: x.sigmoid().log(), Range(-math.inf, 0)),
    "pooled": (lambda x: F.max_pool1d(x.relu()[None], 2)[0], Range(0, math.inf, at_low=True)),
    "product of two": (lambda x: x.relu() * x.sigmoid(), Range(0, math.inf, at_low=True)),
    "cosines": (lambda x: F.normalize(x, dim=1) @ F.normalize(x.tanh(), dim=1).t(), COSINE),
    "cosines of joined views": (lambda x: (z := torch.cat([F.normalize(x), F.normalize(-x)])) @ z.mT, COSINE),
    "cosines by hand": (lambda x: (z := x / x.norm(dim=-1, keepdim=True).clamp(min=1e-8)) @ z.T, COSINE),
    "cosines with normalised weights": (lambda x: F.linear(F.normalize(x), F.normalize(torch.ones(3, 8))), COSINE),
    "cosine similarity": (lambda x: F.cosine_similarity(x[:, None], x[None], dim=-1), COSINE),
    "products along the other axis": (lambda x: F.normalize(x, dim=0) @ F.normalize(x, dim=0).t(), ANY),
    "one side alone": (lambda x: F.normalize(x, dim=1) @ x.t(), ANY),
    "normalised by another order": (lambda x: (z := F.normalize(x, p=4.0, dim=1)) @ z.t(), ANY),
    "linear": (lambda x: x @ torch.ones(8, 8), ANY),
    "unknown": (lambda x: x.relu().cumsum(0).lgamma(), ANY),
}


@pytest.mark.parametrize(("function", "expected"), EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_the_range_of_an_expression(function: Callable[[Tensor], Tensor], expected: Range) -> None:
    assert range_of(function) == expected


@pytest.mark.parametrize("function", [function for function, _ in EXPRESSIONS.values()], ids=EXPRESSIONS)
def test_no_number_lies_outside_its_range(function: Callable[[Tensor], Tensor]) -> None:
    found = range_of(function)
    numbers = function(torch.randn(64, 8) * 10)
    assert found.low <= float(numbers.nan_to_num(found.low).min())
    assert float(numbers.nan_to_num(found.low).max()) <= found.high


def test_a_square_comes_near_zero_but_is_never_there() -> None:
    assert not range_of(lambda x: x.square()).holds(0.0)
    assert range_of(lambda x: x.relu().square()).holds(0.0)


def test_a_number_that_can_lie_on_either_side_of_zero_can_be_zero() -> None:
    assert range_of(lambda x: x.tanh()).holds(0.0)
