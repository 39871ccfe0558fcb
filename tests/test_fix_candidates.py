"""A finding and its stretch become candidates: what each recipe changes, what it is called and what it costs."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.capture import capture
from gradlint.finding import FAMILIES, Finding
from gradlint.fix import recipes as table
from gradlint.fix.candidate import Candidate, Initialise, Normalise, Rescale, Skip, Swap
from gradlint.fix.candidates import build, candidates
from gradlint.fix.recipes import Recipe, recipes
from gradlint.fix.stretch import stretch
from gradlint.graph import Graph


def graph_of(model: nn.Module, *shape: int) -> Graph:
    return capture(model, (torch.zeros(shape),), {})[0]


def chain(depth: int, activation: type[nn.Module] = nn.Sigmoid, width: int = 16) -> nn.Sequential:
    body = [m for _ in range(depth) for m in (nn.Linear(width, width), activation())]
    return nn.Sequential(*body, nn.Linear(width, 3))


def finding(rule: str = "", family: str = "vanishing", ops: tuple[int, ...] = (), cause: str = "") -> Finding:
    return Finding("GL000", rule, family, "error", "confirmed", "", ops=ops, cause=cause)  # type: ignore[arg-type]


def made(model: nn.Module, recipe: Recipe, *shape: int, about: Finding | None = None) -> Candidate:
    graph = graph_of(model, *shape)
    found = build(recipe, stretch(graph, ()), about or finding())
    assert found is not None
    return found


def test_the_cause_is_looked_up_before_the_rule_and_the_rule_before_the_family():
    assert recipes(finding("large-init", "vanishing", cause="hidden-softmax"), "ce") == table.TABLE["hidden-softmax"]
    assert recipes(finding("large-init", "vanishing"), "ce") == table.TABLE["large-init"]
    assert recipes(finding("a-rule-of-a-pack", "vanishing"), "ce") == table.TABLE["vanishing"]


def test_wiring_has_no_fix_to_try_and_every_other_family_has():
    assert [family for family in FAMILIES if not recipes(finding("", family), "ce")] == ["wiring"]


def test_a_saturating_chain_is_offered_relu_with_he_first():
    first = candidates(graph_of(chain(20), 64, 16), finding("saturating-chain"), "ce")[0]
    assert first.title == (
        "replace nn.Sigmoid by nn.ReLU in 20 places (1 … 39) and initialise 20 weights with kaiming_normal_"
    )
    swaps = [step for step in first.steps if isinstance(step, Swap)]
    draws = [step for step in first.steps if isinstance(step, Initialise) and step.scheme == "kaiming_normal"]
    assert len(swaps) == len(draws) == 20
    assert first.parameters == 0 and first.edits == 2
    assert draws[0].gain == pytest.approx(math.sqrt(2)) and draws[0].fan_in == 16


def test_biases_are_drawn_with_their_weights():
    steps = made(chain(1), Recipe(init="matched"), 8, 16).steps
    assert Initialise("0.bias", "zeros", 1.0, 16, 16) in steps


def test_the_default_initialisation_draws_weight_and_bias_alike():
    steps = made(chain(1), Recipe(init="default"), 8, 16).steps
    assert [(step.param, step.scheme) for step in steps if isinstance(step, Initialise)] == [
        ("0.weight", "default"),
        ("0.bias", "default_bias"),
    ]


@pytest.mark.parametrize(
    ("model", "shape", "norm"),
    [
        (chain(1), (64, 16), "batch_norm"),
        (chain(1), (2, 16), "layer_norm"),
        (chain(1), (64, 5, 16), "layer_norm"),
        (nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 2)), (16, 3, 8, 8), "batch_norm"),
        (nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Flatten(), nn.Linear(432, 2)), (2, 3, 8, 8), "group_norm"),
    ],
    ids=["features", "small batch", "tokens", "images", "few images"],
)
def test_the_norm_fits_layout_and_batch(model, shape, norm):
    steps = made(model, Recipe(norm="fitting"), *shape).steps
    assert [step.function for step in steps if isinstance(step, Normalise)] == [norm]


def test_batch_norm_is_never_put_where_an_image_comes_out():
    denoiser = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
    found = made(denoiser, Recipe(norm="fitting"), 16, 3, 8, 8)
    assert found.steps == (Normalise(0, "group_norm", 8),)
    assert "not batchnorm: the output is an image" in found.price


def test_a_norm_is_not_added_where_there_is_one():
    model = nn.Sequential(nn.Linear(16, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    graph = graph_of(model, 8, 16)
    assert build(Recipe(norm="fitting"), stretch(graph, ()), finding()) is None


def test_norm_and_skip_count_their_parameters_and_edits():
    found = made(chain(3), Recipe(norm="fitting", skip=True), 64, 16)
    assert sum(isinstance(step, Skip) for step in found.steps) == 3
    assert found.parameters == 3 * 2 * 16 and found.edits == 2
    assert found.work > 0
    assert "96 parameters more" in found.price and "8 or more samples" in found.price


def test_a_skip_says_how_many_layers_it_leaves_out():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    assert "a projection is needed at 1 more" in made(model, Recipe(skip=True), 8, 8).price


def test_pre_norm_costs_a_final_norm_and_is_offered_to_stacks_of_post_norm_alone():
    layers = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 3)
    found = made(layers, Recipe(prenorm=True), 2, 5, 16)
    assert found.title.startswith("norm before the branch in 6 blocks, x + f(norm(x)), and a final norm")
    assert found.parameters == 2 * 16
    assert "the last sum needs a final norm" in found.price and "a checkpoint no longer loads" in found.price
    first = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    stack = nn.TransformerEncoder(first, 3, norm=nn.LayerNorm(16), enable_nested_tensor=False)
    assert build(Recipe(prenorm=True), stretch(graph_of(stack, 2, 5, 16), ()), finding()) is None


def test_a_note_gets_the_fixes_of_notes_alone():
    note = Finding("GL504", "deep-post-norm", "architecture", "info", "confirmed", "")
    assert recipes(note, "ce") == (table.PRE_NORM,)
    assert recipes(replace(note, rule="saturating-chain"), "ce") == ()


def test_a_recipe_whose_part_finds_nothing_is_no_candidate():
    widening = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 2))
    assert build(Recipe(norm="fitting", skip=True), stretch(graph_of(widening, 8, 8), ()), finding()) is None


def test_an_init_far_out_of_proportion_is_drawn_anew_outside_the_stretch_too():
    model = chain(3, nn.ReLU)
    nn.init.normal_(model[-1].weight)  # the head: RMS 1, √fan_in = 4 times LeCun
    drawn = {step.param for step in made(model, Recipe(init="matched"), 8, 16).steps if isinstance(step, Initialise)}
    assert "6.weight" in drawn
    sound = {step.param for step in made(chain(3), Recipe(init="matched"), 8, 16).steps if isinstance(step, Initialise)}
    assert "6.weight" not in sound


def test_a_shared_weight_is_drawn_once():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 2)

        def forward(self, x):
            return self.head(F.relu(self.layer(F.relu(self.layer(x)))))

    steps = made(Shared(), Recipe(init="lsuv"), 8, 16).steps
    assert [step.param for step in steps if isinstance(step, Rescale)] == ["layer.weight"]
    assert [step.op for step in steps if isinstance(step, Rescale)] == [0]


def test_tanh_keeps_its_gain_and_selu_gets_lecun():
    tanh = made(chain(2, nn.Tanh), Recipe(init="matched"), 8, 16).steps[0]
    assert tanh == Initialise("0.weight", "xavier_normal", 5 / 3, 16, 16)
    selu = made(chain(2), Recipe(activation="selu", init="matched"), 8, 16)
    assert Initialise("0.weight", "lecun_normal", 1.0, 16, 16) in selu.steps
    assert "lecun_normal" in selu.title


def test_an_exponential_is_priced_against_a_comparison():
    assert "exponential" in made(chain(2), Recipe(activation="elu"), 8, 16).price
    assert "no exponential" in made(chain(2), Recipe(activation="leaky_relu"), 8, 16).price


def test_a_reinitialisation_says_that_it_is_for_training_from_scratch():
    assert "from scratch" in made(chain(2), Recipe(init="orthogonal"), 8, 16).price


def test_sine_layers_get_the_bounds_of_their_frequency():
    class Siren(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 16), nn.Linear(16, 16)])
            self.head = nn.Linear(16, 1)

        def forward(self, x):
            for layer in self.layers:
                x = torch.sin(30 * layer(x))
            return self.head(x)

    first, second = [
        step for step in made(Siren(), Recipe(init="matched"), 8, 2).steps if getattr(step, "scheme", "") == "siren"
    ]
    assert first.gain / math.sqrt(2) == pytest.approx(1 / 2)
    assert second.gain == pytest.approx(math.sqrt(6) / 30)


def test_the_output_activation_is_taken_out():
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(dim=1))
    found = made(model, Recipe(output="identity"), 4, 8, about=finding(family="output"))
    assert found.steps == (Swap(3, "identity"),)
    assert found.title == "remove nn.Softmax (3)"


@pytest.mark.parametrize(("after", "removed"), [([nn.LogSoftmax(1)], True), ([], False)])
def test_for_a_loss_of_log_probabilities_a_rectifier_goes_only_where_a_log_softmax_stays(after, removed):
    graph = graph_of(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3), nn.ReLU(), *after), 4, 8)
    found = candidates(graph, finding(family="output", ops=(3,)), "nll")
    assert ((Swap(3, "identity"),) in [each.steps for each in found]) == removed


def test_residual_branches_are_scaled_by_their_number():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))

        def forward(self, x):
            for layer in self.layers:
                x = x + F.relu(layer(x))
            return x

    found = made(Residual(), Recipe(init="depth"), 4, 8)
    assert found.steps == tuple(Initialise(f"layers.{i}.weight", "scale", 0.5) for i in range(4))
    assert found.title == "scale the last weight of 4 residual branches by 1/sqrt(4)"


def test_a_vanilla_rnn_is_offered_the_identity_recurrence():
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(4, 8), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0][-1])

    steps = made(Net(), Recipe(recurrent="irnn"), 10, 3, 4).steps
    assert Swap(0, "rnn_relu") in steps or any(isinstance(s, Swap) and s.function == "rnn_relu" for s in steps)
    assert any(isinstance(s, Initialise) and s.param == "rnn.weight_hh_l0" and s.scheme == "eye" for s in steps)


@pytest.mark.parametrize("recipe", [r for row in table.TABLE.values() for r in row])
def test_titles_are_one_short_line(recipe):
    graph = graph_of(chain(30), 64, 16)
    found = build(recipe, stretch(graph, ()), finding())
    assert found is None or (len(found.title) <= 120 and "\n" not in found.title and not found.title.endswith("…"))


def pyramid(*widths: int) -> nn.Sequential:
    rows = [row for a, b in pairwise(widths) for row in (nn.Linear(a, b), nn.Sigmoid())]
    return nn.Sequential(*rows, nn.Linear(widths[-1], 2))


def test_skips_are_projected_where_most_blocks_change_the_shape():
    candidate = made(pyramid(16, 12, 8, 8), table.NORM_PROJECTION, 32, 16)
    assert [step.stride for step in candidate.steps if isinstance(step, Skip)] == [1, 1, 0]
    assert candidate.parameters == 16 * 12 + 12 * 8 + 2 * (12 + 8 + 8)
    assert "a skip (2 projected) around 3 blocks" in candidate.title
    assert build(table.NORM_PROJECTION, stretch(graph_of(pyramid(8, 8, 8, 12), 32, 8), ()), finding()) is None


def test_a_strided_convolution_is_projected_in_its_steps():
    convs = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    steps = made(convs, table.NORM_PROJECTION, 8, 3, 16, 16).steps
    (skip,) = [step for step in steps if isinstance(step, Skip)]
    assert (skip.stride, skip.channels) == (2, True)  # without padding no projection reaches the second one's shape


class Steps(nn.Module):
    """Three steps of one softmax, put together."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(8, 8), nn.Linear(8, 5)

    def forward(self, x):
        state, found = torch.zeros(len(x), 8), []
        for _ in range(3):
            state = self.cell(x, state)
            found.append(self.out(state).softmax(-1))
        return torch.stack(found, 1)


def test_an_output_activation_is_taken_out_of_every_step():
    graph = graph_of(Steps(), 4, 8)
    squashed = tuple(op.index for op in graph.ops if op.kind == "softmax")
    found = build(table.NO_OUTPUT, stretch(graph, squashed), finding("squashed-logits", "output", squashed))
    assert found is not None
    assert [step.op for step in found.steps if isinstance(step, Swap)] == list(squashed)


def test_biases_that_decide_what_a_layer_makes_are_named_beside_the_weights():
    model = chain(2, nn.ReLU)
    title = made(model, table.MATCHED, 4, 16).title
    assert "with 0" not in title
    nn.init.constant_(model[0].bias, -5.0)
    assert made(model, table.MATCHED, 4, 16).title == f"{title}, and 1 bias with 0"
