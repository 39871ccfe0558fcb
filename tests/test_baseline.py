"""A baseline lets known findings pass and new ones fail, wherever their lines went."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gradlint import baseline
from gradlint.error import UsageError
from gradlint.graph.ir import Span
from gradlint.report.outcome import exit_code
from gradlint.result import Report, failed
from tests.formats.samples import CHAIN, ILL, REFUTED


def report(*findings, target=ILL):
    return Report((replace(target, findings=findings),), "0.1.0")


@pytest.fixture
def file(tmp_path):
    return str(tmp_path / "gradlint-baseline.json")


def applied(path, later):
    return baseline.apply(later, baseline.read(path), path)


def test_known_findings_pass_and_new_ones_fail(file):
    assert baseline.write(file, report(CHAIN, REFUTED)) == 1
    moved = replace(CHAIN, span=Span("models/deep_sigmoid.py", 99), message="by 17.9 decades")
    known = applied(file, report(moved))
    assert exit_code(known) == 0
    assert known.findings[0].suppression.kind == "baseline"
    assert exit_code(applied(file, report(moved, replace(CHAIN, rule="large-init")))) == 1


def test_a_second_finding_of_the_same_kind_is_new(file):
    baseline.write(file, report(CHAIN))
    assert [f.stands for f in applied(file, report(CHAIN, CHAIN)).findings] == [False, True]


def test_an_entry_that_is_no_longer_found_is_reported_and_pruned(file):
    baseline.write(file, report(CHAIN, replace(CHAIN, rule="large-init")))
    later = report(CHAIN)
    assert applied(file, later).notes == (f"1 entry of {file} no longer found: --prune-baseline removes them",)
    assert baseline.prune(file, later, baseline.read(file)) == 1
    assert applied(file, later).notes == ()
    assert [entry["rule"] for entry in baseline.read(file).values()] == ["saturating-chain"]


def test_an_entry_of_a_file_that_was_not_linted_or_failed_stays(file, tmp_path):
    baseline.write(file, report(CHAIN))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "deep_sigmoid.py").write_text("")
    settings = {"root": str(tmp_path)}
    known = baseline.read(file)
    assert baseline.stale(Report((), "0", settings=settings), known) == []
    broken = failed("models/deep_sigmoid.py", "models/deep_sigmoid.py", UsageError("no"))
    assert baseline.stale(Report((broken,), "0", settings=settings), known) == []
    (tmp_path / "models" / "deep_sigmoid.py").unlink()
    assert len(baseline.stale(Report((), "0", settings=settings), known)) == 1


def test_the_file_holds_no_line_and_is_sorted(file):
    baseline.write(file, report(CHAIN, replace(CHAIN, rule="large-init", message="m")))
    data = json.loads(Path(file).read_text())
    assert data["schema"] == "gradlint-baseline/1"
    assert [sorted(entry) for entry in data["findings"]] == [["fingerprint", "message", "module", "path", "rule"]] * 2
    assert [entry["rule"] for entry in data["findings"]] == ["large-init", "saturating-chain"]


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot read the baseline"), ("{", "is not JSON"), ("{}", "is no baseline")]
)
def test_what_is_no_baseline_is_refused(file, text, message):
    if text is not None:
        Path(file).write_text(text)
    with pytest.raises(UsageError, match=message):
        baseline.read(file)


def test_a_fingerprint_counts_paths_from_the_configuration(tmp_path, monkeypatch, file):
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    here = replace(report(replace(CHAIN, span=Span("sub/a.py", 1))), settings={"root": str(tmp_path)})
    baseline.write(file, here)
    monkeypatch.chdir(tmp_path / "sub")
    there = replace(report(replace(CHAIN, span=Span("a.py", 1))), settings={"root": str(tmp_path)})
    assert not applied(file, there).findings[0].stands
