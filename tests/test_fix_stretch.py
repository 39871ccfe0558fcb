"""A finding's ops become a trunk: which layers, activations and blocks a fix may touch, and which it leaves alone."""

import torch
import torch.nn.functional as F
from torch import nn

from gradlint.capture import capture
from gradlint.fix.residual import branch_ends
from gradlint.fix.stretch import stretch
from gradlint.graph import Graph


def graph_of(model: nn.Module, *shape: int) -> Graph:
    return capture(model, (torch.zeros(shape),), {})[0]


def chain(depth: int, activation: type[nn.Module] = nn.Sigmoid) -> nn.Sequential:
    return nn.Sequential(*(m for _ in range(depth) for m in (nn.Linear(8, 8), activation())), nn.Linear(8, 3))


class Gated(nn.Module):
    """Sigmoids that multiply: a squeeze-and-excitation gate, a GLU, a hand-written SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.value(x) * torch.sigmoid(self.gate(x))
        x = x * torch.sigmoid(x)
        return torch.sigmoid(self.head(F.relu(x)))


class Residual(nn.Module):
    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.inner = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.outer = nn.ModuleList(nn.Linear(8, 8) for _ in range(depth))
        self.norm = nn.ModuleList(nn.LayerNorm(8) for _ in range(depth))

    def forward(self, x):
        for inner, outer, norm in zip(self.inner, self.outer, self.norm, strict=True):
            x = x + norm(outer(F.relu(inner(x))))
        return x


def test_the_whole_graph_is_the_stretch_when_no_ops_are_named():
    found = stretch(graph_of(chain(3), 4, 8), ())
    assert [layer.op.module_path for layer in found.layers] == ["0", "2", "4"]
    assert [layer.op.module_path for layer in found.heads] == ["6"]
    assert [op.function for op in found.activations] == ["sigmoid"] * 3


def test_named_ops_span_everything_on_a_path_between_them():
    found = stretch(graph_of(chain(4), 4, 8), (2, 6))
    assert [layer.op.module_path for layer in found.layers] == ["2", "4", "6"]
    assert [op.index for op in found.activations] == [3, 5]


def test_gates_and_output_activations_are_not_the_trunks():
    found = stretch(graph_of(Gated(), 4, 8), ())
    assert [op.function for op in found.activations] == ["relu"]
    assert [op.function for op in found.outputs] == ["sigmoid"]


def test_a_layer_that_only_gates_is_told_from_one_that_carries():
    gates = {layer.op.module_path: layer.gate for layer in stretch(graph_of(Gated(), 4, 8), ()).layers}
    assert gates == {"value": False, "gate": True}


def test_queries_and_keys_gate_and_values_carry():
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.head = (nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            weights = torch.softmax(self.q(x) @ self.k(x).transpose(-1, -2), -1)
            return self.head(weights @ self.v(x))

    gates = {layer.op.module_path: layer.gate for layer in stretch(graph_of(Attention(), 2, 5, 8), ()).layers}
    assert gates == {"q": True, "k": True, "v": False}


def test_a_layer_knows_the_activation_after_it_and_its_gain():
    model = chain(2, nn.Tanh)
    nn.init.ones_(model[0].weight)
    first, second = stretch(graph_of(model, 4, 8), ()).layers
    assert first.activation is not None and first.activation.function == "tanh"
    assert first.gain is not None and abs(first.gain - 8**0.5) < 1e-5
    assert second.gain is not None and 0.4 < second.gain < 0.75  # torch's default is 1/√3


def test_a_layer_with_a_norm_before_or_after_is_normalised():
    model = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert [layer.normalised for layer in stretch(graph_of(model, 4, 8), ()).layers] == [True, False]


def test_blocks_are_layers_that_keep_the_shape_and_have_no_skip_yet():
    widening = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    assert [b.start.module_path for b in stretch(graph_of(widening, 4, 8), ()).blocks] == ["2"]
    assert [b.end.module_path for b in stretch(graph_of(widening, 4, 8), ()).blocks] == ["3"]


def test_a_residual_branch_gets_no_second_skip():
    assert stretch(graph_of(Residual(), 4, 8), ()).blocks == ()


def test_weights_that_are_computed_have_no_parameter_to_initialise():
    model = chain(1)
    nn.utils.parametrizations.spectral_norm(model[0])
    layer = stretch(graph_of(model, 4, 8), ()).layers[0]
    assert layer.param is None


def test_an_image_in_and_out_is_told_from_a_classifier():
    denoiser = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1))
    classifier = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    assert stretch(graph_of(denoiser, 2, 3, 8, 8), ()).image_output
    assert not stretch(graph_of(classifier, 2, 3, 8, 8), ()).image_output


def test_a_residual_branch_ends_in_the_gain_of_its_last_norm():
    assert [end.path for end in branch_ends(graph_of(Residual(), 4, 8))] == [f"norm.{i}.weight" for i in range(3)]


def test_a_layer_scale_is_seen_through():
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
            self.scale = nn.Parameter(torch.full((8,), 1e-6))

        def forward(self, x):
            for layer in self.layers:
                x = x + layer(x) * self.scale.reshape(1, -1)
            return x

    assert [end.path for end in branch_ends(graph_of(Scaled(), 4, 8))] == ["layers.0.weight", "layers.1.weight"]


def test_a_sum_of_two_inputs_is_no_residual_branch():
    class Merge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(8, 8), nn.Linear(4, 8)

        def forward(self, x, y):
            return self.left(x) + self.right(y)

    graph, _ = capture(Merge(), (torch.zeros(2, 8), torch.zeros(2, 4)), {})
    assert branch_ends(graph) == ()
