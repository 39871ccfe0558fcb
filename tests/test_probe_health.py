"""The verdict: which way the signal takes, what it loses on it, and whether the model will train."""

import csv
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from gradlint.capture import capture
from gradlint.graph.ir import Graph, Op, Param, Value
from gradlint.probe import attribution, measure
from gradlint.probe.health import LIMITS, Health, chaos, grade, judge, reached, relative
from gradlint.probe.route import aspect, chain, series, weights, widest
from gradlint.profile import Measurement, ParamMeasure, Profile, Signal

X = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))

ROOT = Path(__file__).parents[1]


class Lambda(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *args):
        return self.function(self, *args)


def probe(model, *args):
    loaded = SimpleNamespace(model=model, args=args, kwargs={}, loss=None, loss_hint=None, rebuild=None, draw=None)
    return measure(loaded)


def state(model, *args):
    return judge(*probe(model, *args)).state


def mlp(depth, activation, width=32, std=None):
    layers = [layer for _ in range(depth) for layer in (nn.Linear(width, width), activation())]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    for layer in model if std is not None else ():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, std)
    return model


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# the way of the signal -----------------------------------------------------------------------------------------------


def graph_of(model, *args):
    return capture(model, args)[0]


def numbers(graph, table):
    return widest(graph, lambda path: table[path.removesuffix(".weight")])


def two_branches():
    return Lambda(
        lambda m, x: m.head(m.left(x).tanh() + m.right(x).tanh()),
        left=nn.Linear(32, 32),
        right=nn.Linear(32, 32),
        head=nn.Linear(32, 4),
    )


def test_a_dead_branch_beside_a_live_one_does_not_count():
    route = numbers(graph_of(two_branches(), X), {"left": -9.0, "right": -1.0, "head": 0.0})
    assert (route.width, route.weakest) == (-1.0, "right.weight")


def test_two_dead_branches_do_although_neither_is_in_series():
    graph = graph_of(two_branches(), X)
    assert numbers(graph, {"left": -9.0, "right": -8.0, "head": 0.0}).width == -8.0
    assert [graph.ops[index].params[0] for index in series(graph)] == ["head.weight"]


def test_a_way_without_any_weight_is_no_excuse():
    model = Lambda(lambda m, x: x + m.body(x), body=nn.Linear(32, 32))
    assert numbers(graph_of(model, X), {"body": -9.0}).width == -9.0


def test_weights_of_a_residual_branch_are_not_in_series():
    model = Lambda(
        lambda m, x: m.head((h := m.stem(x)) + m.body(h)),
        stem=nn.Linear(32, 32),
        body=nn.Linear(32, 32),
        head=nn.Linear(32, 4),
    )
    graph = graph_of(model, X)
    assert [graph.ops[index].params[0] for index in series(graph)] == ["stem.weight", "head.weight"]


def test_computed_weights_count_for_the_op_that_uses_them():
    model = nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32)), nn.ReLU(), nn.Linear(32, 4))
    graph = graph_of(model, X)
    assert list(weights(graph).values()) == [("0.parametrizations.weight.original",), ("2.weight",)]


def test_the_signal_starts_behind_a_frozen_or_detached_part():
    model = Lambda(
        lambda m, x: m.head(m.body(m.frozen(x)).detach().tanh()),
        frozen=nn.Linear(32, 32).requires_grad_(False),
        body=nn.Linear(32, 32),
        head=nn.Linear(32, 4),
    )
    assert numbers(graph_of(model, X), {"body": -9.0, "head": -1.0}).width == -1.0


def test_the_worst_output_of_several_decides():
    model = Lambda(lambda m, x: (m.good(x), m.bad(x)), good=nn.Linear(32, 4), bad=nn.Linear(32, 4))
    assert numbers(graph_of(model, X), {"good": 0.0, "bad": -9.0}).weakest == "bad.weight"


def test_depth_over_width_counts_the_hidden_layers_in_series():
    graph = graph_of(mlp(6, nn.ReLU, width=8), torch.randn(4, 8))
    assert aspect(graph) == 6 / 8
    first, second, *_ = chain(graph)
    assert aspect(graph, around={first, second}) == 4 / 8
    assert aspect(graph_of(nn.Sequential(nn.Linear(8, 1)), torch.randn(4, 8))) == 0.0


