from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from gradlint import engine
from gradlint.error import GradlintError, UsageError
from gradlint.finding import Claim, Draft, Finding
from gradlint.graph.ir import Graph, Module, Op, Param, Span, Value
from gradlint.profile import Measurement, ParamMeasure, Profile, Signal
from gradlint.rule import Rule


def chain(length: int) -> Graph:
    """x → linear0 → linear1 → …, value i+1 = output of op i; the weight of op i is `i.weight`."""
    ops = tuple(
        Op(i, "linear", "torch.nn.functional.linear", (i,), ("input",), (i + 1,), (f"{i}.weight",), str(i), "Linear",
           Span("net.py", 20), Span("net.py", 10 + i))
        for i in range(length)
    )  # fmt: skip
    values = tuple(
        Value(i, (4, 8), "float32", "op" if i else "input", "", i - 1 if i else None) for i in range(length + 1)
    )
    params = {f"{i}.weight": Param(f"{i}.weight", (8, 8), "float32", True, 8, 8, rms=0.1) for i in range(length)}
    return Graph(ops, values, params, (0,), (length,))


GRAPH = chain(4)
SIGNAL = Signal(Profile(gradient={0: -8.0, 4: -1.0}), "mse")
CLAIM = Claim("gradient-change", (0, 4), -2.0, "below")


def measurement(gradient: dict[int, float]) -> Measurement:
    return Measurement(Profile(gradient=gradient), {}, {}, "mse", 1.0, 1.0, 0.0, 0.0)


def declare(
    check: Callable[..., Iterable[Draft]], name: str = "lossy", family: str = "vanishing", **fields: object
) -> Rule:
    return Rule("GL101", name, family, "warning", "0.1.0", check, **fields)  # type: ignore[arg-type]


def lossy(graph: Graph) -> Iterable[Draft]:
    yield Draft("4 layers lose 7 decades", op=1, ops=(0, 1, 2, 3), claim=CLAIM)


def judged(draft: Draft, probe: Measurement | None, reason: str = "") -> Finding:
    (finding,) = engine.judge([(declare(lossy), draft)], GRAPH, SIGNAL, probe, reason)
    return finding


def test_a_rule_gets_the_facts_that_its_parameters_name() -> None:
    def all_facts(loss: str, graph: Graph, signal: Signal, options: dict[str, float]) -> Iterable[Draft]:
        yield Draft(f"{loss} {len(graph.ops)} {signal.loss} {options['limit']}")

    found = engine.draft(
        [declare(all_facts, options={"limit": 2.0})], GRAPH, SIGNAL, None, "ce", {"lossy": {"limit": 3}}
    )
    assert [each.message for _, each in found] == ["ce 4 mse 3"]


def test_a_rule_that_needs_the_probe_is_not_applicable_without_one() -> None:
    def probing(probe: Measurement) -> Iterable[Draft]:
        yield Draft(f"loss {probe.loss_value}")

    assert engine.draft([declare(probing)], GRAPH, SIGNAL, None, "ce") == []
    assert len(engine.draft([declare(probing)], GRAPH, SIGNAL, measurement({}), "ce")) == 1


def test_a_rule_that_raises_is_named() -> None:
    def broken(graph: Graph) -> Iterable[Draft]:
        raise KeyError("weight")
        yield

    with pytest.raises(GradlintError, match=r"rule lossy \(GL101\) raised KeyError"):
        engine.draft([declare(broken)], GRAPH, SIGNAL, None, "ce")


@pytest.mark.parametrize("given", [{"limt": 1.0}, {"limit": "high"}, {"limit": True}])
def test_an_option_that_does_not_fit_is_refused(given: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="rule lossy"):
        engine.settle(declare(lossy, options={"limit": 2.0}), given)


def test_a_claim_that_the_measurement_bears_out_is_confirmed_with_both_numbers() -> None:
    finding = judged(next(iter(lossy(GRAPH))), measurement({0: -6.5, 4: -0.5}))
    assert (finding.verdict, finding.severity) == ("confirmed", "warning")
    assert (finding.predicted["gradient-change"], finding.measured["gradient-change"]) == (-7.0, -6.0)


