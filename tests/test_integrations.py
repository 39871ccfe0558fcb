"""gradlint in other tools: what pre-commit, GitHub, pytest and Lightning really run."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import gradlint
from gradlint.integrations import github_action
from gradlint.integrations.pytest_plugin import assert_healthy

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'rules'}", "GRADLINT_CACHE": "0"}
VANISHING = """\
import torch
from torch import nn

model = nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(16, 16), nn.Sigmoid())], nn.Linear(16, 3))
"""
HEALTHY = VANISHING.replace("nn.Sigmoid()", "nn.LeakyReLU(0.1)").replace("range(12)", "range(1)")


def ill():
    torch.manual_seed(0)
    return nn.Sequential(*[m for _ in range(12) for m in (nn.Linear(16, 16), nn.Sigmoid())], nn.Linear(16, 3))


def healthy():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.LeakyReLU(0.1), nn.Linear(16, 3))


# -- pytest ------------------------------------------------------------------------------------------------------------


def test_assert_healthy_passes_a_healthy_model_and_tells_what_is_wrong_with_another():
    assert assert_healthy(healthy(), torch.randn(32, 16), loss="ce").targets[0].status == "analysed"
    with pytest.raises(AssertionError, match=r"error\[saturating-chain\]"):
        assert_healthy(ill(), torch.randn(32, 16), loss="ce")
    assert_healthy(ill(), torch.randn(32, 16), loss="ce", fail_on="never")


def test_the_plugin_gives_the_fixture_and_imports_no_torch(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\n\n\ndef test_it(assert_healthy):\n"
        "    assert callable(assert_healthy)\n    assert 'torch' not in sys.modules\n"
    )
    words = ["-m", "pytest", "-q", "-p", "gradlint.integrations.pytest_plugin", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {**ENVIRONMENT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# -- Lightning ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def lightning(monkeypatch):
    """The callback's module, on a stand-in for Lightning that has the three names it imports."""
    stand_in = types.ModuleType("lightning.pytorch")
    stand_in.Callback = stand_in.LightningModule = stand_in.Trainer = type("Callback", (), {})
    monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))
    monkeypatch.setitem(sys.modules, "lightning.pytorch", stand_in)
    monkeypatch.delitem(sys.modules, "gradlint.integrations.lightning", raising=False)
    import gradlint.integrations.lightning as module

    yield module
    sys.modules.pop("gradlint.integrations.lightning", None)


def module_with(model, example):
    model.example_input_array = example
    return model


RANK = [types.SimpleNamespace(is_global_zero=zero) for zero in (False, True)]


