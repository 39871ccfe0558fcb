"""The command line: what goes to which stream, with which status, and how soon."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from gradlint import checking, cli
from gradlint.config import Settings
from gradlint.error import LoadError, UsageError
from gradlint.finding import Finding, Fix, Suppression
from gradlint.graph.ir import Span
from gradlint.result import Report, TargetReport

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'rules'}", "PYTHONIOENCODING": "utf-8"}
WARNING = Finding(
    "GL201", "large-init", "init", "warning", "confirmed", "weights are 9 times too large", "fc", Span("n.py", 3, 4)
)


def report(*findings, settings=None):
    return Report((TargetReport("n.py", "n.py", 1, "analysed", findings=findings),), "0.1.0", settings=settings or {})


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """run(*words, result=…): exit status, stdout, stderr and the calls of a stand-in for gradlint.session.run."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def command(*words, result=None):
        def analyse(targets, settings):
            calls.append((targets, settings))
            if isinstance(result, BaseException):
                raise result
            return result or report()

        monkeypatch.setattr(checking, "runner", lambda: analyse)
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        out, err = capsys.readouterr()
        return stop.value.code, out, err

    command.calls = calls
    return command


# -- commands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["n.py"], ["check", "n.py"], ["--seed", "3", "n.py"], ["n.py", "--seed", "3"]])
def test_check_is_the_default_command(run, words):
    status, _, err = run(*words)
    assert (status, err) == (0, "")
    ((targets, settings),) = run.calls
    assert targets == ("n.py",)
    assert settings.seed == (3 if "3" in words else 0)


def test_options_become_settings(run):
    run(
        *("a.py:Net(n=1)", "b.py", "--input", "x=float32[8,3]", "--input", "int64[8]<10", "--select", "vanishing"),
        *(
            "--ignore",
            "GL101",
            "--loss",
            "bce_logits",
            "--device",
            "cuda:1",
            "--seeds",
            "2",
            "--no-probe",
            "--no-try-fixes",
        ),
        *(
            "--weights",
            "w.pt",
            "--all-classes",
            "--timeout",
            "7.5",
            "--memory",
            "2G",
            "-j",
            "3",
            "--init",
            "n=1",
            "--debug",
        ),
        *(
            "--fail-on",
            "info",
            "--output-format",
            "concise",
            "--color",
            "never",
            "-q",
            "-v",
            "--exit-zero",
            "-o",
            "a.json",
        ),
    )
    ((targets, settings),) = run.calls
    assert targets == ("a.py:Net(n=1)", "b.py")
    assert settings == Settings(
        select=("vanishing",),
        ignore=("GL101",),
        inputs=("x=float32[8,3]", "int64[8]<10"),
        init=("n=1",),
        loss="bce_logits",
        device="cuda:1",
        seeds=2,
        probe=False,
        fix=False,
        fail_on="info",
        output_format="concise",
        output=("a.json",),
        timeout=7.5,
        memory=2 * 2**30,
        jobs=3,
        weights="w.pt",
        all_classes=True,
        color="never",
        exit_zero=True,
        quiet=True,
        verbose=True,
        debug=True,
    )


def test_no_arguments_print_the_help_and_fail(run):
    status, out, err = run()
    assert (status, out) == (2, "")
    assert "gradlint [OPTIONS] TARGET…" in err


def test_help_lists_the_options_of_check(run):
    status, out, _ = run("--help")
    assert status == 0 and "  rule " in out
    for option in (name for parameter in cli.check.params for name in parameter.opts if name.startswith("--")):
        assert out.count(f"{option} ") + out.count(f"{option}\n") >= 1, option
    assert [line[:-1] for line in out.splitlines() if line[:-1] in cli.SECTIONS] == list(cli.SECTIONS)
    assert run("check", "-h")[1].count("\nFixes:") == 1


def test_every_name_in_the_sections_of_the_help_is_an_option(run):
    named = [name for names in cli.SECTIONS.values() for name in names]
    assert len(named) == len(set(named))
    assert {parameter.name for parameter in cli.check.params} >= set(named)


