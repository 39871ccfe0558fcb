"""A fix is printed when, and only when, the same run with the change made shows that it helps."""

import copy
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gradlint.config import Settings
from gradlint.finding import Claim, Finding, Fix
from gradlint.fix import prove
from gradlint.fix.candidate import Normalise
from gradlint.fix.evidence import Pair, helped
from gradlint.fix.lookup import softenings
from gradlint.fix.symptom import clipping, decay, global_norm
from gradlint.fix.trial import Laboratory, Trial
from gradlint.graph import Graph, Param
from gradlint.load.model import LoadedModel
from gradlint.probe import measure
from gradlint.probe.health import judge
from gradlint.profile import Measurement, ParamMeasure
from gradlint.quantity import QUANTITIES

SETTINGS = Settings(device="cpu", loss="ce")


def loaded(model: nn.Module, *shape: int) -> LoadedModel:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return LoadedModel(model, (x,), {}, (), "Net()", None, None, lambda seed: ((x,), {}))


def chain(depth: int, activation: type[nn.Module], width: int = 64, std: float | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    body = [m for _ in range(depth) for m in (nn.Linear(width, width), activation())]
    model = nn.Sequential(*body, nn.Linear(width, 10))
    for parameter in model.parameters():
        if std is not None and parameter.ndim > 1:
            nn.init.normal_(parameter, 0, std)
    return model


def finding(graph: Graph, measurement: Measurement, rule: str, family: str, **more) -> Finding:
    """What a rule of the flow families says: the claim is about the weakest or strongest weight of the health."""
    health = judge(graph, measurement)
    claims = {
        "vanishing": Claim("relative-gradient", (health.weakest,), -3.0, "below"),
        "blow-up": Claim("activation-size", graph.outputs[:1], 1.5, "above"),
    }
    given = {"claim": claims.get(health.kind), "measured": {}, **more}
    return Finding("GL000", rule, family, "error", "confirmed", "", ops=tuple(range(len(graph.ops))), **given)


def proven(model: nn.Module, shape: tuple[int, ...], rule: str, family: str, **more) -> tuple[Fix, ...]:
    subject = loaded(model, *shape)
    graph, measurement = measure(subject, settings=SETTINGS)
    about = finding(graph, measurement, rule, family, **more)
    return prove(subject, graph, [about], measurement, SETTINGS)[0].fixes


def test_a_deep_sigmoid_net_is_made_healthy_by_relu_with_he():
    fixes = proven(chain(20, nn.Sigmoid), (64, 64), "saturating-chain", "vanishing")
    assert fixes[0].title.startswith("replace nn.Sigmoid by nn.ReLU in 20 places")
    assert fixes[0].measured_before["health"] == "error" and fixes[0].measured_after["health"] == "healthy"
    assert fixes[0].measured_before["relative-gradient"] < -10 and fixes[0].measured_after["relative-gradient"] > -3
    assert any("BatchNorm1d" in fix.title for fix in fixes)


def test_the_best_fix_carries_every_layer_as_it_was_measured_with_it():
    first, *others = proven(chain(20, nn.Sigmoid), (64, 64), "saturating-chain", "vanishing")
    assert [size.op for size in first.layers] == list(range(41))
    assert all(size.gradient_rms > 1e-4 and size.activation_rms > 0.1 for size in first.layers)
    assert others and not any(fix.layers for fix in others)


@pytest.mark.parametrize(
    ("model", "rule", "expected"),
    [
        (chain(30, nn.ReLU, std=1.0), "large-init", "kaiming_normal_"),
        (chain(30, nn.ReLU), "vanishing-init", "kaiming_normal_"),
        (chain(15, nn.Tanh, std=1.0), "large-init", "xavier_normal_"),
    ],
    ids=["N(0,1) relu", "default relu", "N(0,1) tanh"],
)
def test_an_init_is_replaced_by_the_one_that_matches_the_activation(model, rule, expected):
    fixes = proven(model, (64, 64), rule, "init", claim=None)
    assert expected in fixes[0].title
    assert fixes[0].measured_after["health"] == "healthy"


def test_a_plain_deep_convnet_is_made_healthy():
    torch.manual_seed(0)
    widths = [3, 8, 8, 16, 16, 32, 32, 32, 32, 32, 32, 32, 32, 32]
    layers = [nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(inplace=True)) for a, b in pairwise(widths)]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    fixes = proven(model, (16, 3, 16, 16), "vanishing-init", "init", claim=None)
    assert {"healthy"} == {fix.measured_after["health"] for fix in fixes}
    assert any("BatchNorm2d" in fix.title for fix in fixes)


