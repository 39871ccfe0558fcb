"""One target through every station: what fails says so, and with --debug where."""

import pytest

from gradlint import analysis
from gradlint.config import Settings
from gradlint.source.target import parse

BOOM = """\
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        raise RuntimeError("boom")
"""


@pytest.mark.parametrize("debug", [False, True])
def test_a_failure_carries_its_traceback_where_that_is_asked_for(tmp_path, debug):
    path = tmp_path / "net.py"
    path.write_text(BOOM)
    (report,) = analysis.analyse(parse(str(path)), Settings(device="cpu", debug=debug))
    assert report.status == "failed" and report.error.line == 10
    assert report.error.message == "the forward of Net raised RuntimeError: boom"
    assert report.error.trace.startswith("Traceback") == debug


PRETRAINED = """
import torch
from torch import nn

class Head(nn.Module):
    def __init__(self{given}):
        super().__init__()
        self.body = nn.Sequential(*[layer for _ in range(16) for layer in (nn.Linear(64, 64), nn.ReLU())])
        {load}
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        return self.head(self.body(x))
"""
FETCH = 'self.body.load_state_dict(torch.hub.load_state_dict_from_url("https://example.org/sixteen_layers.pth"))'


@pytest.mark.parametrize(
    ("given", "load", "severity", "said"),
    [
        ("", "", "error", ""),
        ("", FETCH, "info", "pretrained"),
        (", encoder", "self.encoder = encoder", "info", "encoder=Identity()"),
    ],
)
def test_layers_without_their_weights_or_the_net_around_them_are_only_noted(tmp_path, given, load, severity, said):
    path = tmp_path / "model.py"
    path.write_text(PRETRAINED.format(load=load, given=given))
    settings = Settings(inputs=("float32[8,64]",), fix=False)
    (report,) = analysis.analyse(parse(str(path)), settings)
    found = [f.severity for f in report.findings if f.rule == "vanishing-init"]
    assert found == [severity], report.findings
    assert said in " ".join(report.notes)
