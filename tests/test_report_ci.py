"""The formats that machines of others read keep to what those machines accept."""

import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from gradlint.finding import Suppression
from gradlint.graph.ir import Span
from gradlint.report import github, render, sarif
from gradlint.report.fingerprint import fingerprints
from gradlint.report.json import document
from gradlint.report.markdown import MOST_BYTES
from gradlint.report.source import Sources
from gradlint.result import Report
from tests.formats.samples import CHAIN, ILL, REPORTS, SETTINGS, SOURCES, WARNING

SARIF = json.loads((Path(__file__).parent / "schemas" / "sarif-2.1.0.schema.json").read_text())


def shown(report, format, **options):
    stream = io.StringIO()
    render(report, format, stream, sources=Sources(SOURCES), **options)
    return stream.getvalue()


def report_of(*findings, **changes):
    return Report((replace(ILL, findings=findings, **changes),), "0.1.0", settings=SETTINGS)


# -- sarif -------------------------------------------------------------------------------------------------------------


def validate(log):
    jsonschema.validators.validator_for(SARIF)(SARIF).validate(log)


@pytest.mark.parametrize("name", REPORTS)
def test_sarif_is_valid(name):
    validate(json.loads(shown(REPORTS[name], "sarif")))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: run["results"][0].update(mesage="x"),
        lambda run: run["results"][0]["locations"][0]["physicalLocation"]["region"].update(startLine=0),
        lambda run: run.pop("tool"),
        lambda run: run["results"][0].update(level="fatal"),
    ],
)
def test_a_spoilt_log_is_refused_so_the_schema_is_really_asked(spoil):
    log = json.loads(shown(REPORTS["ill"], "sarif"))
    spoil(log["runs"][0])
    with pytest.raises(jsonschema.ValidationError):
        validate(log)


@pytest.mark.parametrize("name", REPORTS)
def test_sarif_has_what_github_requires_beyond_the_schema(name):
    (run,) = json.loads(shown(REPORTS[name], "sarif"))["runs"]
    for rule in run["tool"]["driver"]["rules"]:
        assert rule["id"] and rule["help"]["text"] and rule["help"]["markdown"]
        assert 0 < len(rule["shortDescription"]["text"]) <= 1024
        assert 0 < len(rule["fullDescription"]["text"]) <= 1024
        assert rule["properties"]["precision"] in ("very-high", "high", "medium", "low")
        assert rule["properties"]["problem.severity"] in ("error", "warning", "recommendation")
        assert len(rule["properties"]["tags"]) <= 10
    for result in run["results"]:
        assert result["message"]["text"] and result["locations"]
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert uri and not uri.startswith(("/", "file:"))


def test_sarif_tells_the_path_of_the_gradient_step_by_step():
    (run,) = json.loads(shown(REPORTS["ill"], "sarif"))["runs"]
    (result,) = run["results"]
    steps = result["codeFlows"][0]["threadFlows"][0]["locations"]
    assert len(steps) == 40
    assert steps[0]["location"]["message"]["text"] == "hidden.39: σ′ 0.237"
    assert steps[0]["location"]["physicalLocation"]["region"]["startLine"] == 12
    assert steps[1]["location"]["physicalLocation"]["region"]["startLine"] == 11


def test_sarif_says_what_failed_and_what_was_refuted_without_raising_an_alert():
    (run,) = json.loads(shown(REPORTS["many"], "sarif"))["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    assert [note["level"] for note in invocation["toolExecutionNotifications"]] == ["error", "note"]
    assert {result["ruleId"] for result in run["results"]} == {"GL101", "GL601"}


def test_a_path_with_spaces_is_a_valid_uri():
    finding = replace(CHAIN, span=Span("my models/ü.py", 1))
    (run,) = json.loads(shown(report_of(finding), "sarif"))["runs"]
    physical = run["results"][0]["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"]["uri"] == "my%20models/%C3%BC.py"


def test_the_page_of_an_installed_rule_is_its_help_and_another_has_none():
    from gradlint import registry

    rule = registry.rules()[0]
    assert sarif.page(rule.name) == registry.page(rule)
    assert sarif.page("no-such-rule") == ""


# -- fingerprints ------------------------------------------------------------------------------------------------------


def mark(finding, target=ILL):
    ((_, _, fingerprint),) = fingerprints(Report((replace(target, findings=(finding,)),), "0"))
    return fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"span": Span("models/deep_sigmoid.py", 99, 0)},
        {"message": "gradient shrinks by 17.4 decades"},
        {"module": "hidden.3 … hidden.41"},
        {"severity": "warning"},
        {"measured": {}},
    ],
)
def test_a_fingerprint_survives_edits_elsewhere_and_another_measurement(change):
    assert mark(replace(CHAIN, **change)) == mark(CHAIN)


@pytest.mark.parametrize("change", [{"rule": "other"}, {"module": "decoder.1"}, {"span": Span("b.py", 12)}])
def test_a_fingerprint_tells_findings_apart(change):
    assert mark(replace(CHAIN, **change)) != mark(CHAIN)


def test_fingerprints_are_unique_in_a_report():
    marks = [fingerprint for _, _, fingerprint in fingerprints(report_of(CHAIN, CHAIN, CHAIN))]
    assert len(set(marks)) == 3
    assert marks[0] == mark(CHAIN)


# -- github, gitlab, junit, markdown -----------------------------------------------------------------------------------