def test_rule_prints_the_page_of_a_rule_and_lists_them_all(run):
    from gradlint import registry

    rule = registry.rules()[0]
    for name in (rule.name, rule.code):
        assert run("rule", name) == (0, registry.page(rule) + "\n", "")
    _, out, _ = run("rule", "--all")
    assert len(out.splitlines()) == len(registry.rules())
    assert f"{rule.code}  {rule.name}" in out


@pytest.mark.parametrize("words", [["rule"], ["rule", "x", "--all"], ["rule", "no-such-rule"]])
def test_rule_needs_one_rule(run, words):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")


# -- exit status and streams -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], 1), (["--fail-on", "error"], 0), (["--fail-on", "never"], 0), (["--exit-zero"], 0)],
)
def test_findings_at_or_above_the_threshold_exit_with_1(run, words, expected):
    status, out, err = run("n.py", *words, result=report(WARNING))
    assert (status, err) == (expected, "")
    assert "large-init" in out


def test_exit_zero_is_about_findings_not_failures(run):
    assert run("n.py", "--exit-zero", result=Report((), "0.1.0"))[0] == 2


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["n.py", "--sead", "3"], "--sead", "--help"),
        (["n.py", "--loss", "cse"], "'cse' is not a loss", ""),
        (["n.py", "--device", "gpu"], "'gpu' is not a device", ""),
        (["n.py", "--memory", "much"], "'much' is not a size", ""),
        (["n.py", "--fail-on", "fatal"], "fatal", ""),
        (["n.py", "--select", "no-such-rule"], "no-such-rule", ""),
        (["n.py", "-o", "report.docx"], "report.docx", ".json"),
        (["n.py", "--config", "none.toml"], "none.toml", ""),
        (["check"], "TARGET", "--help"),
    ],
)
@pytest.mark.parametrize("format", ["full", "json"])
def test_a_usage_error_is_one_message_and_in_json_a_document(run, words, message, hint, format):
    status, out, err = run(*words, "--output-format", format)
    assert status == 2 and not run.calls
    assert err.startswith("error: ") and message in err and hint in err
    assert "Traceback" not in err
    if format == "full":
        assert out == ""
    else:
        data = json.loads(out)
        assert data["targets"] == [] and data["summary"]["exit_code"] == 2
        (error,) = data["errors"]
        assert error["kind"] == "usage" and message in error["message"]


def test_a_broken_configuration_names_file_line_and_nearest_key(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool.gradlint]\nseed = 1\nfial-on = 'error'\n")
    status, out, err = run("n.py", "--output-format=json")
    assert status == 2
    assert "pyproject.toml:3: unknown key 'fial-on'" in err and "did you mean fail-on?" in err
    (error,) = json.loads(out)["errors"]
    assert (error["path"], error["line"]) == ("pyproject.toml", 3)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (UsageError("no such folder", "check the path"), "usage", "error: no such folder\n  help: check the path\n"),
        (LoadError("no model", span=Span("n.py", 7)), "load", "error: n.py:7: no model\n"),
        (KeyboardInterrupt(), "interrupted", "interrupted\n"),
        (ZeroDivisionError("x"), "internal", "error: ZeroDivisionError: x\n"),
    ],
)
def test_whatever_stops_the_run_is_one_message_and_status_2(run, error, kind, message, tmp_path):
    (tmp_path / "gradlint.toml").write_text("output-format = 'json'")
    status, out, err = run("n.py", result=error)
    assert status == 2
    assert err.startswith(message) and "Traceback" not in err
    if kind != "internal":  # what nobody foresaw knows the command line alone, not the configuration
        assert json.loads(out)["errors"][0]["kind"] == kind


def test_debug_adds_the_traceback(run):
    assert "Traceback" in run("n.py", "--debug", result=UsageError("no"))[2]


def test_output_files_are_written_beside_stdout(run, tmp_path):
    _, out, _ = run("n.py", "-o", "a.json", "--output", "b.txt", "--output-format", "concise", result=report(WARNING))
    assert out.startswith("n.py:3:5: warning[GL201] large-init: ")
    assert json.loads((tmp_path / "a.json").read_text())["schema"] == "gradlint/1"
    assert (tmp_path / "b.txt").read_text().startswith("warning[large-init] GL201: ")


