"""What does not count: comments and configuration, and comments that suppress nothing."""

from dataclasses import replace

import pytest

from gradlint.config import Ignore, Settings
from gradlint.finding import Finding
from gradlint.graph.ir import Span
from gradlint.report.source import Sources
from gradlint.result import Layer, ProbeRun, TargetReport
from gradlint.source.comments import comments
from gradlint.suppress import Entry, suppress

PATH = "net.py"


def finding(line=3, rule="saturating-chain", code="GL101", family="vanishing", **more):
    span = None if line is None else Span(PATH, line)
    return Finding(code, rule, family, "error", "confirmed", "it shrinks", "encoder.act", span, **more)


def judged(code, *findings, settings=None, whole=True, probed=True, **more):
    report = TargetReport(PATH, PATH, 1, "analysed", findings=findings, probe=ProbeRun(probed), **more)
    entry = Entry(report, settings or Settings(), PATH, whole)
    (found,) = suppress([entry], Sources({PATH: code}))
    return found.findings


# -- comments ----------------------------------------------------------------------------------------------------------

SOURCE = """\
import torch  # gradlint: file-ignore[GL2] -- all of it
class A:
    # gradlint: ignore[saturating-chain, GL302] see issue #12
    # more words
    def f(self):
        self.x = nn.Sequential(
            # gradlint: ignore[a] elem
            nn.Linear(1,
                      2),
            nn.Sigmoid(),  # noqa: E501  # gradlint: ignore[b] r # gradlint: ignore[c]
        )  # gradlint: ignore[d]: why
    # gradlint: ignore[e]
    @foo
    class B(
            nn.Module):
        text = "# gradlint: ignore[f]"
"""


def test_a_comment_covers_its_line_or_what_is_below_it():
    found = [(c.rules, c.reason, c.lines and sorted(c.lines)) for c in comments(SOURCE)]
    assert found == [
        (("GL2",), "all of it", None),
        (("saturating-chain", "GL302"), "see issue #12", [5]),
        (("a",), "elem", [8, 9]),
        (("b",), "r", [10]),
        (("c",), "", [10]),
        (("d",), "why", [6, 11]),
        (("e",), "", [13, 14, 15]),
    ]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("x = 1  # gradlint: ignore", "ignore names no rule"),
        ("x = 1  # gradlint: ignore[]", "ignore names no rule"),
        ("x = 1  # gradlint: ignroe[a]", "'ignroe' is neither ignore nor file-ignore"),
    ],
)
def test_a_comment_that_names_no_rule_covers_nothing(text, wrong):
    (comment,) = comments(text)
    assert comment.wrong == wrong and not comment.covers(1)


def test_a_file_that_cannot_be_tokenized_has_no_comments():
    assert comments("x = (  # gradlint: ignore[a]\n") == []


# -- suppression -------------------------------------------------------------------------------------------------------

BODY = "x = 1\ny = 2\nz = f()  # gradlint: ignore[{}] we know\n"


@pytest.mark.parametrize(
    ("named", "suppressed"),
    [("saturating-chain", True), ("GL101", True), ("gl1", True), ("vanishing", True), ("GL2", False)],
)
def test_a_comment_names_a_rule_by_name_code_prefix_or_family(named, suppressed):
    first = judged(BODY.format(named), finding())[0]
    assert (first.suppression is not None) is suppressed is not first.stands
    if suppressed:
        assert (first.suppression.kind, first.suppression.reason) == ("comment", "we know")
        assert first.suppression.span == Span(PATH, 3)


def test_a_comment_on_another_line_does_not_count():
    assert judged(BODY.format("saturating-chain"), finding(line=2))[0].stands


def test_the_line_of_the_call_counts_as_well_as_the_line_of_the_construction():
    layer = Layer("encoder.act", "sigmoid", "activation", PATH, 3, None, None, None, index=7)
    assert not judged(BODY.format("GL101"), finding(line=1, op=7), layers=(layer,))[0].stands
    assert judged(BODY.format("GL101"), finding(line=1, op=8), layers=(layer,))[0].stands


def test_a_finding_without_a_place_is_the_models_own():
    assert not judged("class N: ...  # gradlint: ignore[GL101]\n", finding(line=None))[0].stands


@pytest.mark.parametrize(
    ("ignore", "suppressed"),
    [
        (Ignore("GL101", "old", path="*.py"), True),
        (Ignore("GL101", "old", path="lib/"), False),
        (Ignore("GL101", "old", module="encoder"), True),
        (Ignore("GL101", "old", module="enc*.act"), True),
        (Ignore("GL101", "old", module="decoder*"), False),
        (Ignore("GL2", "old"), False),
        (Ignore("GL101", "old"), True),
    ],
)
def test_the_configuration_suppresses_by_path_module_or_model(ignore, suppressed):
    (found,) = judged("", finding(), settings=Settings(ignores=(ignore,)))
    assert (found.suppression is not None) is suppressed
    assert not suppressed or (found.suppression.kind, found.suppression.reason) == ("configuration", "old")


# -- comments that suppress nothing ------------------------------------------------------------------------------------


def unused(code, *findings, **more):
    return [(f.span.line, f.message) for f in judged(code, *findings, **more) if f.rule == "unused-ignore"]


def test_a_comment_that_suppresses_nothing_is_a_finding():
    code = "a = 1  # gradlint: ignore[dead-units, saturating-chain]\n"
    assert unused(code, finding(line=1)) == [(1, "unused suppression: no finding of dead-units here")]


def test_a_rule_that_does_not_exist_is_named_with_the_nearest():
    ((_, message),) = unused("a = 1  # gradlint: ignore[dead-unit]\n")
    assert "no rule, code or family is called 'dead-unit'" in message and "did you mean dead-units?" in message


@pytest.mark.parametrize(
    "options",
    [
        {"whole": False},
        {"settings": Settings(select=("vanishing", "unused-ignore"))},
        {"settings": Settings(ignore=("unused-ignore",))},
        {"probed": False},
    ],
)
def test_what_this_run_cannot_tell_is_not_said(options):
    code = "a = 1  # gradlint: ignore[dead-units]\n"
    assert unused(code) and not unused(code, **options)


def test_a_comment_whose_rule_folded_under_another_or_was_refuted_is_not_unused():
    code = "a = 1  # gradlint: ignore[missing-skip]\n"
    assert not unused(code, finding(line=2, folded=("missing-skip: 20 layers",)))
    refuted = replace(finding(line=1), verdict="refuted")
    assert judged("a = 1  # gradlint: ignore[GL101]\n", refuted) == (refuted,)


def test_its_severity_is_what_the_configuration_says():
    code = "a = 1  # gradlint: ignore[dead-units]\n"
    (found,) = judged(code, settings=Settings(severities={"unused-ignore": "error"}))
    assert (found.severity, found.code) == ("error", "GL999")