def test_a_unit_is_an_entry_of_a_samples_output():
    convs = nn.Sequential(*[nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)], nn.Flatten(), nn.Linear(32, 2))
    assert aspect(graph_of(convs, torch.randn(4, 2, 4, 4))) == 3 / 32


def test_a_weight_that_every_step_shares_is_one_layer():
    steps = Lambda(lambda m, x: m.head(m.cell(m.cell(m.cell(x)))), cell=nn.Linear(8, 8), head=nn.Linear(8, 2))
    assert aspect(graph_of(steps, torch.randn(4, 8))) == 1 / 8


def test_layers_of_a_recurrent_op_are_in_series_and_the_weights_of_one_are_not():
    graph = graph_of(nn.LSTM(32, 8, 2, batch_first=True), X.view(4, 4, 32))
    table = {"weight_ih_l0": -9.0, "weight_hh_l0": -1.0, "weight_ih_l1": -2.0, "weight_hh_l1": -9.0}
    assert widest(graph, table.__getitem__).weakest == "weight_ih_l1"


# the verdict ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("m", -1.0, "healthy"),
        ("m", LIMITS["any"]["m"][0] - 0.1, "warning"),
        ("m", -20.0, "error"),
        ("m", -math.inf, "error"),
        ("m", math.nan, "error"),
        ("c", 1.9, "healthy"),
        ("c", 2.5, "warning"),
        ("c", 40.0, "error"),
        ("s", 0.5, "healthy"),
        ("s", 2.0, "warning"),
        ("s", math.inf, "error"),
    ],
)
def test_a_statistic_is_graded_by_its_limits(name, value, expected):
    assert grade(value, LIMITS["any"][name]) == expected


def test_a_plain_net_too_deep_for_its_width_is_a_warning_though_its_gradient_arrives():
    layers = [m for _ in range(24) for m in (nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU())]
    graph, measured = probe(nn.Sequential(*layers, nn.Linear(32, 10)), X)
    verdict = judge(graph, measured)
    assert (verdict.state, verdict.kind, verdict.r) == ("warning", "too deep", 24 / 32)
    assert verdict.m > LIMITS["any"]["m"][0]
    assert judge(graph, measured, around=set(chain(graph)[:12])).state == "healthy"


def test_the_score_is_the_place_between_the_limits_of_an_optimiser():
    graph, measured = probe(mlp(6, nn.Sigmoid), X)
    for name in ("sgd", "adam"):
        verdict = judge(graph, measured, optimizer=name)
        warning, error = LIMITS[name]["m"]
        assert verdict.score(name) == pytest.approx((verdict.m - warning) / (error - warning))
        assert (verdict.score(name) > 1) == (verdict.state == "error")


def test_a_told_optimiser_moves_the_limits():
    graph, measured = probe(mlp(6, nn.Sigmoid), X)
    verdicts = {name: judge(graph, measured, optimizer=name) for name in LIMITS}
    assert verdicts["sgd"].m == verdicts["adam"].m < LIMITS["sgd"]["m"][1]
    assert verdicts["sgd"].state == "error"
    assert verdicts["adam"].state == "warning"


FAULTY = {
    "20 sigmoid layers": (lambda: mlp(20, nn.Sigmoid), "vanishing"),
    "20 ReLU layers as nn.Linear draws them": (lambda: mlp(20, nn.ReLU), "vanishing"),
    "10 tanh layers of small weights": (lambda: mlp(10, nn.Tanh, std=0.01), "vanishing"),
    "30 ReLU layers from N(0, 1)": (lambda: mlp(30, nn.ReLU, std=1.0), "blow-up"),
    "30 tanh layers from N(0, 1)": (lambda: mlp(30, nn.Tanh, std=1.0), "exploding"),
    "16 small layers beside a way that ends in nothing": (lambda: sines(16), "vanishing"),
}


def sines(depth):
    """Small weights beside a way without any, which ends in nothing: the derivative of 0.1 cos x is 0 at x = 0."""
    layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(depth))
    for layer in layers:
        nn.init.normal_(layer.weight, 0, 0.01)
        nn.init.zeros_(layer.bias)

    def forward(model, x):
        for layer in model.layers:
            x = torch.sin(layer(x)) + 0.1 * torch.cos(x)
        return model.head(x)

    return Lambda(forward, layers=layers, head=nn.Linear(32, 10))