def test_a_file_that_cannot_be_written_is_one_message_before_any_work(run, tmp_path):
    status, _, err = run("n.py", "-o", "no/such/folder/a.json")
    assert status == 2 and err.startswith("error: cannot write no/such/folder/a.json")
    (tmp_path / "a.md").mkdir()
    status, _, err = run("n.py", "-o", "a.md")
    assert status == 2 and err.startswith("error: cannot write a.md: it is a folder")
    assert not run.calls


def test_quiet_hides_what_does_not_fail_the_run(run):
    assert "large-init" not in run("n.py", "-q", "--fail-on", "error", result=report(WARNING))[1]


# -- the process -------------------------------------------------------------------------------------------------------


def command(*words, code=None, **options):
    program = [sys.executable, "-c", code, *words] if code else [sys.executable, "-m", "gradlint", *words]
    return subprocess.run(
        program, capture_output=True, text=True, encoding="utf-8", env=ENVIRONMENT, timeout=60, **options
    )


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["rule", "--all"], 0),
        (["rule", "saturating-chain"], 0),
        (["n.py", "--loss", "cse"], 2),
        (["n.py", "--select", "no-such-rule"], 2),
        (["n.py", "--config", "none.toml"], 2),
        (["plain.py", "--skip-modelless"], 0),
    ],
)
def test_what_needs_no_model_imports_neither_torch_nor_what_would_cost_as_much_as_its_work(words, status, tmp_path):
    (tmp_path / "plain.py").write_text("x = 1\n")
    code = textwrap.dedent("""
        import sys
        from gradlint.cli import main
        try:
            main()
        except SystemExit as stop:
            heavy = {"torch", "numpy", "rich", "jinja2", "libcst"} & set(sys.modules)
            print("heavy:", sorted(heavy), "status:", stop.code, file=sys.stderr)
    """)
    done = command(*words, code=code, cwd=tmp_path)
    assert f"heavy: [] status: {status}" in done.stderr


def test_python_m_gradlint_is_the_command():
    done = command("--version")
    assert done.returncode == 0 and done.stdout.startswith("gradlint ")


def test_a_locale_without_unicode_does_not_break_the_report(tmp_path):
    code = (
        "import sys; from gradlint import checking, cli; from gradlint.report import render; "
        "from gradlint.result import *; sys.stdout.reconfigure(encoding='ascii'); "
        "checking.runner = lambda: lambda t, s: Report((), '0', errors=(Failure('x', 'σ′ → ü'),)); cli.main(['n.py'])"
    )
    done = command(code=code)
    assert done.returncode == 2 and "s' -> ?" in done.stdout and "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_gets_no_traceback():
    script = f"{sys.executable} -m gradlint rule --all | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_control_c_is_one_message_and_status_2():
    # A shell starts what it puts in the background with the interrupt ignored, and that is inherited.
    code = textwrap.dedent("""
        import signal
        import time
        from gradlint import checking, cli
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def analyse(targets, settings):
            print("started", flush=True)
            time.sleep(30)
        checking.runner = lambda: analyse
        cli.main(["n.py"])
    """)
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout.readline() == "started\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (2, "", "interrupted\n")


# -- completion --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ([], "--fail", ["--fail-on"]),
        (["--output-format"], "sa", ["sarif"]),
        (["check", "--fail-on"], "w", ["warning"]),
        (["rule"], "saturating", ["saturating-chain"]),
        (["m.py", "--select"], "saturating", ["saturating-chain"]),
        ([], "di", ["diff"]),
        (["m.py"], "di", ["file"]),
        ([], "mod", ["file"]),
    ],
)
def test_the_shell_completes_options_their_values_rules_commands_and_files(words, begun, offered):
    found = ShellComplete(cli.cli, {}, "gradlint", "_GRADLINT_COMPLETE").get_completions(words, begun)
    assert [item.value if item.type == "plain" else item.type for item in found] == offered


# -- lists, statistics and the baseline --------------------------------------------------------------------------------

NET = "from torch import nn\n\nmodel = nn.Linear(2, 2)\n"