def test_a_claim_that_the_measurement_contradicts_is_refuted_and_demoted_with_the_number() -> None:
    finding = judged(next(iter(lossy(GRAPH))), measurement({0: -1.5, 4: -0.5}))
    assert (finding.verdict, finding.severity) == ("refuted", "info")
    assert finding.reason == "measured gradient-change -1, not below -2"


def test_a_gradient_of_exactly_zero_bears_out_a_loss() -> None:
    assert judged(next(iter(lossy(GRAPH))), measurement({0: -float("inf"), 4: -0.5})).verdict == "confirmed"


def test_without_a_measurement_the_reason_is_given() -> None:
    finding = judged(next(iter(lossy(GRAPH))), None, "the probe was switched off")
    assert (finding.verdict, finding.reason) == ("not-probed", "the probe was switched off")
    assert finding.predicted == {"gradient-change": -7.0}


def test_a_value_that_the_pass_never_reached_leaves_the_claim_open() -> None:
    assert judged(next(iter(lossy(GRAPH))), measurement({4: -0.5})).verdict == "not-probed"


def test_a_finding_of_the_probe_alone_is_measured() -> None:
    def probing(probe: Measurement) -> Iterable[Draft]:
        yield Draft("gradient is gone", op=0)

    probe = measurement({})
    found = engine.draft([declare(probing)], GRAPH, SIGNAL, probe, "ce")
    assert [finding.verdict for finding in engine.judge(found, GRAPH, SIGNAL, probe)] == ["measured"]


def test_the_place_of_a_module_of_torch_is_where_it_was_constructed() -> None:
    graph = replace(GRAPH, modules=(Module("2", "Linear", 1, builtin=True),))
    (finding,) = engine.judge([(declare(lossy), Draft("here", op=2))], graph, SIGNAL, None)
    assert (finding.module, finding.span) == ("2", Span("net.py", 12))


def test_the_place_of_a_call_in_the_users_own_module_is_the_call() -> None:
    assert judged(Draft("here", op=2), None).span == Span("net.py", 20)


def test_a_finding_without_an_op_is_placed_where_its_module_was_constructed() -> None:
    graph = replace(GRAPH, modules=(Module("head", "Linear", constructed=Span("net.py", 7)),))
    (finding,) = engine.judge([(declare(lossy), Draft("never called", module="head"))], graph, SIGNAL, None)
    assert finding.span == Span("net.py", 7)


def test_findings_on_one_stretch_are_one_finding_with_the_worst_first() -> None:
    rules = {name: declare(lossy, name, family) for name, family in
             [("skip", "architecture"), ("norm", "normalization"), ("init", "init")]}  # fmt: skip
    drafts = [
        (rules["skip"], Draft("no skip", op=0, ops=(0, 1, 2, 3))),
        (rules["norm"], Draft("no norm", op=0, ops=(1, 2))),
        (rules["init"], Draft("init too small", op=0, ops=(0, 1), severity="error")),
    ]
    (finding,) = engine.judge(drafts, GRAPH, SIGNAL, None)
    assert (finding.rule, finding.folded) == ("init", ("norm: no norm", "skip: no skip"))


def test_the_finding_that_stands_is_as_severe_as_the_worst_folded_under_it() -> None:
    drafts = [
        (declare(lossy, "init", "init"), Draft("cause", op=0, claim=CLAIM, severity="info")),
        (declare(lossy, "skip", "architecture"), Draft("consequence", op=0, severity="error")),
    ]
    (finding,) = engine.judge(drafts, GRAPH, SIGNAL, None)
    assert (finding.message, finding.severity) == ("cause", "error")


def seen(probe: Measurement) -> Iterable[Draft]:
    yield Draft("gradient is gone", op=3, ops=(0, 1, 2, 3), severity="error")


SYMPTOM = next(iter(seen(measurement({}))))


def test_a_symptom_stands_behind_what_explains_it_even_when_it_is_worse() -> None:
    drafts = [(declare(seen, "measured"), SYMPTOM), (declare(lossy, "init", "init"), Draft("cause", op=0))]
    (finding,) = engine.judge(drafts, GRAPH, SIGNAL, measurement({}))
    assert (finding.message, finding.severity, finding.folded) == ("cause", "error", ("measured: gradient is gone",))