def test_github_shows_the_most_severe_first_and_no_more_than_ten_of_a_kind():
    findings = [replace(WARNING, module=f"w{i}") for i in range(12)] + [
        replace(CHAIN, module=f"e{i}") for i in range(11)
    ]
    *lines, last = shown(report_of(*findings), "github").splitlines()
    assert [line.split()[0] for line in lines] == ["::error"] * 10 + ["::warning"] * 10
    assert last.startswith("3 more are not annotated")


def test_github_annotates_a_saved_finding_as_it_did_the_finding_itself():
    log = shown(REPORTS["ill"], "github").splitlines()
    (finding, _) = document(REPORTS["ill"])["targets"][0]["findings"]
    assert list(github.limited([github.saved(finding)])) == log[:1]


def test_github_reads_each_annotation_as_one_line():
    finding = replace(CHAIN, message="50 % of a,b::c\nand more", span=Span("a,b:c.py", 3, 1))
    (line,) = shown(report_of(finding), "github").splitlines()
    assert line.startswith(
        "::error file=a%2Cb%3Ac.py,line=3,col=2,title=gradlint%3A saturating-chain (GL101)::50 %25 of a,b::c%0Aand"
    )


def test_paths_count_from_the_root_of_the_checkout(monkeypatch, tmp_path):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("CI_PROJECT_DIR", str(tmp_path))
    assert "file=sub/models/deep_sigmoid.py," in shown(REPORTS["ill"], "github")
    assert json.loads(shown(REPORTS["ill"], "gitlab"))[0]["location"]["path"] == "sub/models/deep_sigmoid.py"


def test_gitlab_gets_unique_fingerprints_and_its_own_severities():
    entries = json.loads(shown(REPORTS["many"], "gitlab"))
    assert len({entry["fingerprint"] for entry in entries}) == len(entries) == 3
    assert [entry["severity"] for entry in entries] == ["critical", "major", "minor"]


def test_junit_counts_what_failed():
    root = ElementTree.fromstring(shown(REPORTS["many"], "junit"))
    assert {key: root.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "5",
        "failures": "2",
        "errors": "1",
    }
    assert [suite.get("name") for suite in root] == [target.target for target in REPORTS["many"].targets]


@pytest.mark.parametrize(("fail_on", "failures"), [("error", "0"), ("warning", "1"), ("never", "0")])
def test_junit_fails_what_fails_the_run(fail_on, failures):
    target = replace(ILL, findings=(replace(CHAIN, severity="warning"),))
    text = shown(Report((target,), "0.1.0", settings={**SETTINGS, "fail_on": fail_on}), "junit")
    assert ElementTree.fromstring(text).get("failures") == failures


def test_junit_survives_characters_that_xml_does_not_have():
    ElementTree.fromstring(shown(report_of(replace(CHAIN, message="bell \x07, surrogate \udcff")), "junit"))


def test_markdown_stays_below_githubs_limit_and_says_so():
    text = shown(report_of(*[replace(CHAIN, message="x" * 500, fixes=()) for _ in range(1500)]), "markdown")
    assert len(text.encode()) < MOST_BYTES + 100
    assert "sections left out" in text


def test_markdown_keeps_messages_from_being_markup():
    finding = replace(CHAIN, message="a|b <b>c</b> @team #12 `d`", fixes=())
    text = shown(report_of(finding), "markdown")
    assert "a\\|b &lt;b>c&lt;/b> @<!-- -->team \\#12 \\`d\\`" in text
    assert "a|b &lt;b&gt;c&lt;/b&gt; &#64;team #12 `d`</summary>" in text


# -- suppressed findings -----------------------------------------------------------------------------------------------

EXCUSED = replace(CHAIN, suppression=Suppression("comment", "we know", Span("models/deep_sigmoid.py", 12)))
KNOWN = replace(CHAIN, module="b", suppression=Suppression("baseline"))


def test_sarif_keeps_suppressed_findings_with_their_justification():
    (run,) = json.loads(shown(report_of(EXCUSED, KNOWN, WARNING), "sarif"))["runs"]
    assert [[s["kind"] for s in result.get("suppressions", [])] for result in run["results"]] == [
        ["inSource"],
        ["external"],
        [],
    ]
    (excused, known) = (result["suppressions"][0] for result in run["results"][:2])
    assert (excused["justification"], known["justification"]) == ("we know", "known to the baseline")
    assert excused["location"]["physicalLocation"]["region"]["startLine"] == 12
    validate(json.loads(shown(report_of(EXCUSED, KNOWN), "sarif")))


@pytest.mark.parametrize("format", ["concise", "github", "gitlab"])
def test_formats_that_raise_alerts_leave_suppressed_findings_out(format):
    assert "saturating-chain" not in shown(report_of(EXCUSED, KNOWN), format)


def test_junit_skips_and_people_are_told_how_many():
    root = ElementTree.fromstring(shown(report_of(EXCUSED, WARNING), "junit"))
    assert [case.get("message") for case in root.iter("skipped")] == ["suppressed by a comment in line 12: we know"]
    text = shown(report_of(EXCUSED, KNOWN), "full")
    assert "nothing left to report: 2 findings suppressed" in text
    assert "1 suppressed · 1 known to the baseline" in text and "error[saturating-chain]" not in text
    listed = "suppressed[saturating-chain] gradient shrinks by 17.2 decades"
    assert listed not in text and listed in shown(report_of(EXCUSED), "full", verbose=True)
    assert "1 suppressed" in shown(report_of(EXCUSED), "markdown")
    assert json.loads(shown(report_of(EXCUSED), "json"))["summary"]["suppressed"]["comment"] == 1