def test_show_settings_prints_each_setting_with_its_origin(run, tmp_path):
    (tmp_path / "pyproject.toml").write_text(
        "[tool.gradlint]\nseed = 3\n[tool.gradlint.severity]\nlarge-init = 'info'\n"
    )
    status, out, _ = run("--show-settings", "--fail-on", "error")
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in out.splitlines()}
    assert status == 0 and not run.calls
    assert lines["fail-on"] == "error (command line)"
    assert lines["seed"] == "3 (pyproject.toml:2)"
    assert lines["severity"] == "{'large-init': 'info'} (pyproject.toml:3)"
    assert lines["timeout"] == "120.0 (default)"


def test_show_files_prints_what_would_be_linted(run, tmp_path):
    for name in ("net.py", "plain.py"):
        (tmp_path / name).write_text(NET if name == "net.py" else "x = 1\n")
    (tmp_path / "gradlint.toml").write_text("[[model]]\ntarget = 'net.py:model'\nloss = 'mse'\n")
    assert run(".", "--show-files")[:2] == (0, "net.py:model  loss = mse\n")
    assert run(".", "--show-files", "--isolated")[:2] == (0, "net.py\n")
    assert not run.calls


def test_without_anything_to_lint_there_is_help_or_a_message(run, tmp_path):
    status, _, err = run()
    assert status == 2 and "Usage: gradlint" in err
    (tmp_path / "gradlint.toml").write_text("[[model]]\ntarget = 'net.py:model'\n")
    assert run()[0] == 0
    ((targets, settings),) = run.calls
    assert targets == () and settings.models[0].target == "net.py:model"


def test_statistics_count_findings_by_rule_instead_of_showing_them(run):
    fixed = replace(WARNING, fixes=(Fix("x", {}, {}),))
    gone = replace(WARNING, suppression=Suppression("comment"))
    result = report(WARNING, fixed, gone, replace(WARNING, rule="dead-units", code="GL601", severity="error"))
    status, out, _ = run("n.py", "--statistics", result=result)
    assert (status, out.splitlines()) == (
        1,
        ["1  GL601  dead-units  error", "2  GL201  large-init  warning  1 with a measured fix"],
    )
    rows = json.loads(run("n.py", "--statistics", "--output-format", "json", result=result)[1])
    assert [(row["rule"], row["count"]) for row in rows] == [("dead-units", 1), ("large-init", 2)]


def test_a_baseline_is_written_used_and_pruned(run, tmp_path):
    status, out, err = run("n.py", "--write-baseline", "b.json", result=report(WARNING))
    assert (status, err) == (0, "b.json: 1 written\n") and "1 known to the baseline" in out
    run("n.py", "--baseline", "b.json")
    assert run.calls[-1][1].baseline == "b.json"
    status, _, err = run("n.py", "--baseline", "b.json", "--prune-baseline", result=report())
    assert (status, err) == (0, "b.json: 1 removed\n")
    assert json.loads((tmp_path / "b.json").read_text())["findings"] == []
    status, _, err = run("n.py", "--prune-baseline")
    assert status == 2 and "there is no baseline to prune" in err


def test_rules_of_the_configuration_are_checked_before_anything_runs(run, tmp_path):
    (tmp_path / "gradlint.toml").write_text("[severity]\nlarge-inti = 'info'\n")
    status, _, err = run("n.py")
    assert status == 2 and not run.calls
    assert "gradlint.toml:2: no rule, code or family is called 'large-inti'" in err and "large-init" in err


def test_files_without_a_model_are_no_failure_where_they_may_be_named(run):
    skipped = Report((TargetReport("n.py", "n.py", None, "skipped"),), "0.1.0", settings={"skip_modelless": True})
    status, out, _ = run("n.py", "--skip-modelless", result=skipped)
    assert status == 0 and "1 file without a model" in out


def test_the_environment_sets_format_colour_cache_and_configuration(run, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text("seed = 8\n")
    values = {"OUTPUT_FORMAT": "concise", "COLOR": "never", "CACHE": "0", "CONFIG": str(tmp_path / "c.toml")}
    for name, value in values.items():
        monkeypatch.setenv(f"GRADLINT_{name}", value)
    run("n.py")
    ((_, settings),) = run.calls
    assert (settings.output_format, settings.color, settings.cache, settings.seed) == ("concise", "never", False, 8)