def convolved(depth, activation):
    """Graph convolutions: every layer reads the adjacency, which is an input, and the features of the layer before."""

    def forward(model, x, adjacency):
        for layer in model.layers:
            x = activation(adjacency @ layer(x))
        return model.head(x)

    return Lambda(forward, layers=nn.ModuleList(nn.Linear(32, 32) for _ in range(depth)), head=nn.Linear(32, 10))


def test_an_adjacency_matrix_is_no_way_past_the_layers_that_it_mixes():
    for activation, expected in ((torch.sigmoid, "error"), (lambda x: 2**0.5 * torch.relu(x), "healthy")):
        model = convolved(16, activation)
        for layer in model.layers:
            nn.init.orthogonal_(layer.weight)
        verdict = judge(*probe(model, X, torch.eye(16)))
        assert verdict.state == expected, verdict.reasons
        assert verdict.route is not None
        assert len(set(verdict.route.ops) & set(weights(probe(model, X, torch.eye(16))[0]))) == 17


def test_what_lies_before_a_value_that_every_way_passes_learns_through_it_alone():
    graph, facts = probe(sines(16), X)
    verdict = judge(graph, facts)
    assert verdict.weakest == "layers.0.weight"
    assert verdict.m is not None
    assert verdict.m < -10
    measured = relative(graph, facts)("layers.0.weight")
    assert verdict.m == pytest.approx(measured, abs=2), "an ordinary weight is larger than these"


@pytest.mark.parametrize("name", FAULTY)
def test_a_net_that_will_not_train_is_an_error(name):
    make, kind = FAULTY[name]
    verdict = judge(*probe(make(), X))
    assert (verdict.state, verdict.kind) == ("error", kind)
    assert verdict.reasons
    assert verdict.score() > 1


class ScaledBlock(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.body = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x):
        return x + self.scale * self.body(x)


def scaled_only():
    """Every way leads through gains of 1e-5, as in the class attention of CaiT."""
    return Lambda(
        lambda m, x: m.head(m.scale * m.body(m.stem(x)) + m.token),
        stem=nn.Linear(32, 32),
        body=nn.Linear(32, 32),
        scale=nn.Parameter(torch.full((32,), 1e-5)),
        token=nn.Parameter(torch.randn(32)),
        head=nn.Linear(32, 10),
    )


def small_head():
    model = mlp(3, nn.ReLU)
    nn.init.uniform_(model[-1].weight, -3e-5, 3e-5)
    return model


def he(depth):
    return mlp(depth, nn.ReLU, std=(2 / 32) ** 0.5)


HEALTHY = {
    "20 ReLU layers from He": lambda: he(20),
    "layer scale of 1e-6": lambda: nn.Sequential(
        nn.Linear(32, 32), *(ScaledBlock(32, 1e-6) for _ in range(8)), nn.Linear(32, 10)
    ),
    "layer scale of 0": lambda: nn.Sequential(
        nn.Linear(32, 32), *(ScaledBlock(32, 0.0) for _ in range(8)), nn.Linear(32, 10)
    ),
    "gains of 1e-5 on every way": scaled_only,
    "a head drawn small on purpose": small_head,
    "an autoencoder with a sigmoid output": lambda: nn.Sequential(
        nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 32), nn.Sigmoid()
    ),
    "a post-norm transformer": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 16)), nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 10)
    ),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_net_that_trains_is_healthy(name):
    verdict = judge(*probe(HEALTHY[name](), X))
    assert verdict.state == "healthy", verdict.reasons


def test_the_scale_of_a_mean_over_many_outputs_is_the_losss_own():
    def net(outputs):
        return nn.Sequential(*mlp(3, nn.Sigmoid)[:-1], nn.Linear(32, outputs), nn.Tanh())

    few, many = judge(*probe(net(1), X)), judge(*probe(net(10_000), X))
    assert few.weakest == many.weakest == "0.weight"
    assert many.m > few.m - 0.5  # two decades less without it


