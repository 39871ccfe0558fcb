"""`gradlint diff BASE HEAD`: each side is a saved report, a path, or a git ref that is linted in a tree of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradlint.comparison import Comparison, compare
from gradlint.error import UsageError
from gradlint.report.json import SCHEMA
from gradlint.source.dependents import dependents

MODELS = ("*.py", "*.onnx")  # what a git ref is searched for
Options = Sequence[str]  # of `gradlint check`, which lints both sides


@dataclass(frozen=True)
class Side:
    """One side: a git commit, or a path."""

    text: str
    commit: str = ""


def diff(base: str, head: str, targets: Sequence[str], options: Options) -> Comparison:
    """Lint what is not a saved report already, and compare. Raises UsageError for a side that is nothing of all this.

    Git refs without targets lint the files that differ between the two, or beside a saved report those that it is
    about. Beside a git ref, a path below the working folder is that part of the working tree, and of the ref; any other
    path is a tree of its own.
    """
    sides = [_side(base), _side(head)]
    if not targets and any(side.commit for side in sides):
        within = [side.text for side in sides if _inside(side)]
        sides = [_working(side) for side in sides]
        targets = _reported(sides) or _changed(sides, within)
    return compare(*(_document(side, targets, options) for side in sides))


def _reported(sides: Sequence[Side]) -> list[str]:
    """The files that saved reports are about."""
    documents = [_saved(Path(side.text)) for side in sides if not side.commit and _is_saved(Path(side.text))]
    return sorted({target["path"] for document in documents for target in document["targets"] if target["path"]})


def _side(text: str) -> Side:
    if Path(text).exists():
        return Side(text)
    found = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{text}^{{commit}}")
    if found is None:
        hint = "a side is a report that `-o report.json` saved, a file or folder, or a git ref; `.` is the working tree"
        raise UsageError(f"{text} is neither a path nor a git ref", hint)
    return Side(text, found.strip())


def _inside(side: Side) -> bool:
    """Whether the side is a file or folder below the working folder, or that itself."""
    path = Path(side.text)
    return not (side.commit or _is_saved(path)) and path.resolve().is_relative_to(Path.cwd())


def _working(side: Side) -> Side:
    return Side(".") if _inside(side) else side


def _changed(sides: Sequence[Side], within: Sequence[str]) -> list[str]:
    """The models' files that differ between two commits, or a commit and the working tree, and those that import them.

    What git does not know yet is new in the working tree. Only what lies in `within` counts, if that is given.
    """
    commits = [side.commit for side in sides if side.commit]
    changed = _listed("diff", "--name-only", "--relative", "-z", *commits, "--", *MODELS)
    if len(commits) == 1:
        changed |= _listed("ls-files", "--others", "--exclude-standard", "-z", "--", *MODELS)
    reached = changed | dependents(changed, _listed("ls-files", "-z", "--", "*.py"))
    if not within:
        return sorted(reached)
    return sorted(reached & _listed("ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *within))


def _listed(*words: str) -> set[str]:
    """The names that a git command lists."""
    return {name for name in (_git(*words) or "").split("\0") if name}


def _is_saved(path: Path) -> bool:
    return path.suffix == ".json" and path.is_file()


def _document(side: Side, targets: Sequence[str], options: Options) -> dict[str, Any]:
    path = Path(side.text)
    if side.commit:
        with _tree(side.commit) as folder:
            return _linted(folder, targets, options)
    if _is_saved(path):
        return _saved(path)
    folder = path if path.is_dir() else path.parent
    own = list(targets) if path.is_dir() else [path.name]
    return _linted(folder, own or ["."], options)


def _saved(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise UsageError(f"{path} is no report of the schema {SCHEMA}", "gradlint TARGET -o report.json saves one")
    return document


@contextmanager
def _tree(commit: str) -> Iterator[Path]:
    """The commit checked out in a folder of its own, at the place in it where we are."""
    prefix = (_git("rev-parse", "--show-prefix") or "").strip()
    with tempfile.TemporaryDirectory(prefix="gradlint-") as folder:
        tree = Path(folder) / "tree"
        if _git("worktree", "add", "--detach", "--force", str(tree), commit) is None:
            raise UsageError(f"git cannot check {commit} out", "git worktree add says why")
        try:
            yield tree / prefix
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _linted(folder: Path, targets: Sequence[str], options: Options) -> dict[str, Any]:
    """The JSON report of a run in a folder. Raises UsageError when the run could not begin."""
    present = [target for target in targets if (folder / target.partition(":")[0]).exists() or ":" in target]
    if not folder.is_dir() or not present:
        return {"schema": SCHEMA, "targets": [], "errors": [], "summary": {}}
    words = ["check", *present, "--skip-modelless", "--output-format", "json", *options]
    done = subprocess.run(
        [sys.executable, "-m", "gradlint", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        raise UsageError(f"gradlint gave no report in {folder}: it ended with status {done.returncode}") from error
    return document


def _git(*words: str) -> str | None:
    """What git prints, None when it fails or is not there."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
