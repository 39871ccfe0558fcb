"""Fixes written by the command line: linted again, and taken back when they do not stand."""

import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gradlint import cli
from gradlint.error import UsageError
from gradlint.finding import Change, Finding, Fix
from gradlint.fix import rounds
from gradlint.graph.ir import Span
from gradlint.result import Report, TargetReport

TEXT = b"from torch import nn\nact = nn.Sigmoid()\n"


def report(path, *findings):
    return Report((TargetReport("net", str(path), 1, "analysed", findings=findings),), "0")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "net.py"
    path.write_bytes(TEXT)
    return path


@pytest.fixture
def finding(path):
    span = Span(str(path), 2)
    fix = Fix("replace it", {}, {}, changes=(Change("activation", "relu", "sigmoid", span=span),))
    return Finding(
        "GL101", "saturating-chain", "vanishing", "error", "confirmed", "it saturates", span=span, fixes=(fix,)
    )


def apply(first, then, **options):
    return rounds.apply(rounds.annotate(first), lambda: then, time.time(), **options)


def test_a_fix_that_changes_the_function_is_unsafe_and_one_of_weights_is_safe(path, finding):
    path.write_bytes(TEXT + b"nn.init.normal_(layer.weight)\n")
    draw = Change("init", "orthogonal", module="self.act", types=("Linear", "Net"))
    fixes = (*finding.fixes, Fix("draw it", {}, {}, changes=(draw,)), Fix("add a skip", {}, {}))
    annotated = rounds.annotate(report(path, replace(finding, fixes=fixes)))
    assert [fix.applicable for fix in annotated.findings[0].fixes] == ["unsafe", "safe", None]


def test_a_fix_that_stands_stays(path, finding):
    outcome = apply(report(path, finding), report(path), unsafe=True)
    assert path.read_bytes() == TEXT.replace(b"Sigmoid", b"ReLU")
    assert (len(outcome.written), outcome.refused, outcome.report.findings) == (1, [], ())


def test_an_unsafe_fix_is_not_written_unless_it_is_asked_for(path, finding):
    outcome = apply(report(path, finding), report(path), unsafe=False)
    assert path.read_bytes() == TEXT
    assert outcome.written == []


@pytest.mark.parametrize(
    ("change", "reason"), [({}, "still there"), ({"rule": "dead-units"}, "it brings dead-units: it saturates")]
)
def test_a_fix_that_does_not_stand_is_taken_back_and_becomes_advice(path, finding, change, reason):
    outcome = apply(report(path, finding), report(path, replace(finding, **change)), unsafe=True)
    (fix,) = outcome.report.findings[0].fixes
    assert path.read_bytes() == TEXT
    assert fix.applicable is None
    assert reason in fix.advice
    assert reason in outcome.refused[0]


def test_the_file_is_restored_when_linting_it_again_is_interrupted(path, finding):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rounds.apply(rounds.annotate(report(path, finding)), interrupted, time.time(), unsafe=True)
    assert path.read_bytes() == TEXT


def test_a_file_that_was_changed_while_it_was_linted_is_not_written(path, finding):
    with pytest.raises(UsageError, match="changed while it was linted"):
        rounds.apply(rounds.annotate(report(path, finding)), lambda: report(path), time.time() - 60, unsafe=True)
    assert path.read_bytes() == TEXT


def gradlint(*words):
    with pytest.raises(SystemExit) as status:
        cli.main([*words, "--no-cache", "--isolated"])
    return status.value.code


def test_the_first_example_is_mended_and_then_clean(tmp_path, capsys):
    path = tmp_path / "deep_sigmoid.py"
    shutil.copy(Path(__file__).parent.parent / "examples" / "deep_sigmoid.py", path)
    before = path.read_bytes()
    assert gradlint(str(path), "--diff", "--unsafe-fixes") == 1
    assert "+            layers.append(nn.ReLU())" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert gradlint(str(path), "--fix", "--unsafe-fixes") == 0
    after = path.read_bytes()
    assert after == before.replace(b"nn.Sigmoid", b"nn.ReLU").replace(
        b"width, n_classes)\n",
        b"width, n_classes)\n        self._init_weights()\n\n    def _init_weights(self):\n"
        b"        for module in self.modules():\n"
        b"            if isinstance(module, nn.Linear) and module is not self.head:\n"
        b'                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")\n'
        b"                nn.init.zeros_(module.bias)\n",
    )
    assert gradlint(str(path), "--fix", "--unsafe-fixes") == 0
    assert path.read_bytes() == after


LOGS = """import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, x):
        return self.b(torch.log(torch.relu(self.a(x))))  # log of zero
"""


def test_a_safe_argument_is_written_and_a_second_time_nothing_is(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(LOGS)
    words = (str(path), "--fix", "--unsafe-fixes", "--input", "float32[16,8]", "--loss", "ce")
    assert gradlint(*words) == 0
    after = path.read_text()
    assert after == LOGS.replace("torch.relu(self.a(x))", "torch.relu(self.a(x)).clamp(min=1e-6)")
    assert gradlint(*words) == 0
    assert path.read_text() == after


POST_NORM = """import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.attention = nn.MultiheadAttention(d, 2, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))
        self.first, self.second = nn.LayerNorm(d), nn.LayerNorm(d)

    def forward(self, x):
        attended, _ = self.attention(x, x, x, need_weights=False)
        x = self.first(x + attended)
        return self.second(x + self.feed(x))


class Net(nn.Module):
    def __init__(self, d=16):
        super().__init__()
        self.blocks = nn.ModuleList(Block(d) for _ in range(18))
        self.head = nn.Linear(d, 3)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))
"""


def test_post_norm_is_written_as_pre_norm_and_a_second_time_nothing_is(tmp_path, capsys):
    path = tmp_path / "net.py"
    path.write_text(POST_NORM)
    words = (str(path), "--fix", "--unsafe-fixes", "--input", "float32[4,6,16]", "--loss", "ce")
    assert gradlint(*words) == 0
    assert "deep-post-norm: norm before the branch in 36 blocks" in capsys.readouterr().err
    after = path.read_text()
    assert "return x + self.feed(self.second(x))" in after
    assert "            x = block(x)\n        x = self.final_norm(x)\n" in after
    assert gradlint(*words) == 0
    assert path.read_text() == after and "deep-post-norm" not in str(capsys.readouterr())


def test_options_that_go_nowhere_are_refused(capsys):
    assert gradlint("net.py", "--unsafe-fixes") == 2
    assert gradlint("net.py", "--fix", "--no-probe") == 2
    assert gradlint("net.py", "--prove", "--no-try-fixes") == 2