def test_a_prediction_whose_band_straddles_a_limit_is_unknown():
    graph = graph_of(mlp(1, nn.Tanh), X)
    between = sum(LIMITS["any"]["m"]) / 2 + math.log10(graph.params["0.weight"].rms)
    values = {"0.weight": between, "2.weight": -1.0}
    signal = Signal(Profile(params=values, spread={"0.weight": 0.01}), "ce")
    assert judge(graph, signal).state == "warning"
    wide = replace(signal, profile=replace(signal.profile, spread={"0.weight": 0.8}))
    assert judge(graph, wide).state == "unknown"


def test_prediction_and_measurement_are_judged_alike():
    graph, measured = probe(he(5), X)
    signal = Signal(replace(measured.profile, spread={}), measured.loss)
    seen, predicted = judge(graph, measured), judge(graph, signal)
    assert predicted.m == pytest.approx(seen.m, abs=1e-5)
    assert predicted.c == pytest.approx(seen.c, abs=1e-5)
    assert predicted.s == pytest.approx(seen.s, abs=1e-5)


def test_a_structural_zero_is_not_held_against_a_prediction():
    graph = graph_of(mlp(1, nn.Tanh), X)
    signal = Signal(Profile(params={"0.weight": -math.inf, "2.weight": -1.0}), "ce", zeros={"0.weight": "zero head"})
    assert judge(graph, signal).state == "healthy"


def test_nothing_known_is_unknown():
    assert judge(graph_of(mlp(1, nn.Tanh), X), Signal(Profile(), "ce")).state == "unknown"


def test_a_parameter_that_is_zero_and_gets_no_gradient_never_moves():
    graph, measured = probe(mlp(1, nn.Tanh), X)
    dead = ParamMeasure(-math.inf, -math.inf, "zero")
    moving = ParamMeasure(-1.0, -math.inf, "ok")
    assert relative(graph, replace(measured, params={"0.weight": dead}))("0.weight") == -math.inf
    assert relative(graph, replace(measured, params={"0.weight": moving}))("0.weight") is None


def test_chaos_is_what_the_elasticity_gains_towards_the_input():
    graph, measured = probe(mlp(3, nn.Tanh), X)
    excess, strongest = chaos(graph, measured)
    top = max(measured.params[path].elasticity for path in ("0.weight", "2.weight", "4.weight", "6.weight"))
    assert excess == pytest.approx(top - measured.params["6.weight"].elasticity)
    assert measured.params[strongest].elasticity == top


class Identity(nn.Module):
    """A ReLU recurrence that starts as the identity, as a loop or as one op; its readout starts small."""

    def __init__(self, fused):
        super().__init__()
        self.fused = fused
        self.rnn, self.head = nn.RNN(4, 32, nonlinearity="relu", batch_first=True), nn.Linear(32, 1)
        with torch.no_grad():
            self.rnn.weight_hh_l0.copy_(torch.eye(32))
            self.rnn.weight_ih_l0.normal_(0, 0.001)

    def forward(self, x):
        if self.fused:
            return self.head(self.rnn(x)[0][:, -1])
        state, forwards = torch.zeros(len(x), 32), self.rnn.weight_hh_l0.T
        for step in x.unbind(1):
            state = torch.relu(step @ self.rnn.weight_ih_l0.T + state @ forwards)
        return self.head(state)


@pytest.mark.parametrize("fused", [True, False])
def test_what_adds_up_over_the_steps_of_an_identity_is_no_growth(fused):
    torch.manual_seed(0)
    graph, measured = probe(Identity(fused), torch.rand(32, 60, 4))
    excess, _ = chaos(graph, measured)
    assert excess < 1.0
    raw = measured.params["rnn.weight_hh_l0"].elasticity - measured.params["head.weight"].elasticity
    assert raw > 1.5


def test_the_share_of_time_that_a_gradient_reaches():
    assert reached((-20.0, -10.0, -2.0, -1.0)) == 0.5
    assert reached((-math.inf,) * 4) == 1.0


# attribution ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "stretch"),
    [
        ([-1.0, -1.0, -1.0], (0, 3)),
        ([0.1, -5.0, 0.0, -0.1], (1, 2)),
        ([3.0, 3.0, 0.1, 0.0], (0, 2)),
        ([0.0, -math.inf, 0.0], (1, 2)),
        ([-1.0, 2.0, -1.0, -4.0], (3, 4)),
    ],
)
def test_the_stretch_is_the_shortest_that_loses_nine_tenths(changes, stretch):
    assert attribution.shortest(changes) == stretch


