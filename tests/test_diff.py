"""New findings fail a comparison, old ones do not, wherever their lines and numbers went."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gradlint import cli, diff
from gradlint.comparison import compare, markdown, text
from gradlint.error import UsageError
from gradlint.graph.ir import Span
from gradlint.report.json import document
from gradlint.result import Report, failed
from tests.formats.samples import CHAIN, HEALTHY, ILL, REFUTED, WARNING


def report(*findings, target=ILL, **changes):
    return document(Report((replace(target, findings=findings, **changes),), "0.1.0"))


def names(group):
    return [each.finding["rule"] for each in group]


def test_findings_are_new_fixed_or_unchanged():
    moved = replace(
        CHAIN, span=Span("models/deep_sigmoid.py", 99), message="other numbers", module="hidden.3 … hidden.9"
    )
    found = compare(report(CHAIN, WARNING), report(moved, replace(CHAIN, rule="large-init"), REFUTED))
    assert (names(found.new), names(found.fixed), names(found.unchanged)) == (
        ["large-init"],
        ["dead-units"],
        ["saturating-chain"],
    )
    assert found.worse("error") and not compare(report(CHAIN), report(CHAIN)).worse("info")


def test_a_finding_that_became_two_is_one_new():
    assert names(compare(report(CHAIN), report(CHAIN, CHAIN)).new) == ["saturating-chain"]


def test_one_file_is_held_against_another_whatever_they_are_called():
    other = replace(CHAIN, span=Span("v2.py", 12))
    found = compare(report(CHAIN), report(other, path="v2.py"))
    assert names(found.unchanged) == ["saturating-chain"]


def test_the_numbers_of_a_model_that_moved_are_listed():
    found = compare(report(), report(parameters=99, layers=ILL.layers[:6]))
    ((label, before, after), *_) = [(each.label, each.before, each.after) for each in found.movements[0].numbers]
    assert (label, before, after) == ("parameters", "83,850", "99")
    assert {each.label for each in found.movements[0].numbers} >= {
        "layers with weights",
        "gradient (RMS) at the last layer",
    }
    assert compare(report(), report()).movements == ()


def test_models_come_and_go():
    both = document(Report((ILL, HEALTHY), "0.1.0"))
    assert [(each.target, each.word) for each in compare(report(), both).movements] == [
        ("models/resnet.py:ResNet", "added")
    ]
    assert [each.word for each in compare(both, report()).movements] == ["removed"]


def test_only_a_failure_of_head_fails_the_comparison():
    broken = document(Report((failed("a.py", "a.py", UsageError("no")),), "0.1.0"))
    assert not compare(broken, report()).failed and compare(report(), broken).failed


def test_a_comment_names_what_is_new_and_cannot_be_broken_by_a_message():
    found = compare(report(), report(replace(CHAIN, message="a|b <i> @team")))
    lines = list(markdown(found, ("main", "HEAD")))
    assert lines[:2] == ["<!-- gradlint diff -->", "## gradlint: 1 new, 0 fixed, 0 unchanged"]
    assert any("a\\|b &lt;i> @<!-- -->team" in line for line in lines)
    assert next(text(found)).startswith("+ new       models/deep_sigmoid.py:12: error[saturating-chain] ")


# -- the sides ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)

    def command(*words):
        with pytest.raises(SystemExit) as stop:
            cli.main(["diff", *words])
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    return command


def test_saved_reports_are_compared_without_a_run(run, tmp_path):
    for name, content in {"a.json": report(), "b.json": report(CHAIN)}.items():
        (tmp_path / name).write_text(json.dumps(content))
    assert run("a.json", "b.json")[0] == 1
    assert run("b.json", "a.json")[0] == 0
    assert run("a.json", "b.json", "--fail-on", "never")[0] == 0
    status, out, _ = run("a.json", "b.json", "--format", "json")
    assert (status, [each["rule"] for each in json.loads(out)["new"]]) == (1, ["saturating-chain"])
    run("a.json", "b.json", "--format", "markdown", "-o", "comment.md")
    assert Path("comment.md").read_text().startswith("<!-- gradlint diff -->")
    assert run("a.json", "b.json", "-o", "c.md", "-o", "c.json", "-o", "c.txt")[1] == ""
    assert Path("c.md").read_text() == Path("comment.md").read_text()
    assert json.loads(Path("c.json").read_text())["new"] and "1 new" in Path("c.txt").read_text()
    status, _, err = run("a.json", "b.json", "-o", "no/c.md")
    assert status == 2 and "there is no folder no" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [(("a.json", "no-such"), "no-such is neither a path nor a git ref"), (("a.json", "x.json"), "x.json is no report")],
)
def test_a_side_that_is_nothing_is_refused(run, tmp_path, words, message):
    (tmp_path / "a.json").write_text(json.dumps(report()))
    (tmp_path / "x.json").write_text("{}")
    status, _, err = run(*words)
    assert status == 2 and message in err


def git(*words):
    identity = {name: "x" for who in ("AUTHOR", "COMMITTER") for name in (f"GIT_{who}_NAME", f"GIT_{who}_EMAIL")}
    environment = {**os.environ, **identity}
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True, env=environment).stdout


@pytest.fixture
def repository(run):
    git("init", "-q", "-b", "main")
    for body in ("A = 1\n", "A = 2\n"):
        Path("net.py").write_text(body)
        Path("same.py").write_text("")
        git("add", ".")
        git("commit", "-qm", body)


def test_git_refs_are_linted_in_trees_of_their_own_and_leave_nothing_behind(repository, run, monkeypatch):
    seen = []

    def linted(folder, targets, options):
        seen.append(((folder / "net.py").read_text(), targets))
        return report(*[CHAIN] * len(seen))

    monkeypatch.setattr(diff, "_linted", linted)
    status, out, _ = run("HEAD~1", "HEAD")
    assert status == 1 and "1 new, 0 fixed, 1 unchanged" in out
    assert seen == [("A = 1\n", ["net.py"]), ("A = 2\n", ["net.py"])]
    assert len(git("worktree", "list").splitlines()) == 1 and git("status", "--short") == ""


def test_a_ref_is_compared_with_the_working_tree(repository, run, monkeypatch):
    Path("same.py").write_text("B = 1\n")
    seen = []
    monkeypatch.setattr(
        diff, "_linted", lambda folder, targets, options: seen.append((str(folder), targets)) or report()
    )
    assert run("HEAD", ".")[0] == 0
    assert [targets for _, targets in seen] == [["same.py"], ["same.py"]] and seen[1][0] == "."


def test_a_path_beside_a_ref_is_that_part_of_both_and_new_files_count(repository, run, monkeypatch):
    Path("part").mkdir()
    Path("part/new.py").write_text("C = 1\n")
    Path("same.py").write_text("B = 1\n")
    Path("part/generated.py").write_text("D = 1\n")
    Path("part/net.onnx").write_bytes(b"")
    Path(".gitignore").write_text("generated.py\n")
    seen = []
    monkeypatch.setattr(diff, "_linted", lambda folder, targets, options: seen.append(targets) or report())
    assert run("HEAD", "part")[0] == run("HEAD", "part/new.py")[0] == run("HEAD", "same.py")[0] == 0
    assert seen == [["part/net.onnx", "part/new.py"]] * 2 + [["part/new.py"]] * 2 + [["same.py"]] * 2
    seen.clear()
    run("HEAD", ".")
    assert seen == [["part/net.onnx", "part/new.py", "same.py"]] * 2


def test_a_model_whose_blocks_changed_is_linted_again(repository, run, monkeypatch):
    Path("net.py").write_text("from same import WIDTH\n")
    git("add", ".")
    git("commit", "-qm", "import")
    Path("same.py").write_text("WIDTH = 3\n")
    seen = []
    monkeypatch.setattr(diff, "_linted", lambda folder, targets, options: seen.append(targets) or report())
    assert run("HEAD", ".")[0] == run("HEAD", "net.py")[0] == 0
    assert seen == [["net.py", "same.py"]] * 2 + [["net.py"]] * 2


def test_beside_a_saved_report_a_ref_is_searched_for_what_the_report_is_about(repository, run, monkeypatch):
    Path("net.py").write_text("A = 3\n")
    Path("r.json").write_text(json.dumps(report(CHAIN)))
    seen = []
    monkeypatch.setattr(diff, "_linted", lambda folder, targets, options: seen.append(targets) or report(CHAIN))
    assert run("HEAD", "r.json")[0] == 0
    assert seen == [["models/deep_sigmoid.py"]]


def test_a_path_elsewhere_is_a_tree_of_its_own(repository, run, monkeypatch, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    seen = []
    monkeypatch.setattr(diff, "_linted", lambda folder, targets, options: seen.append(str(folder)) or report())
    Path("net.py").write_text("A = 3\n")
    run("HEAD", str(other))
    assert seen[1] == str(other)


def test_a_side_is_linted_by_gradlint_itself(run):
    Path("a.py").write_text("x = 1\n")
    Path("b.py").write_text("import torch\nx =\n")
    status, out, _ = run("a.py", "b.py")
    assert status == 2 and "! head" in out and "syntax error" in out
