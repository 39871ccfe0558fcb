"""A new rule from the scaffold works as it is written, in a pack of one's own that is found by its entry point."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gradlint import registry
from gradlint.error import UsageError
from gradlint.scaffold import next_code, scaffold, steps

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """An installed pack of one new rule, in the folder that is returned."""
    scaffold("narrow-clip", "units", None, tmp_path / "my_rules", registry.rules())
    (tmp_path / "conftest.py").write_text("from gradlint.testing import pytest_collect_file\n")
    metadata = tmp_path / "my_pack-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-pack\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[gradlint.rules]\nmine = my_rules\n")
    return tmp_path


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, (folder, ROOT, ROOT / "rules")))
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_new_rule_passes_its_own_examples(pack: Path) -> None:
    run = python(pack, "-m", "pytest", "-q", "-p", "no:cacheprovider", "my_rules/narrow_clip.md")
    assert "2 passed" in run.stdout, run.stdout + run.stderr


def test_gradlint_finds_selects_and_explains_the_new_rule(pack: Path) -> None:
    shown = python(pack, "-m", "gradlint", "rule", "MY601")
    assert shown.stdout.startswith("# MY601 narrow-clip"), shown.stderr
    assert "[preview] Reports hard tanhs" in python(pack, "-m", "gradlint", "rule", "--all").stdout
    model = pack / "model.py"
    model.write_text(
        "from torch import nn\n\nmodel = nn.Sequential(nn.Linear(8, 16), nn.Hardtanh(-0.1, 0.1), nn.Linear(16, 2))\n"
    )
    given = (str(model), "--input", "float32[32,8]", "--output-format", "concise", "--no-cache", "--no-try-fixes")
    chosen = python(pack, "-m", "gradlint", *given, "--select", "narrow-clip")
    assert "warning[MY601] narrow-clip" in chosen.stdout, chosen.stdout + chosen.stderr
    assert "MY601" not in python(pack, "-m", "gradlint", *given).stdout  # a preview rule waits to be named


def test_the_next_free_code_of_a_family_is_taken() -> None:
    known = registry.rules()
    ours = [rule.code for rule in known if rule.family == "units"]
    assert next_code("units", known, "GL") == f"GL{max(int(code[2:]) for code in ours) + 1}"
    assert next_code("wiring", known, "GL") not in {rule.code for rule in known}
    assert next_code("init", [replace(known[0], code="MY307")], "MY") == "MY308"


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("NarrowClip", None, "no rule name"),
        ("saturating-chain", None, "exists already"),
        ("narrow-clip", "GL101", "exists already"),
        ("narrow-clip", "my-1", "no rule code"),
    ],
)
def test_what_no_rule_can_have_is_refused(tmp_path: Path, name: str, code: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        scaffold(name, "units", code, tmp_path / "my_rules", registry.rules())
    assert not (tmp_path / "my_rules").exists()


def test_nothing_is_written_over(tmp_path: Path) -> None:
    files = scaffold("narrow-clip", "units", None, tmp_path, registry.rules())
    files[0].write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        scaffold("narrow-clip", "units", None, tmp_path, registry.rules())
    assert files[0].read_text() == "mine"


def test_without_a_folder_the_rule_goes_to_the_checkout_or_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="where should the rule go"):
        scaffold("narrow-clip", "units", None, None, registry.rules())
    (tmp_path / "rules" / "gradlint_rules").mkdir(parents=True)
    files = scaffold("narrow-clip", "units", None, None, registry.rules())
    assert files[0] == Path("rules/gradlint_rules/units/narrow_clip.py")
    assert next(iter(steps(files, "narrow-clip"))) == "next: pytest rules/gradlint_rules/units/narrow_clip.md"
