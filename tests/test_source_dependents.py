"""Which files import a changed one, however they write it."""

import pytest

from gradlint.source.dependents import dependents

FILES = {
    "pkg/__init__.py": "from .net import Net\n",
    "pkg/blocks.py": "WIDTH = 8\n",
    "pkg/net.py": "from .blocks import WIDTH\nfrom torch import blocks_of_torch\n",
    "pkg/deep/other.py": "from ..blocks import WIDTH\n",
    "pkg/deep/module.py": "from .. import blocks\n",
    "pkg/deep/blocks.py": "",
    "pkg/deep/near.py": "from . import blocks\n",
    "train.py": "import pkg.net as n\n",
    "evaluate.py": "from pkg import Net\n",
    "src/lib/layers.py": "",
    "script.py": "from lib.layers import Layer\nimport torch.blocks\n",
    "alone.py": "import os\n",
    "broken.py": "import pkg.blocks\nx =\n",
}


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        (
            "pkg/blocks.py",
            {
                *("pkg/net.py", "pkg/__init__.py", "pkg/deep/other.py", "pkg/deep/module.py"),
                *("train.py", "evaluate.py"),
            },
        ),
        ("pkg/deep/blocks.py", {"pkg/deep/near.py"}),
        ("src/lib/layers.py", {"script.py"}),
        ("alone.py", set()),
        ("gone.py", set()),
    ],
)
def test_whatever_reads_a_changed_file_is_found_through_others_too(changed, found):
    assert dependents([changed], FILES) == found
