"""A copy of a model runs its own parts, also through functions that the model holds."""

from functools import partial

import pytest
import torch
from torch import nn

from gradlint.api import check
from gradlint.load.duplicate import duplicate


class Held(nn.Module):
    """As minGPT's block: the forward pass calls a lambda that closes over a part of the model."""

    def __init__(self):
        super().__init__()
        self.body = nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4)})
        body = self.body
        self.run = lambda x: body.down(torch.relu(body.up(x)))

    def forward(self, x):
        return x + self.run(x)


def by_default():
    model = nn.Linear(4, 4)
    model.run = lambda x, other=model: other(x)
    return model


def in_a_list():
    model = nn.Linear(4, 4)
    model.runs = [{"first": lambda x: model(x)}]
    model.run = lambda x: model.runs[0]["first"](x)
    return model


def through_another():
    model = nn.Linear(4, 4)

    def inner(x):
        return model(x)

    def outer(x, scale):
        return scale * inner(x)

    model.run = partial(outer, scale=2.0)
    return model


@pytest.mark.parametrize("make", [Held, by_default, in_a_list, through_another])
def test_functions_of_the_copy_run_the_parts_of_the_copy(make):
    model = make()
    copied = duplicate(model, {})
    with torch.no_grad():
        for param in copied.parameters():
            param.zero_()
    x = torch.ones(2, 4)
    assert not copied.run(x).any()
    assert model.run(x).any()
    copied.run(x).sum().backward()
    assert all(param.grad is None for param in model.parameters())


def test_a_module_that_only_a_function_holds_is_copied_too():
    free = nn.Linear(4, 4)
    model = nn.Identity()
    model.run = lambda x: free(x)
    duplicate(model, {}).run(torch.ones(2, 4)).sum().backward()
    assert free.weight.grad is None


def test_variables_that_two_functions_share_stay_shared():
    def counting():
        count = [0]

        def add():
            count[0] += 1

        return add, lambda: count[0]

    model = nn.Identity()
    model.add, model.read = counting()
    copied = duplicate(model, {})
    copied.add()
    assert (copied.read(), model.read()) == (1, 0)


def test_a_variable_that_is_not_assigned_stays_so():
    def unfinished():
        if not torch:
            late = 1

        def read():
            return late

        return read

    model = nn.Identity()
    model.read = unfinished()
    with pytest.raises(NameError):
        duplicate(model, {}).read()


def test_a_model_that_runs_its_parts_through_a_function_has_no_unregistered_module():
    torch.manual_seed(0)
    report = check(nn.Sequential(Held(), Held(), nn.Linear(4, 3)), torch.randn(8, 4))
    assert not report.findings, str(report)
    assert {layer.module for layer in report.targets[0].layers} >= {"0.body.up", "1.body.down"}


class Computed(nn.Module):
    """What the constructor computed from parameters, as an attribute and as a buffer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.gain = nn.Parameter(torch.ones(4)) * 0.02
        self.register_buffer("shift", nn.Parameter(torch.ones(4)) + 1.0)

    def forward(self, x):
        return self.body(x) * self.gain + self.shift


def test_a_copy_keeps_that_a_computed_tensor_wants_a_gradient():
    (found,) = [f for f in check(Computed(), torch.randn(8, 4)).findings if f.rule == "unregistered-parameter"]
    assert found.predicted["tensors"] == 2
