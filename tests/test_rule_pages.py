"""How the literate examples of a rule's page become tests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradlint.finding import Finding
from gradlint.graph.ir import Span
from gradlint.testing import compare, sections

PAGE = """# GL101 saturating-chain

## What it does
Reports chains.

## Examples

### faulty
Some prose.
```py
a = 1
model = b()  # error: [saturating-chain]
```
More prose.
```py
inputs = c()
```

### healthy
```py
model = d()
```
"""
FOUND = Finding("GL101", "saturating-chain", "vanishing", "error", "confirmed", "a chain", span=Span("page.md", 12))


def test_each_section_with_code_is_one_test() -> None:
    assert [section.title for section in sections(PAGE)] == ["faulty", "healthy"]


def test_the_lines_of_the_code_are_the_lines_of_the_page() -> None:
    code = sections(PAGE)[0].code.splitlines()
    assert {number: line for number, line in enumerate(code, 1) if line} == {
        number: line for number, line in enumerate(PAGE.splitlines(), 1) if number in (11, 12, 16)
    }


def test_a_marker_names_the_rule_and_its_line() -> None:
    assert [section.expected for section in sections(PAGE)] == [[(12, "saturating-chain")], []]


def test_a_finding_on_its_marker_is_as_it_should_be() -> None:
    assert compare([(12, "saturating-chain")], [FOUND]) == []


def test_a_marker_without_a_finding_is_missing() -> None:
    assert compare([(12, "saturating-chain")], []) == ["missing: line 12: [saturating-chain]"]


def test_a_finding_without_a_marker_is_noisy() -> None:
    assert compare([], [FOUND]) == ["noisy: line 12: [saturating-chain]"]


@pytest.mark.parametrize("quiet", [replace(FOUND, severity="info"), replace(FOUND, verdict="refuted")])
def test_a_note_or_a_refuted_finding_needs_no_marker(quiet: Finding) -> None:
    assert compare([], [quiet]) == []


def test_a_refuted_finding_does_not_answer_a_marker() -> None:
    assert compare([(12, "saturating-chain")], [replace(FOUND, verdict="refuted")]) != []
