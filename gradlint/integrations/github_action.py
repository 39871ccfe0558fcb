"""What `action.yml` runs: annotations on stdout, and by the environment a SARIF file, a step summary and a comment.

Beside a base ref what is new alone is annotated, and fails the step.
Inputs come as GRADLINT_* variables, never through a shell: an expression in them stays text.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradlint.report import github


@dataclass(frozen=True)
class Inputs:
    """The inputs of the action; paths are "" where nothing is to be written."""

    targets: tuple[str, ...] = ()
    fail_on: str = "warning"
    baseline: str = ""
    base_ref: str = ""
    sarif: str = ""
    report: str = ""
    comment: str = ""
    args: tuple[str, ...] = ()
    name: str = ""  # of the branch that is linted


def inputs(environment: Mapping[str, str]) -> Inputs:
    """The inputs as the environment gives them."""

    def text(name: str) -> str:
        return environment.get(f"GRADLINT_{name}", "").strip()

    return Inputs(
        targets=tuple(shlex.split(text("TARGETS"))),
        fail_on=text("FAIL_ON") or "warning",
        baseline=text("BASELINE"),
        base_ref=text("BASE_REF"),
        sarif=text("SARIF"),
        report=text("REPORT"),
        comment=text("COMMENT"),
        args=tuple(shlex.split(text("ARGS"))),
        name=environment.get("GITHUB_HEAD_REF") or environment.get("GITHUB_REF_NAME") or "this commit",
    )


def main(environment: Mapping[str, str] = os.environ) -> int:
    """Lint, write what was asked for, and give the status: with a base ref, that of the comparison with it."""
    given = inputs(environment)
    with tempfile.TemporaryDirectory() as folder:
        summary, report = Path(folder) / "summary.md", Path(given.report or Path(folder) / "report.json")
        outputs = [f"markdown={summary}", f"json={report}", *([f"sarif={given.sarif}"] if given.sarif else [])]
        shown = "concise" if given.base_ref else "github"  # beside a base, what is new alone is annotated
        words = ["--output-format", shown, "--fail-on", given.fail_on, *given.args]
        words += [word for output in outputs for word in ("-o", output)]
        words += ["--baseline", given.baseline] if given.baseline else []
        status = _gradlint(["check", *given.targets, *words])
        text = summary.read_text(encoding="utf-8") if summary.exists() else ""
        if given.base_ref and status != 2:
            comment, new = Path(given.comment or Path(folder) / "comment.md"), Path(folder) / "new.json"
            status = _gradlint(_against(given, report, (comment, new)))
            _annotate(new)
            text = (comment.read_text(encoding="utf-8") if comment.exists() else "") + "\n" + text
    _append(environment.get("GITHUB_STEP_SUMMARY"), text)
    _append(environment.get("GITHUB_OUTPUT"), f"status={status}\nsarif={given.sarif}\n")
    return status


def _against(given: Inputs, report: Path, outputs: Sequence[Path]) -> list[str]:
    words = ["--format", "markdown", "--fail-on", given.fail_on, "--head-name", given.name]
    written = [word for output in outputs for word in ("-o", str(output))]
    return ["diff", given.base_ref, str(report), *given.targets, *words, *written]


def _annotate(comparison: Path) -> None:
    """Print the annotations of what a saved comparison calls new."""
    if comparison.exists():
        found = json.loads(comparison.read_text(encoding="utf-8"))["new"]
        print(*github.limited(map(github.saved, found)), sep="\n", flush=True)


def _gradlint(words: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "gradlint", *words], check=False).returncode


def _append(path: str | None, text: str) -> None:
    """Add to a file that GitHub named; without one, nothing."""
    if path and text:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    sys.exit(main())