def test_the_callback_lints_once_on_the_first_batch_or_the_example_and_leaves_the_module_alone(lightning, capsys):
    model = module_with(healthy(), None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    callback = lightning.GradlintCallback()
    callback.on_fit_start(RANK[1], model)
    assert capsys.readouterr().err == ""
    batch = (torch.randn(32, 16), None)
    state = torch.random.get_rng_state()
    callback.on_train_batch_start(RANK[1], model, batch, 0)
    callback.on_train_batch_start(RANK[1], model, batch, 1)
    assert capsys.readouterr().err.count("gradients reach all") == 1
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_callback_stops_training_of_an_ill_module_on_the_first_rank(lightning):
    model = module_with(ill(), torch.randn(32, 16))
    with pytest.raises(lightning.UnhealthyError, match="saturating-chain"):
        lightning.GradlintCallback().on_fit_start(RANK[1], model)
    lightning.GradlintCallback(fail_on="never").on_fit_start(RANK[1], model)
    lightning.GradlintCallback().on_fit_start(RANK[0], model)


LIT = """\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3), nn.Softmax(dim=1))
        self.loss = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss(self(x), y)
"""


def test_the_loss_is_the_one_that_the_file_of_the_class_applies(tmp_path):
    path = tmp_path / "lit.py"
    path.write_text(LIT)
    spec = importlib.util.spec_from_file_location("lit_of_the_test", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where inspect looks a class's file up
    try:
        spec.loader.exec_module(module)
        (target,) = gradlint.check(module.Net(), torch.randn(32, 16)).targets
    finally:
        del sys.modules[spec.name]
    assert target.probe.loss == "ce" and "squashed-logits" in {finding.rule for finding in target.findings}
    assert gradlint.check(healthy(), torch.randn(32, 16)).targets[0].probe.loss == "ce"


# -- git hooks ---------------------------------------------------------------------------------------------------------


def git(*words, cwd, check=True):
    return subprocess.run(["git", *words], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=check)


@pytest.fixture
def repository(tmp_path):
    git("init", "-q", "-b", "main", cwd=tmp_path)
    git("config", "user.email", "a@b", cwd=tmp_path)
    git("config", "user.name", "n", cwd=tmp_path)
    return tmp_path


DEEP = """\
from torch import nn


class Deep(nn.Module):
    def __init__(self, depth=12):
        super().__init__()
        layers = []
        for _ in range(depth):
            layers.append(nn.Linear(16, 16))
            layers.append(nn.Sigmoid())
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.hidden(x))
"""


@pytest.fixture
def hooked(repository):
    """A repository that the real pre-commit watches with our hooks, `gradlint` being this checkout's."""
    ours, project = repository / "gradlint", repository / "project"
    for folder in (ours, project):
        folder.mkdir()
        git("init", "-q", "-b", "main", cwd=folder)
        for key, value in (("user.email", "a@b"), ("user.name", "n")):
            git("config", key, value, cwd=folder)
    (ours / ".pre-commit-hooks.yaml").write_text((ROOT / ".pre-commit-hooks.yaml").read_text())
    git("add", ".", cwd=ours)
    git("commit", "-qm", "hooks", cwd=ours)
    command = repository / "bin" / "gradlint"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m gradlint "$@"\n')
    command.chmod(0o755)
    rev = git("rev-parse", "HEAD", cwd=ours).stdout.strip()
    # an environment of its own for the ONNX hook would come from the network; a project may say `system` there, too
    hooks = [{"id": "gradlint"}, {"id": "gradlint-onnx", "language": "system", "additional_dependencies": []}]
    told = {"repos": [{"repo": str(ours), "rev": rev, "hooks": hooks}]}
    (project / ".pre-commit-config.yaml").write_text(yaml.safe_dump(told))
    environment = {
        **ENVIRONMENT,
        "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}",
        "PRE_COMMIT_HOME": str(repository / "cache"),
    }

    def run(*words):
        return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True)

    installed = run(sys.executable, "-m", "pre_commit", "install")
    assert installed.returncode == 0, installed.stdout + installed.stderr
    return project, run


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the older ONNX exporter, which needs no more packages
def test_pre_commit_blocks_a_vanishing_model_and_passes_after_fix(hooked):
    project, run = hooked

    def commit():
        run("git", "add", ".")
        done = run("git", "commit", "-m", "x")
        return done.returncode, done.stdout + done.stderr

    (project / "plain.py").write_text("x = 1\n")
    assert commit()[0] == 0
    (project / "net.py").write_text(DEEP)
    status, said = commit()
    assert status == 1 and "error[saturating-chain]" in said and "gradlint (ONNX)" in said
    fixed = run("gradlint", "net.py", "--fix", "--unsafe-fixes", "-q")
    assert fixed.returncode == 0, fixed.stdout + fixed.stderr
    assert "nn.ReLU()" in (project / "net.py").read_text()
    status, said = commit()
    assert status == 0, said
    assert run("git", "status", "--porcelain").stdout == ""
    torch.onnx.export(ill(), (torch.randn(4, 16),), str(project / "ill.onnx"), dynamo=False)
    status, said = commit()
    assert status == 1 and "error[saturating-chain]" in said and "ill.onnx" in said


# -- the action --------------------------------------------------------------------------------------------------------


def test_the_action_annotates_summarises_writes_sarif_and_fails_on_new_findings_alone(repository):
    (repository / "net.py").write_text(VANISHING)
    git("add", ".", cwd=repository)
    git("commit", "-qm", "ill", cwd=repository)
    environment = {
        **ENVIRONMENT,
        "GRADLINT_TARGETS": "net.py",
        "GRADLINT_SARIF": "gradlint.sarif",
        "GRADLINT_ARGS": "--no-try-fixes",
        "GITHUB_WORKSPACE": str(repository),
        "GITHUB_STEP_SUMMARY": str(repository / "summary.md"),
        "GITHUB_OUTPUT": str(repository / "output"),
    }

    def run(**more):
        words = [sys.executable, "-m", "gradlint.integrations.github_action"]
        return subprocess.run(words, cwd=repository, env={**environment, **more}, capture_output=True, text=True)

    done = run()
    assert done.returncode == 1 and done.stdout.startswith("::error file=net.py,line=4,")
    assert "## gradlint: 1 error" in (repository / "summary.md").read_text()
    assert '"version": "2.1.0"' in (repository / "gradlint.sarif").read_text()
    assert (repository / "output").read_text() == "status=1\nsarif=gradlint.sarif\n"
    old = run(GRADLINT_BASE_REF="main", GRADLINT_COMMENT="comment.md", GITHUB_HEAD_REF="feature")
    assert old.returncode == 0, old.stderr
    comment = (repository / "comment.md").read_text()
    assert "0 new, 0 fixed, 1 unchanged" in comment and "`main` → `feature`" in comment
    assert "::error" not in old.stdout and "net.py:4:" in old.stdout  # known: listed, not annotated
    (repository / "other.py").write_text(VANISHING)
    new = run(GRADLINT_BASE_REF="main", GRADLINT_TARGETS="net.py other.py")
    assert new.returncode == 1
    assert [line.partition(",")[0] for line in new.stdout.splitlines() if "::" in line] == ["::error file=other.py"]


def test_an_expression_in_an_input_stays_text():
    given = github_action.inputs({"GRADLINT_TARGETS": "'a b.py' $(touch x);", "GRADLINT_ARGS": ""})
    assert given.targets == ("a b.py", "$(touch", "x);") and given.fail_on == "warning"


def test_every_input_of_the_action_goes_through_the_environment():
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    assert not any("${{" in script for script in scripts)
    passed = "".join(str(step.get("env", {})) + str(step.get("with", {})) for step in action["runs"]["steps"])
    assert set(re.findall(r"inputs\.([\w-]+)", passed)) == set(action["inputs"])