def test_fixes_are_ranked_by_health_then_by_what_they_cost():
    fixes = proven(chain(20, nn.Sigmoid), (64, 64), "saturating-chain", "vanishing")
    states = [("healthy", "unknown", "warning").index(str(fix.measured_after["health"])) for fix in fixes]
    assert states == sorted(states)
    assert "BatchNorm" not in fixes[0].title and "BatchNorm" in fixes[-1].title
    assert len(fixes) <= 3


def test_a_fix_that_does_not_help_is_not_printed():
    model = chain(20, nn.Sigmoid)
    subject = loaded(model, 64, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    about = finding(graph, measurement, "constant-init", "init", cause="dead-units", claim=None)
    titles = [fix.title for fix in prove(subject, graph, [about], measurement, SETTINGS)[0].fixes]
    assert not any(title.startswith("initialise") for title in titles)  # no init saves 20 sigmoids


def test_a_healthy_model_gets_no_fix_without_a_claim():
    assert proven(chain(3, nn.ReLU), (64, 64), "vanishing-init", "init") == ()


def test_refuted_findings_and_notes_are_left_alone():
    subject = loaded(chain(20, nn.Sigmoid), 64, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    about = finding(graph, measurement, "saturating-chain", "vanishing")
    refuted = Finding(**{**vars(about), "verdict": "refuted"})
    note = Finding(**{**vars(about), "severity": "info"})
    assert prove(subject, graph, [refuted, note], measurement, SETTINGS) == [refuted, note]


def test_findings_that_share_a_cause_share_the_trials(monkeypatch):
    subject = loaded(chain(20, nn.Sigmoid), 64, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    runs = []
    original = Laboratory._run
    monkeypatch.setattr(Laboratory, "_run", lambda self, steps: runs.append(steps) or original(self, steps))
    about = finding(graph, measurement, "saturating-chain", "vanishing")
    first, second = prove(subject, graph, [about, about], measurement, SETTINGS)
    assert first.fixes == second.fixes and len(runs) == len(set(runs))


def test_what_trials_are_compared_with_is_measured_at_their_seed():
    subject = loaded(chain(20, nn.Sigmoid), 64, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    about = finding(graph, measurement, "saturating-chain", "vanishing")
    shifted = {path: replace(param, grad=param.grad + 0.1) for path, param in measurement.params.items()}
    over_seeds = replace(measurement, seeds=(0, 1, 2), params=shifted)  # means over seeds are other numbers
    assert prove(subject, graph, [about], over_seeds, SETTINGS) == prove(subject, graph, [about], measurement, SETTINGS)


def test_no_trial_is_made_when_the_time_is_spent(monkeypatch):
    monkeypatch.setattr("gradlint.fix.trial.SECONDS", 0.0)
    assert proven(chain(20, nn.Sigmoid), (64, 64), "saturating-chain", "vanishing") == ()


def test_the_users_model_is_not_touched():
    model = chain(20, nn.Sigmoid)
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    proven(model, (64, 64), "saturating-chain", "vanishing")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_a_candidate_that_cannot_run_is_passed_over():
    torch.manual_seed(0)
    subject = loaded(chain(20, nn.Sigmoid), 8, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    laboratory = Laboratory(subject, graph, SETTINGS, Trial(measurement, judge(graph, measurement)))
    assert laboratory.attempt((Normalise(0, "group_norm", 7),)) is None  # 7 does not divide 64


def test_skips_heal_a_net_too_deep_for_its_width():
    torch.manual_seed(0)
    layers = [m for _ in range(24) for m in (nn.Linear(32, 32), nn.LayerNorm(32), nn.ReLU())]
    fixes = proven(nn.Sequential(*layers, nn.Linear(32, 10)), (64, 32), "missing-skip", "architecture", claim=None)
    assert "skip" in fixes[0].title
    assert (fixes[0].measured_before["health"], fixes[0].measured_after["health"]) == ("warning", "healthy")


def test_constant_weights_are_told_by_units_that_are_copies():
    model = chain(3, nn.ReLU)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    fixes = proven(model, (64, 64), "constant-init", "init", claim=None)
    assert fixes[0].title == "initialise 4 weights with torch's default"
    assert fixes[0].measured_before["distinct-share"] < 0.1 and fixes[0].measured_after["distinct-share"] > 0.9


def test_a_logarithm_is_proven_safe_by_an_argument_of_zero():
    class Log(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(torch.log(2 * torch.sigmoid(self.layer(x))))

    torch.manual_seed(0)
    subject = loaded(Log(), 16, 8)
    graph, measurement = measure(subject, settings=SETTINGS)
    index = next(op.index for op in graph.ops if op.function == "log")
    about = Finding("GL801", "log-of-zero", "numerics", "error", "not-probed", "", op=index, ops=(index,))
    (fix,) = prove(subject, graph, [about], measurement, SETTINGS)[0].fixes
    assert fix.title.startswith("keep the argument of log at 1e-06 or more")
    assert fix.measured_before["finite"] is False and fix.measured_after["finite"] is True
    assert "one sample set to 0" in fix.price


def test_clipping_is_offered_for_explosions_only_and_called_a_symptom():
    model = chain(6, nn.ReLU, std=0.5)
    fixes = proven(model, (64, 64), "measured-exploding", "exploding", claim=None)
    clip = fixes[-2]
    assert clip.symptomatic and "clip_grad_norm_" in clip.title
    assert clip.measured_after["gradient norm"] < clip.measured_before["gradient norm"]
    vanishing = proven(chain(20, nn.Sigmoid), (64, 64), "saturating-chain", "vanishing")
    assert not any(fix.symptomatic for fix in vanishing)


def test_weight_decay_is_offered_with_the_norm_that_it_leaves():
    model = chain(6, nn.ReLU, std=0.5)
    decay = proven(model, (64, 64), "measured-exploding", "exploding", claim=None)[-1]
    assert decay.symptomatic and decay.title.startswith("decay weights: torch.optim.AdamW")
    told = float(decay.title.rpartition("=")[2].rstrip(")"))
    share = (1.0 - 1e-3 * told) ** 200
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(share)
    graph, measurement = measure(loaded(model, 64, 64), settings=SETTINGS)
    assert global_norm(graph, measurement) == pytest.approx(decay.measured_after["gradient norm"], rel=0.2)
    assert decay.measured_after["gradient norm"] < 10 < decay.measured_before["gradient norm"]


def test_no_weight_decay_is_offered_where_norms_make_the_gradient_grow_as_weights_shrink():
    torch.manual_seed(0)
    norm = nn.LayerNorm(64, eps=1e-30, elementwise_affine=False)
    subject = loaded(nn.Sequential(*[m for _ in range(4) for m in (nn.Linear(64, 64, bias=False), norm)]), 64, 64)
    for parameter in subject.model.parameters():
        nn.init.normal_(parameter, std=1e-4)
    graph, measurement = measure(subject, settings=SETTINGS)
    before = Trial(measurement, judge(graph, measurement))
    assert global_norm(graph, measurement) > 10
    assert decay(Laboratory(subject, graph, SETTINGS, before, before)) is None


class Chooser(nn.Module):
    """Looks up the row of a table that has the highest score, or all rows by their scores."""

    def __init__(self, dim: int = 1, *, soft: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.dim, self.soft = dim, soft
        self.score, self.table, self.head = nn.Linear(8, 6), nn.Embedding(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        scores = self.score(x)
        if self.soft:
            return self.head(scores.softmax(-1) @ self.table.weight)
        return self.head(self.table(scores.argmax(self.dim)))


def test_a_table_is_mixed_where_an_argmax_cuts_its_scores_off():
    subject = loaded(Chooser(), 64, 8)
    graph, measurement = measure(subject, settings=SETTINGS)
    cut = next(op.index for op in graph.ops if op.function == "argmax")
    claim = Claim("relative-gradient", ("score.weight",), -30.0, "below")
    about = Finding("GL902", "broken-gradient", "wiring", "error", "confirmed", "", op=cut, ops=(cut,), claim=claim)
    (fix,) = prove(subject, graph, [about], measurement, SETTINGS)[0].fixes
    soft, measured = measure(loaded(Chooser(soft=True), 64, 8), settings=SETTINGS)
    expected = QUANTITIES["relative-gradient"].function(soft, measured, ("score.weight",))
    assert fix.measured_after["relative-gradient"] == pytest.approx(expected, abs=1e-4)
    assert fix.measured_before["relative-gradient"] == -math.inf
    across = measure(loaded(Chooser(0), 6, 8), settings=SETTINGS)[0]
    assert softenings(across, (next(op.index for op in across.ops if op.function == "argmax"),)) == ()


def test_the_global_norm_is_that_of_torch():
    gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    subject = loaded(chain(1, nn.ReLU), 8, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    size = math.log10(float(gradient.square().mean().sqrt()))
    graph = replace(graph, params={"w": Param("w", (3, 4), "float32", True, 4, 3)})
    measurement = replace(measurement, params={"w": ParamMeasure(size, 0.0, "ok")})
    assert global_norm(graph, measurement) == pytest.approx(float(gradient.norm()), rel=1e-5)


def test_clipping_is_not_offered_where_nothing_explodes():
    subject = loaded(chain(3, nn.ReLU), 64, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    assert clipping(graph, Trial(measurement, judge(graph, measurement)), []) is None


def test_an_in_place_activation_in_a_functional_model_is_replaced():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(64, 64) for _ in range(15))
            self.head = nn.Linear(64, 10)

        def forward(self, x):
            for layer in self.layers:
                x = torch.sigmoid_(layer(x))
            return self.head(F.dropout(x, 0.0))

    torch.manual_seed(0)
    fixes = proven(Functional(), (64, 64), "saturating-chain", "vanishing")
    assert fixes[0].title.startswith("replace torch.sigmoid_ by torch.relu in 15 places")
    assert fixes[0].measured_after["health"] == "healthy"


def test_a_change_that_makes_the_model_worse_elsewhere_does_not_help():
    subject = loaded(chain(20, nn.Sigmoid), 64, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    about = finding(graph, measurement, "saturating-chain", "vanishing")
    before = Trial(measurement, judge(graph, measurement))
    huge = loaded(chain(20, nn.ReLU, std=1.0), 64, 64)
    _, exploded = measure(huge, settings=SETTINGS, graph=graph)
    assert not helped(graph, about, Pair(before, before, Trial(exploded, judge(graph, exploded))))


def test_one_change_that_helps_several_findings_is_each_one_s_first():
    subject = loaded(chain(20, nn.Sigmoid), 64, 64)
    graph, measurement = measure(subject, settings=SETTINGS)
    rules = {"saturating-chain": "vanishing", "late-norm": "normalization"}
    about = [finding(graph, measurement, rule, family) for rule, family in rules.items()]
    first, second = prove(subject, graph, about, measurement, SETTINGS)
    assert first.fixes[0].title.startswith("replace nn.Sigmoid by nn.ReLU")
    assert second.fixes[0].changes == first.fixes[0].changes
