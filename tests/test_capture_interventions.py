"""Interventions change a run at a numbered call, in place or not, and leave no trace on the model."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.capture import Intervention, run


class Net(nn.Module):
    """Calls: 0 linear, 1 activation, 2 linear."""

    def __init__(self, activation):
        super().__init__()
        self.a, self.b, self.activation = nn.Linear(5, 5), nn.Linear(5, 2), activation

    def forward(self, x):
        return self.b(self.activation(self.a(x)))


def dropped(x):
    """An in-place activation whose result nobody takes."""
    x.size(), x.dim(), x.dtype  # questions before the call must not take its number
    x.sigmoid_()
    return x


ACTIVATIONS = {
    "out of place": torch.sigmoid,
    "in place": torch.sigmoid_,
    "by flag": lambda x: F.leaky_relu(x, 0.5, inplace=True),
    "by position": lambda x: F.leaky_relu(x, 0.5, True),
    "result dropped": dropped,
}


def build(name):
    torch.manual_seed(0)
    return Net(ACTIVATIONS[name]), torch.randn(3, 5)


def grads(model, output):
    model.zero_grad()
    output.square().sum().backward()
    return [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_replaced_call_and_its_gradients_are_those_of_the_replacement(name, record):
    model, x = build(name)
    other = Net(torch.tanh)
    other.load_state_dict(model.state_dict())
    change = Intervention(1, replace=lambda func, args, kwargs: torch.tanh(args[0]))
    output = run(model, (x,), interventions=(change,), record=record).output
    torch.testing.assert_close(output, other(x))
    torch.testing.assert_close(grads(model, output), grads(other, other(x)))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_output_can_be_transformed(name):
    model, x = build(name)
    plain = ACTIVATIONS[name]
    other = Net(lambda z: F.layer_norm(plain(z.clone()), (5,)))
    other.load_state_dict(model.state_dict())
    change = Intervention(1, after=lambda output, args, kwargs, scratch: F.layer_norm(output, (5,)))
    output = run(model, (x,), interventions=(change,), record=False).output
    torch.testing.assert_close(output, other(x))
    torch.testing.assert_close(grads(model, output), grads(other, other(x)))


def test_a_tensor_can_be_kept_at_one_call_and_added_at_a_later_one():
    model, x = build("out of place")

    def keep(output, args, kwargs, scratch):
        scratch["skip"] = args[0]
        return output

    def add(output, args, kwargs, scratch):
        return output + scratch["skip"]

    changes = (Intervention(0, after=keep), Intervention(1, after=add))
    output = run(model, (x,), interventions=changes, record=False).output
    torch.testing.assert_close(output, model.b(torch.sigmoid(model.a(x)) + x))


def test_what_an_intervention_calls_is_not_recorded():
    model, x = build("out of place")
    change = Intervention(1, replace=lambda func, args, kwargs: nn.Linear(5, 5)(args[0]).relu() * 2)
    recording = run(model, (x,), interventions=(change,))
    assert recording.calls == 3
    assert set(recording.called) == {"", "a", "b"}


def test_an_assignment_can_be_transformed():
    def forward(x):
        y = torch.zeros(2, 3)
        y[:, 0] = x
        return y * 2

    change = Intervention(1, after=lambda output, args, kwargs, scratch: output + 1)
    output = run(forward, (torch.ones(2),), interventions=(change,), record=False).output
    assert torch.equal(output, 2 * torch.tensor([[2.0, 1.0, 1.0]] * 2))


def test_a_custom_function_can_be_replaced():
    class Zero(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.zeros_like(x)

        @staticmethod
        def backward(ctx, g):
            return g

    change = Intervention(0, replace=lambda func, args, kwargs: func(*args, **kwargs) + 3)
    output = run(lambda x: Zero.apply(x) * 2, (torch.ones(2),), interventions=(change,)).output
    assert output.tolist() == [6.0, 6.0]


def test_an_inner_call_of_attention_can_be_changed():
    attention = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)
    x = torch.randn(2, 5, 8)
    recording = run(attention, (x, x, x))
    softmax = next(call for call in recording.tape.calls if call.name.endswith("softmax"))
    change = Intervention(softmax.index, after=lambda output, args, kwargs, scratch: output * 0)
    output = run(attention, (x, x, x), interventions=(change,), record=False).output[0]
    assert torch.count_nonzero(output) == 0


def test_observers_see_what_the_model_goes_on_with_and_can_hook_it():
    model, x = build("in place")
    seen = {}

    class Hooks:
        def on_output(self, index, outputs):
            outputs[0].register_hook(lambda grad: seen.update({index: grad}))

    run(copy.deepcopy(model), (x,), observer=Hooks(), record=False).output.sum().backward()
    assert set(seen) == {0, 1, 2}


def test_a_changed_run_leaves_the_parameters_alone():
    model, x = build("in place")
    before = copy.deepcopy(model.state_dict())
    run(model, (x,), interventions=(Intervention(0, after=lambda output, *_: output * 2),))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
