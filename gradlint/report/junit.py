"""`junit`: a suite a model and a case a finding, for CI systems that show test results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

from gradlint.finding import Finding
from gradlint.report.concise import line
from gradlint.report.number import quantities
from gradlint.report.outcome import reaches, stands
from gradlint.report.source import Sources
from gradlint.report.view import View
from gradlint.report.wording import changes, suppressed_by
from gradlint.result import Failure, Report, TargetReport


def write(report: Report, stream: TextIO, view: View) -> None:
    """Write the document. What fails the run is a failure, a target that was not analysed is an error."""
    root = Element("testsuites", name="gradlint", time=f"{report.seconds:.3f}")
    for failure in report.errors:
        _failed(SubElement(root, "testsuite", name="gradlint", tests="1", errors="1", failures="0"), "run", failure)
    for target in report.targets:
        _suite(root, target, view, str(report.settings.get("fail_on", "warning")))
    _total(root)
    indent(root)
    stream.write('<?xml version="1.0" encoding="utf-8"?>\n')
    ElementTree(root).write(stream, encoding="unicode")
    stream.write("\n")


def _suite(root: Element, target: TargetReport, view: View, threshold: str) -> None:
    name, sources = target.target, view.sources
    suite = SubElement(root, "testsuite", name=_legal(name), time=f"{target.seconds:.3f}")
    if target.error:
        _failed(suite, name, target.error)
    for finding in target.findings:
        case = SubElement(
            suite, "testcase", classname=_legal(name), name=_legal(f"{finding.rule} {finding.module}".strip())
        )
        if finding.suppression:
            SubElement(case, "skipped", message=_legal(f"suppressed {suppressed_by(finding.suppression)}"))
        elif stands(finding) and reaches(finding.severity, threshold):
            failure = SubElement(case, "failure", type=finding.severity, message=_legal(finding.message))
            failure.text = _legal("\n".join(_text(finding, target, sources)))
        else:
            SubElement(case, "system-out").text = _legal("\n".join(_text(finding, target, sources)))
    if target.status == "skipped":
        SubElement(SubElement(suite, "testcase", classname=_legal(name), name="gradlint"), "skipped")
    elif len(suite) == 0:
        SubElement(suite, "testcase", classname=_legal(name), name="gradlint")
    _count(suite)


def _failed(suite: Element, name: str, failure: Failure) -> None:
    case = SubElement(suite, "testcase", classname=_legal(name), name="gradlint")
    SubElement(case, "error", type=failure.kind, message=_legal(failure.message)).text = _legal(failure.hint)


def _text(finding: Finding, target: TargetReport, sources: Sources) -> Iterator[str]:
    yield line(finding, target, sources)
    if finding.predicted:
        yield f"predicted: {quantities(finding.predicted)}"
    if finding.measured:
        yield f"measured: {quantities(finding.measured)}"
    for fix in finding.fixes:
        yield f"fix: {fix.title}: {changes(finding, fix)}"


def _count(suite: Element) -> None:
    for kind, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(kind, str(len(suite.findall(f"testcase/{tag}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))


def _total(root: Element) -> None:
    for kind in ("tests", "failures", "errors"):
        root.set(kind, str(sum(int(suite.get(kind, "0")) for suite in root)))


def _legal(text: str) -> str:
    """The text without the control characters and surrogates that XML 1.0 has no way to write."""
    return "".join(c if c in "\t\n\r" or 0x20 <= ord(c) < 0xD800 or ord(c) > 0xDFFF else "?" for c in text)
