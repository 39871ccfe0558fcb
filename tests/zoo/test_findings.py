"""The false-positive budget: what the rules may say about healthy architectures at their own init."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROWS = json.loads((HERE / "findings.json").read_text())
EXPLAINED = json.loads((HERE / "explained.json").read_text())
JUDGED = {name: row["findings"] for name, row in ROWS.items() if "findings" in row}
LOUD = {name: {each["rule"] for each in found if each["severity"] != "info"} for name, found in JUDGED.items()}
BUDGET = 0.02  # of the models with an error or a warning
SAMPLE = (
    "hand/MnistNet",
    "hand/GRUNet",
    "hand/MLPSigmoid",
    "hf/bert",
    "hf/gpt2",
    "hf/t5",
    "hf/swinv2",
)


@pytest.fixture(scope="module")
def benchmark() -> types.ModuleType:
    """benchmarks/findings.py, which makes the list."""
    sys.path[:0] = [str(ROOT / "benchmarks"), str(HERE)]
    spec = importlib.util.spec_from_file_location("findings", ROOT / "benchmarks" / "findings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_models_are_those_of_the_zoo() -> None:
    listed = json.loads((HERE / "names.json").read_text())
    assert set(ROWS) <= {f"{family}/{name}" for family, members in listed.items() for name in members}


def test_at_most_one_in_fifty_is_reported() -> None:
    assert sum(map(bool, LOUD.values())) <= BUDGET * len(JUDGED)


def test_every_error_and_warning_is_explained_and_nothing_else() -> None:
    assert {name: set(why) for name, why in EXPLAINED.items()} == {name: found for name, found in LOUD.items() if found}


def test_the_table_is_made_of_the_list(benchmark: types.ModuleType) -> None:
    assert (HERE / "findings.md").read_text() == benchmark.markdown(ROWS), "python benchmarks/findings.py writes it"


@pytest.mark.parametrize("name", [name for name in SAMPLE if name in JUDGED])
def test_a_sample_is_judged_as_it_is_listed(benchmark: types.ModuleType, name: str) -> None:
    benchmark.zoo.preload()
    row = benchmark.judge(benchmark.observe(name))
    found = {(each["rule"], each["severity"]) for each in row["findings"] if each["severity"] != "info"}
    assert found == {(each["rule"], each["severity"]) for each in JUDGED[name] if each["severity"] != "info"}