def test_factors_multiply_to_what_the_gradient_loses_and_name_the_derivative():
    graph, measured = probe(nn.Sequential(*he(3)[:-1], *mlp(10, nn.Sigmoid)), X)
    found = attribution.gradient(graph, judge(graph, measured).route, measured.profile.gradient)
    assert sum(factor.decades for factor in found.factors) == found.decades
    assert found.decades <= 0.9 * found.total < 0
    first, last = graph.ops[found.ops[0]], graph.ops[found.ops[-1]]
    assert first.index > 5  # behind the healthy part
    loss = measured.profile.gradient[first.inputs[0]] - measured.profile.gradient[last.outputs[0]]
    assert found.decades == pytest.approx(loss)
    assert {factor.label for factor in found.factors} == {"σ′(z)", "W"}


def test_the_growth_of_an_activation_is_attributed_too():
    graph, measured = probe(mlp(30, nn.ReLU, std=1.0), X)
    found = attribution.activation(graph, judge(graph, measured).route, measured.profile.activation)
    assert found.total > 15
    assert {graph.ops[index].kind for index in found.ops} == {"linear", "activation"}


def test_nothing_is_attributed_to_a_single_op():
    graph, measured = probe(nn.Linear(32, 4), X)
    assert attribution.gradient(graph, judge(graph, measured).route, measured.profile.gradient) is None


# without torch -------------------------------------------------------------------------------------------------------


def test_health_and_attribution_are_imported_without_torch():
    code = (
        "import sys, gradlint.probe, gradlint.probe.health, gradlint.probe.attribution\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_graph_made_by_hand_is_judged():
    values = (
        Value(0, (4, 3), "float32", "input", consumers=(0,)),
        Value(1, (2, 3), "float32", "param", "weight", consumers=(0,), requires_grad=True),
        Value(2, (4, 2), "float32", "op", producer=0, requires_grad=True),
    )
    op = Op(0, "linear", "torch.nn.functional.linear", (0, 1), ("input", "weight"), (2,), params=("weight",))
    graph = Graph((op,), values, {"weight": Param("weight", (2, 3), "float32", True, 3, 2)}, (0,), (2,))
    measured = Measurement(
        Profile(), {"weight": ParamMeasure(-9.0, 0.0, "ok")}, {}, "ce", 1.0, 0.7, output_rms=0.0, output_spread=0.0
    )
    assert judge(graph, measured).m == -9.0
    assert judge(graph, measured).state == "error"


def area(rows, name, *, first):
    """The area under the curve of the score against failing with this optimiser, from the table alone."""
    chance, column = math.log(10), f"first {name}" if first else name
    floor = min(float(row[optimiser]) for row in rows for optimiser in ("sgd", "adam"))
    fails = [(chance - float(row[column])) / (chance - floor) < 0.5 for row in rows]
    healths = [Health("healthy", "none", **{n: float(row[n]) for n in LIMITS[name] if row[n]}) for row in rows]
    scores = [health.score(name) for health in healths]
    bad = [score for score, failed in zip(scores, fails, strict=True) if failed]
    good = [score for score, failed in zip(scores, fails, strict=True) if not failed]
    return sum((b > g) + 0.5 * (b == g) for b in bad for g in good) / (len(bad) * len(good))


def test_the_rules_page_quotes_the_committed_calibration():
    """The table of benchmarks/calibration.csv gives the areas under the curve that the page and the limits claim."""
    with (ROOT / "benchmarks" / "calibration.csv").open() as file:
        rows = list(csv.DictReader(file))
    page = (ROOT / "rules" / "gradlint_rules" / "vanishing" / "measured_vanishing.md").read_text()
    study = [row for row in rows if "study" in row["grid"]]
    assert f"trains {len(rows)} small nets" in page and f"the {len(study)} nets of the trainability study" in page
    for name in ("sgd", "adam"):
        assert area(study, name, first=True) >= 0.95
        for found in (area(rows, name, first=False), *(area(study, name, first=first) for first in (False, True))):
            assert found >= 0.94
            assert f"{found:.3f}" in page
