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