def test_a_symptom_folds_under_another_family_that_is_about_most_of_it() -> None:
    output = declare(lossy, "one-unit-softmax", "output")
    drafts = [(declare(seen, "measured"), SYMPTOM), (output, Draft("all of it", op=3, ops=(0, 1, 2, 3)))]
    assert [found.message for found in engine.judge(drafts, GRAPH, SIGNAL, measurement({}))] == ["all of it"]


@pytest.mark.parametrize("other", [Draft("a part", op=3), Draft("a note", ops=(0, 1, 2, 3), severity="info")])
def test_a_symptom_does_not_fold_under_what_cannot_explain_it(other: Draft) -> None:
    drafts = [(declare(seen, "measured"), SYMPTOM), (declare(lossy, "one-unit-softmax", "output"), other)]
    assert len(engine.judge(drafts, GRAPH, SIGNAL, measurement({}))) == 2


def test_numbers_that_are_not_finite_fold_under_what_explodes_wherever_they_show() -> None:
    drafts = [
        (declare(seen, "not-finite", "numerics"), Draft("NaN in 3", op=3, severity="error")),
        (declare(lossy, "large-init", "init"), Draft("init too large", op=0, severity="error")),
    ]
    assert [found.rule for found in engine.judge(drafts, GRAPH, SIGNAL, measurement({}))] == ["large-init"]


def test_a_note_without_a_number_does_not_stand_for_what_went_wrong() -> None:
    drafts = [
        (declare(lossy, "bias-before-norm", "normalization"), Draft("a note", ops=(0, 1, 2, 3), severity="info")),
        (declare(lossy, "missing-skip", "architecture"), Draft("the fault", ops=(0, 1, 2, 3))),
    ]
    assert [found.message for found in engine.judge(drafts, GRAPH, SIGNAL, None)] == ["the fault", "a note"]


def test_findings_that_share_only_a_parameter_are_folded() -> None:
    tied = replace(GRAPH.ops[3], params=("0.weight",))
    graph = replace(GRAPH, ops=(*GRAPH.ops[:3], tied))
    rule = declare(lossy)
    assert len(engine.judge([(rule, Draft("a", op=0)), (rule, Draft("b", op=3))], graph, SIGNAL, None)) == 1


def test_what_a_rule_says_twice_of_one_line_is_said_once() -> None:
    rule = declare(lossy, "root-at-zero", "numerics")
    (finding,) = engine.judge([(rule, Draft("sqrt of 0", op=0)), (rule, Draft("sqrt of 0", op=3))], GRAPH, SIGNAL, None)
    assert finding.folded == ()


def test_findings_elsewhere_or_of_another_kind_stand_alone() -> None:
    drafts = [
        (declare(lossy), Draft("first half", ops=(0, 1))),
        (declare(lossy), Draft("second half", ops=(2, 3))),
        (declare(lossy, "softmax-twice", "output"), Draft("softmax twice", op=3)),
    ]
    assert [finding.message for finding in engine.judge(drafts, GRAPH, SIGNAL, None)] == [
        "softmax twice",
        "first half",
        "second half",
    ]


def test_a_refuted_finding_is_kept_last_and_never_swallows_a_standing_one() -> None:
    probe = measurement({0: -1.5, 4: -0.5})
    drafts = [
        (declare(lossy), Draft("refuted", op=0, ops=(0, 1), claim=CLAIM, severity="error")),
        (declare(lossy, "init", "init"), Draft("standing", op=0, ops=(0, 1), severity="info")),
    ]
    assert [finding.message for finding in engine.judge(drafts, GRAPH, SIGNAL, probe)] == ["standing", "refuted"]


def test_the_severest_finding_is_told_among_those_that_stand() -> None:
    stands = judged(Draft("stands", op=0), None)
    refuted = replace(stands, severity="error", verdict="refuted")
    assert engine.severest([refuted, stands]) == "warning"
    assert engine.severest([refuted]) is None


def test_parameters_measured_as_zero_count_as_minus_infinity() -> None:
    probe = replace(measurement({}), params={"0.weight": ParamMeasure(-99.0, -1.0, "zero")})
    draft = Draft("dead", op=0, claim=Claim("relative-gradient", ("0.weight",), -5.0, "below"))
    assert judged(draft, probe).measured["relative-gradient"] == -float("inf")
