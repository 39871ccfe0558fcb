"""What a report holds comes back equal after a trip through JSON."""

import json

import pytest

from gradlint.finding import Claim, Factor, Finding, Fix, Related
from gradlint.graph import Span
from gradlint.profile import Gain, Profile
from gradlint.result import Failure, InputUsed, Layer, ProbeRun, Report, TargetReport
from gradlint.serialise import from_data, to_data

SPAN = Span("net.py", 12, 4)
FINDING = Finding(
    code="GL101",
    rule="saturating-chain",
    family="vanishing",
    severity="error",
    verdict="confirmed",
    message="gradient shrinks by 17 decades",
    span=SPAN,
    related=(Related(None, "net.0", "gain 0.24"),),
    predicted={"decades": -17.0, "loss": "ce"},
    claim=Claim("gradient-change", (3, "net.0.weight"), -2.0, "below"),
    factors=(Factor(1, "net.1", "σ′(z)", -0.6),),
    fixes=(Fix("replace", {"decades": -17.0}, {"decades": -0.1}),),
    ops=(1, 2),
)
TARGET = TargetReport(
    target="net.py",
    path="net.py",
    line=None,
    status="analysed",
    error=Failure("load", "no model", line=3),
    inputs=(InputUsed("x", (8, 64), "float32", "guessed"),),
    unknown=(("torch.foo", 2),),
    probe=ProbeRun(ran=True, seeds=(0, 1)),
    findings=(FINDING,),
    layers=(Layer("net.0", "linear", "linear", "net.py", 3, 1.0, 1e-23, None),),
)


@pytest.mark.parametrize("value", [TARGET, Report((TARGET,), "0.1.0", settings={"loss": "ce"}), FINDING])
def test_a_report_survives_json(value):
    assert from_data(type(value), json.loads(json.dumps(to_data(value)))) == value


def test_profiles_keep_their_integer_and_string_keys():
    profile = Profile(
        activation={1: -0.5}, params={"7": -2.0}, gains={3: Gain(backward=-0.6)}, spread={1: 0.1, "a": 0.2}
    )
    assert from_data(Profile, json.loads(json.dumps(to_data(profile)))) == profile


def test_data_of_another_shape_is_refused():
    with pytest.raises(TypeError):
        from_data(Span, {"path": "net.py"})
